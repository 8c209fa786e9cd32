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

#include "clients/c/moectl/support.h"

struct settings;

struct expert {
    uint64_t index, selected, top1, dropped;
    double share;        /* selected / (rows x top_k) */
    double weight;       /* sum of combine weights */
    double weight_share; /* |weight| / sum of |weight| */
    double probability;  /* sum of the gate's distribution */
    double idle_seconds;
    double labelled, accuracy, log_loss, ece;
};

struct layer {
    char *name; /* printable */
    uint64_t rows, dropped;
    size_t top_k, expert_count;
    struct expert *experts;
    bool dense;    /* the gate uses every expert for every row: only weights tell them apart */
    bool weighted; /* every expert has a weight */
    double usage_entropy_bits, gate_entropy_bits, margin;
    double imbalance, weight_imbalance, balancedness, cv, jain, effective_experts;
    size_t unused;
    json_t *json; /* borrowed from the document: what is shown only by some */
};

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

/* The part of the traffic that an expert carries: its share, of a dense gate its weight share. */
double expert_load(const struct layer *layer, const struct expert *expert);

/* Indices into layer->experts, the largest load first; the caller frees. */
size_t *layer_ranking(const struct layer *layer);

/* A number of the layer's JSON, at a path of two keys (the second may be NULL); NAN: absent. */
double layer_number(const struct layer *layer, const char *key, const char *inner);

#endif
