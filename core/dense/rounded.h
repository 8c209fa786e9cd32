/* Weights that are rounded to integers, and multiplied with inputs that are rounded alike
 * (integers.h). Private to gemm.c. */
#ifndef CORE_ROUNDED_H
#define CORE_ROUNDED_H

#include "core/dense/integer_format.h"
#include "core/dense/panels.h"

struct integer_kernel;

struct rounded {
    const struct integer_kernel *kernel; /* NULL: there are none */
    size_t n, k, groups;                 /* outputs, inputs; groups of inputs */
    enum integer_format format;
    void *panels; /* the store's; without one, owned */
    bool stored;
    size_t bytes; /* of panels */
};

/* Fills in what follows from n, k and the format. */
void rounded_size(struct rounded *rounded);

/* Packs `tensor`, whose elements are read as [n, k]. Fails if one is not finite. `rounded` has its
 * sizes, and `stored`; `store` is as panels_new() has it. */
MUST_CHECK int rounded_init(struct rounded *rounded, struct panels_store *store,
                            const struct tensor *tensor, struct error *err);
void rounded_close(struct rounded *rounded);

struct rounded_product {
    const struct rounded *weights;
    const float *bias; /* [n] may be NULL */
    float *y;          /* [rows, n] */
};

/* As gemm_part(): inputs are rounded once for all products, of weights that differ in their
 * numbers only. */
void rounded_parts(const struct rounded_product *products, size_t count,
                   const struct columns_of *columns, const float *x, size_t rows);

/* One output's weights after the other: as floats, and rounded. */
struct rounded_output {
    const struct tensor *tensor;
    size_t k;
    enum integer_format format;
    float *floats;    /* [k] */
    int8_t *integers; /* [k, rounded up to groups] */
    uint16_t *scales; /* [groups] BF16 */
};

MUST_CHECK int rounded_output_init(struct rounded_output *output, const struct tensor *tensor,
                                   size_t k, enum integer_format format, struct error *err);
MUST_CHECK int rounded_output_read(struct rounded_output *output, size_t i, struct error *err);
void rounded_output_close(struct rounded_output *output);

#endif
