/* Every tensor of a checkpoint is used exactly once: a claimed tensor is marked, and the load fails
 * if one is left over (model.c). */
#include "core/layers/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Suffixes are shorter than the longest prefix. */
enum { FULL_NAME_BYTES = 2 * MAX_TENSOR_NAME };

static struct tensor *find(const struct loading *loading, const char *name)
{
    return loading->views ? views_find(loading->views, name)
                          : safetensors_find(loading->tensors, name);
}

const struct tensor *tensor_peek(const struct scope *scope, const char *suffix)
{
    char name[FULL_NAME_BYTES];
    snprintf(name, sizeof name, "%s%s", scope->prefix, suffix);
    return find(scope->loading, name);
}

struct tensor *tensor_claim(const struct scope *scope, const char *suffix, struct error *err)
{
    const struct safetensors *tensors = scope->loading->tensors;
    char name[FULL_NAME_BYTES];
    snprintf(name, sizeof name, "%s%s", scope->prefix, suffix);
    if (strcmp(scope->prefix + scope->outer_bytes, ".") == 0) {
        error_set(err, ERROR_INVALID, "config.json: a '%s' layer needs a name for its tensor '%s'",
                  scope->op, name);
        return NULL;
    }
    struct tensor *tensor = find(scope->loading, name);
    if (!tensor) {
        error_set(err, ERROR_INVALID, "%s: tensor '%s' is missing", safetensors_name(tensors),
                  name);
        return NULL;
    }
    if (tensor->used) {
        tensor_error(tensor, err, ERROR_INVALID, " is claimed by two layers of that name");
        return NULL;
    }
    if (!dtype_is_plain(tensor->dtype) && !scope->loading->views) {
        tensor_error(tensor, err, ERROR_INVALID, ": dtype %s is not one of F32, F16, BF16",
                     dtype_name(tensor->dtype));
        return NULL;
    }
    tensor->used = true;
    if (scope->loading->headers_only) {
        if (scope->loading->views)
            view_place(tensor);
        return tensor;
    }
    if (scope->loading->views && view_read(tensor, err) != 0)
        return NULL;
    return tensor_check_finite(tensor, err) == 0 ? tensor : NULL;
}

int tensor_expect(const struct tensor *tensor, const struct moed_shape *shape, struct error *err)
{
    struct moed_shape found = {.rank = tensor->rank};
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    if (tensor->rank > MOED_MAX_RANK)
        return tensor_error(tensor, err, ERROR_INVALID, " has %zu %s, expected %zu", tensor->rank,
                            tensor->rank == 1 ? "axis" : "axes", shape->rank);
    memcpy(found.dims, tensor->dims, tensor->rank * sizeof *tensor->dims);
    if (shape_equal(&found, shape))
        return 0;
    return tensor_error(tensor, err, ERROR_INVALID, " has shape %s, expected %s",
                        shape_text(&found, a), shape_text(shape, b));
}

/* Zeros that take no memory, of headers only. */
static int convert(struct array *array, const struct scope *scope, const struct tensor *tensor,
                   struct error *err)
{
    array->owned = calloc(tensor->elements, sizeof(float));
    if (!array->owned)
        return tensor_error(tensor, err, ERROR_UNAVAILABLE, ": no memory");
    if (!scope->loading->headers_only)
        tensor_to_f32(tensor, array->owned);
    tensor_drop_pages(tensor);
    array->values = array->owned;
    return 0;
}

int array_build(struct array *array, const struct scope *scope, const char *suffix,
                const struct moed_shape *shape, struct error *err)
{
    *array = (struct array){0};
    struct tensor *tensor = tensor_claim(scope, suffix, err);
    if (!tensor || tensor_expect(tensor, shape, err) != 0)
        return -1;
    array->count = tensor->elements;
    scope->cost->parameters += tensor->elements;
    scope->cost->active_parameters += tensor->elements;
    scope->cost->weight_bytes += tensor->elements * sizeof(float);
    scope->cost->shared_bytes += tensor->elements * sizeof(float);
    if (tensor->data && tensor->dtype == DTYPE_F32 &&
        (uintptr_t)tensor->data % sizeof(float) == 0) {
        array->values = tensor->data;
        array->mapped_bytes = tensor_is_in_place(tensor) ? array->count * sizeof(float) : 0;
        scope->cost->mapped_bytes += array->mapped_bytes;
        return 0;
    }
    return convert(array, scope, tensor, err);
}

int array_build_optional(struct array *array, const struct scope *scope, const char *suffix,
                         const struct moed_shape *shape, struct error *err)
{
    *array = (struct array){0};
    return tensor_peek(scope, suffix) ? array_build(array, scope, suffix, shape, err) : 0;
}

void array_close(struct array *array)
{
    free(array->owned);
    *array = (struct array){0};
}
