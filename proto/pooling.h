/* One vector out of a text's rows, as sentence-transformers says in a model's directory:
 * 1_Pooling/config.json and modules.json. Without these files: the mean, of length 1. */
#ifndef PROTO_POOLING_H
#define PROTO_POOLING_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

enum pooling_kind { POOLING_MEAN, POOLING_FIRST, POOLING_LAST, POOLING_MAX };

struct pooling {
    enum pooling_kind kind;
    bool normalize; /* to length 1 */
};

/* Another way of pooling is refused by its name. */
MUST_CHECK int pooling_load(struct pooling *pooling, const char *directory, struct error *err);

/* rows: [count, size], count at least 1; vector: [size], not normalized. */
void pooling_run(const struct pooling *pooling, const float *rows, size_t count, size_t size,
                 float *vector);

/* To length 1; zeros stay. */
void pooling_normalize(float *vector, size_t size);

#endif
