/* A routing document: read from JSON, checked, and the figures that follow from its counts computed
 * here, so that they are the same whatever version of the server wrote it.
 *
 * What a document leaves out is NAN (numbers) or absent (counts); only names, rows, top_k and
 * `selected` must be there. */
#ifndef MOECTL_DOCUMENT_H
#define MOECTL_DOCUMENT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "clients/c/moectl/layer.h"

struct settings;

struct document {
    json_t *json;
    char *model, *version, *window; /* printable; window "all" where none is named */
    double seconds;
    struct layer *layers;
    size_t layer_count;
};

/* Documents larger than this are not read. */
enum { DOCUMENT_MAX_BYTES = 256 << 20 };

/* `name` says in errors where the text comes from. The caller frees with document_free(). */
MUST_CHECK struct document *document_read(const char *text, size_t length, const char *name,
                                          struct moed_client_error *err);
MUST_CHECK struct document *document_read_file(const char *path, struct moed_client_error *err);
void document_free(struct document *document);

/* Whether the command line names a model or a file to read from, and not both. */
MUST_CHECK int document_check_source(const struct settings *settings,
                                     struct moed_client_error *err);

/* From --from, or of the model that is the first operand. `include`: what to ask the server for
 * besides; NULL: nothing. */
MUST_CHECK struct document *document_fetch(const struct settings *settings, const char *include,
                                           struct moed_client_error *err);

/* The same of a model by a handle. */
MUST_CHECK struct document *document_of_model(const struct settings *settings,
                                              struct moed_client *client, const char *model,
                                              const char *include, struct moed_client_error *err);

/* Leaves only the layer of that name in it; NULL: all stay. */
MUST_CHECK int document_keep_layer(struct document *document, const char *name,
                                   struct moed_client_error *err);

#endif
