/* The life of a decoded request; see infer.h. */
#include "proto/infer.h"

#include <stdlib.h>

void infer_request_close(struct infer_request *request)
{
    free(request->id);
    free(request->inputs);
    free(request->outputs);
    *request = (struct infer_request){0};
}
