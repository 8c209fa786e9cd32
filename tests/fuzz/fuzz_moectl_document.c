/* Routing documents: whatever can be read can be reported on, compared and added to itself, and the
 * sum is a document. */
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/document.h"
#include "clients/c/moectl/merge.h"
#include "clients/c/moectl/report.h"
#include "libfuzzer.h"

static void check_merge(const struct document *document)
{
    struct moed_client_error err = {0};
    json_t *merged = json_deep_copy(document->json);
    if (merge_add(merged, document->json, &err) == 0 && merge_finish(merged, 2, &err) == 0) {
        char *text = json_dumps(merged, 0);
        struct document *sum = document_read(text, strlen(text), "sum", &err);
        if (!sum || sum->layer_count != document->layer_count)
            abort();
        document_free(sum);
        free(text);
    } else if (err.code == MOED_CLIENT_OK)
        abort();
    json_decref(merged);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moed_client_error err = {0};
    struct document *document = document_read((const char *)data, size, "fuzz", &err);
    if (!document)
        return 0;
    json_decref(report_make(document, document, 3, &err));
    check_merge(document);
    document_free(document);
    return 0;
}
