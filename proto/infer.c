/* A request owns its texts and its lists of inputs and outputs; the body stays the caller's. */
#include "proto/infer.h"

#include <stdlib.h>

void infer_overrides_close(struct infer_overrides *overrides)
{
    for (size_t i = 0; i < overrides->count; i++)
        free(overrides->items[i].experts);
    free(overrides->items);
    free(overrides->text);
    *overrides = (struct infer_overrides){0};
}

void infer_request_close(struct infer_request *request)
{
    free(request->id);
    free(request->tag);
    free(request->labels);
    infer_overrides_close(&request->overrides);
    free(request->inputs);
    free(request->outputs);
    for (size_t i = 0; request->texts && i < request->signature->input_count; i++)
        free(request->texts[i]);
    free(request->texts);
    *request = (struct infer_request){0};
}
