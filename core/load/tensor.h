/* One tensor of a checkpoint: where its numbers are, and how they are checked and copied. */
#ifndef CORE_TENSOR_H
#define CORE_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* I8 exists only in memory: gemm_init_rounded() makes it from the others. U8 is stored only, in
 * blocks that a view decodes (core/load/view.h), which also gives F8_E4M3 its scales. */
enum dtype { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8, DTYPE_U8, DTYPE_F8_E4M3 };

/* Numbers of a row that share a scale. */
enum { SCALED_GROUP = 32 };

/* A stored tensor may have more axes than a row: expert and output axes come first. */
enum { TENSOR_MAX_RANK = 8 };

struct tensor {
    char *name;
    const char *shard; /* name of its file */
    enum dtype dtype;
    size_t rank;
    size_t dims[TENSOR_MAX_RANK];
    size_t elements;
    const void *data; /* in the mapping; little-endian, any alignment. NULL: not read */
    bool mapped;      /* pages that are dropped can be read again */
    bool kept;        /* another layer reads the same numbers: its pages stay */
    void **copy;      /* of a view: the place of its numbers' copy, which may be NULL; else NULL */
    bool fp4;         /* what MXFP4 holds, in whole blocks of each row */
    const float *scales; /* of F8_E4M3: [rows, columns / SCALED_GROUP rounded up] */
    bool used;           /* some layer has claimed it */
};

/* Records "<file>: tensor '<name>'<message>". Returns -1. */
int tensor_error(const struct tensor *tensor, struct error *err, enum error_code code,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Refuses a tensor with an element that is NaN or infinite, or a scale beyond 2^100. Reads all of
 * it. */
MUST_CHECK int tensor_check_finite(const struct tensor *tensor, struct error *err);

size_t dtype_bytes(enum dtype dtype);

/* A stored dtype by its name in the container. Returns -1 for any other. `name` may be NULL. */
MUST_CHECK int dtype_parse(const char *name, enum dtype *dtype);

/* Releases the memory of a tensor whose numbers have been packed. Nobody may read it again: pages
 * of a mapped file would be read anew, those of a copied file are zeros, a view's copy is gone. */
void tensor_drop_pages(const struct tensor *tensor);

/* Whether its numbers are read where the file has them. */
bool tensor_is_in_place(const struct tensor *tensor);

/* Releases the pages of a tensor that may be read again: those of a mapped file. */
void tensor_leave_pages(const struct tensor *tensor);

/* Whether it is F32, F16 or BF16. */
bool dtype_is_plain(enum dtype dtype);
const char *dtype_name(enum dtype dtype);

/* Copies all elements, or `count` from `first` on, to f32; exact for every dtype. */
void tensor_to_f32(const struct tensor *tensor, float *values);
void tensor_part_to_f32(const struct tensor *tensor, size_t first, size_t count, float *values);

#endif
