/* What the families' translations are written in: reading keys, and making views of tensors.
 *
 * The first error stays, and everything after it does nothing: a translation reads like a list of
 * what a checkpoint has, and whoever loops over layers asks translation_failed(). */
#ifndef CORE_TRANSLATION_H
#define CORE_TRANSLATION_H

#include <jansson.h>

#include "core/family/result.h"
#include "core/load/safetensors.h"

struct translation {
    struct family *family;
    struct config_node *config;
    struct safetensors *tensors;
    struct error *err;
    bool bare; /* a trunk alone is stored: names lack the "model." that they begin with here */
};

bool translation_failed(const struct translation *t);

/* ---- names ---- */

/* A formatted name, by value. */
struct tensor_name {
    char text[256];
};
struct tensor_name named(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* ---- keys: a JSON null is as good as an absent key ---- */

/* A size from 1 on, or `otherwise`; 0: the key is required. */
size_t read_size(struct translation *t, const char *key, size_t otherwise);
/* A size, or a list of the same size for every layer. */
size_t read_uniform(struct translation *t, const char *key, size_t otherwise);
double read_real(struct translation *t, const char *key, double otherwise);
bool read_flag(struct translation *t, const char *key, bool otherwise);
/* Refuses any other value than `only`. */
void read_only(struct translation *t, const char *key, const char *only);
void read_only_flag(struct translation *t, const char *key, bool only);
void read_only_size(struct translation *t, const char *key, size_t only);
/* "quantization_config": MXFP4, or FP8 in blocks; which tensors are is seen from the tensors. */
void read_quantization(struct translation *t);
/* Whether the key is known beside those that were asked for; any value but the one that is computed
 * is refused. */
bool read_settled(struct translation *t, const char *key);
/* Ends the reading: refuses keys that nobody asked for, unless they are known not to matter for
 * what a model computes. */
void read_done(struct translation *t);

/* ---- tensors ---- */

/* NULL: there is none. */
struct tensor *find_tensor(const struct translation *t, const char *name);
bool is_stored(const struct translation *t, const char *name);

/* Each makes a view `to` of what is stored as `from`, which must have that shape. A matrix may be
 * FP8 with `<from>_scale_inv`. */
void add_matrix(struct translation *t, const char *to, const char *from, size_t n, size_t k);
void add_vector(struct translation *t, const char *to, const char *from, size_t n);
/* `to`.weight [n, k] and, if `bias`, `to`.bias [n]. */
void add_linear(struct translation *t, const char *to, const char *from, const size_t size[2],
                bool bias);
/* A stored tensor of that shape, of numbers or (U8) of bytes, and a part of it as a view; NULL
 * after an error. */
struct tensor *stored(struct translation *t, const char *name, size_t rank, const size_t *dims);
struct tensor *stored_bytes(struct translation *t, const char *name, size_t rank,
                            const size_t *dims);
struct view_part whole_matrix(struct translation *t, const char *name, size_t n, size_t k);
void add_part(struct translation *t, const char *to, size_t rank, const struct view_part *part);
/* Queries, keys and values, each `rows[i]` x `columns`, one below the other. */
void add_stack(struct translation *t, const char *to, const struct tensor_name from[3],
               const size_t rows[3], size_t columns);
/* Tensors that inference does not need: all whose name ends or begins so. */
void ignore_suffix(struct translation *t, const char *suffix);
void ignore_prefix(struct translation *t, const char *prefix);

#endif
