/* Rows for a model: from a file (.npy, .npz or JSON), or made up from its metadata. */
#ifndef MOECTL_INPUTS_H
#define MOECTL_INPUTS_H

#include "clients/c/moectl/npy.h"

struct inputs {
    struct moed_client_tensor *tensors; /* one for each input of the model, in its order */
    size_t **row_at; /* where its rows begin, and the last ends: of texts; else NULL */
    size_t count, rows;
    struct arrays arrays; /* owns the data */
};

/* Reads the rows in a file, "-" standard input, and fits them to the model's inputs. */
MUST_CHECK int inputs_read(struct inputs *inputs, const struct moed_client_model *model,
                           const char *path, struct moed_client_error *err);

/* The same of bytes that are in memory; changes nothing of them. */
MUST_CHECK int inputs_parse(struct inputs *inputs, const struct moed_client_model *model,
                            const char *data, size_t length, struct moed_client_error *err);

/* Numbers from 0 to 1; of an input of categories any of them. */
MUST_CHECK int inputs_make(struct inputs *inputs, const struct moed_client_model *model,
                           size_t rows, struct moed_client_error *err);

void inputs_close(struct inputs *inputs);

/* Views of `count` rows from `first` on, into tensors of the caller: inputs->count of them. */
void inputs_slice(const struct inputs *inputs, size_t first, size_t count,
                  struct moed_client_tensor *tensors);

#endif
