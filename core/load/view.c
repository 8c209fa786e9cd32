/* Copies go row by row. MXFP4's blocks are decoded exactly, to BF16; FP8's numbers stay as they
 * are, with a scale for so many of a row as lie in one block, however the matrix is cut. */
#include "core/load/view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/half.h"
#include "core/memory.h"

struct view {
    struct tensor tensor; /* called as its first part's source is, for messages */
    char *key;            /* the name that layers ask for */
    void *copy;           /* NULL: read in place */
    struct view_part parts[VIEW_MAX_PARTS];
    size_t part_count;
};

struct views {
    struct view **list; /* sorted by key once complete */
    size_t count, capacity;
};

struct views *views_new(void)
{
    return xcalloc(1, sizeof(struct views));
}

static void view_free(struct view *view)
{
    free(view->key);
    free(view->copy);
    free(view);
}

void views_free(struct views *views)
{
    for (size_t i = 0; views && i < views->count; i++)
        view_free(views->list[i]);
    free(views ? views->list : NULL);
    free(views);
}

/* Numbers from one row of blocks to the next. */
static size_t width_of(const struct tensor *source)
{
    return source->dims[source->rank - 1];
}

static bool has_whole_rows(const struct view_part *part)
{
    size_t width = width_of(part->source);
    return part->column_stride == 1 && part->columns == width && part->first % width == 0 &&
           part->row_stride % width == 0;
}

static enum dtype part_dtype(const struct view_part *part)
{
    switch (part->source->dtype) {
    case DTYPE_U8:
        return DTYPE_BF16;
    case DTYPE_F8_E4M3:
        return has_whole_rows(part) ? DTYPE_F8_E4M3 : DTYPE_F32;
    default:
        return part->source->dtype;
    }
}

static struct view *view_new(const char *name, const struct view_part *parts, size_t count)
{
    struct view *view = xcalloc(1, sizeof *view);
    struct tensor *tensor = &view->tensor;
    *tensor = (struct tensor){.name = parts->source->name,
                              .shard = parts->source->shard,
                              .dtype = part_dtype(parts),
                              .mapped = parts->source->mapped,
                              .fp4 = true,
                              .copy = &view->copy};
    view->key = xstrdup(name);
    view->part_count = count;
    memcpy(view->parts, parts, count * sizeof *parts);
    for (size_t i = 0; i < count; i++) {
        tensor->dims[0] += parts[i].rows;
        tensor->dtype = part_dtype(&parts[i]) == tensor->dtype ? tensor->dtype : DTYPE_F32;
        tensor->kept |= parts[i].source->kept;
        tensor->fp4 &= parts[i].source->dtype == DTYPE_U8;
        parts[i].source->used = true;
        if (parts[i].scales)
            parts[i].scales->used = true;
    }
    return view;
}

int views_add(struct views *views, const char *name, size_t rank, const struct view_part *parts,
              size_t count, struct error *err)
{
    if (views->count == MAX_VIEWS)
        return tensor_error(parts->source, err, ERROR_INVALID,
                            ": more than %d matrices and vectors in all", MAX_VIEWS);
    struct view *view = view_new(name, parts, count);
    struct tensor *tensor = &view->tensor;
    tensor->rank = rank;
    tensor->elements = tensor->dims[0] * parts->columns;
    tensor->dims[rank - 1] = rank == 1 ? tensor->elements : parts->columns;
    if (views->count == views->capacity) {
        views->capacity = views->capacity ? 2 * views->capacity : 64;
        views->list = xrealloc(views->list, views->capacity * sizeof *views->list);
    }
    views->list[views->count++] = view;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const struct view *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

int views_sort(struct views *views, struct error *err)
{
    if (views->count)
        qsort(views->list, views->count, sizeof *views->list, compare);
    for (size_t i = 1; i < views->count; i++)
        if (compare(&views->list[i - 1], &views->list[i]) == 0)
            return tensor_error(&views->list[i]->tensor, err, ERROR_INTERNAL,
                                " is one of two for '%s'", views->list[i]->key);
    return 0;
}

struct tensor *views_find(const struct views *views, const char *name)
{
    struct view key = {.key = (char *)name}, *wanted = &key;
    if (!views->count)
        return NULL;
    struct view **found = bsearch(&wanted, views->list, views->count, sizeof *views->list, compare);
    return found ? &(*found)->tensor : NULL;
}

const struct tensor *views_unused(const struct views *views)
{
    for (size_t i = 0; i < views->count; i++)
        if (!views->list[i]->tensor.used)
            return &views->list[i]->tensor;
    return NULL;
}

/* ---- reading ------------------------------------------------------------------------------ */

static const char *at(const struct tensor *tensor, size_t index)
{
    return (const char *)tensor->data + index * dtype_bytes(tensor->dtype);
}

static float float_at(const struct tensor *tensor, size_t index)
{
    uint16_t half;
    float value;
    if (tensor->dtype == DTYPE_F32) {
        memcpy(&value, at(tensor, index), sizeof value);
        return value;
    }
    memcpy(&half, at(tensor, index), sizeof half);
    return tensor->dtype == DTYPE_F16 ? float_of_half(half) : float_of_bfloat(half);
}

static float fp8_scale(const struct view_part *part, size_t index)
{
    size_t width = width_of(part->source), across = (width + FP8_BLOCK - 1) / FP8_BLOCK;
    return float_at(part->scales, index / width / FP8_BLOCK * across + index % width / FP8_BLOCK);
}

static float fp8_number(const struct view_part *part, size_t index)
{
    uint8_t bits = (uint8_t)*at(part->source, index);
    return (bits & 0x7F) == 0x7F ? NAN : float_of_fp8(bits) * fp8_scale(part, index);
}

static float number(const struct view_part *part, size_t index)
{
    return part->source->dtype == DTYPE_F8_E4M3 ? fp8_number(part, index)
                                                : float_at(part->source, index);
}

static uint16_t bfloat_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)(bits >> 16);
}

/* One block: the low half of a byte comes before its high half. 2 to the power of 128 stands for
 * NaN, and is found to be none of the finite numbers. */
static void read_mxfp4(const struct view_part *part, size_t block, uint16_t *to)
{
    static const float magnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    const uint8_t *bytes = (const uint8_t *)part->source->data + block * (MXFP4_BLOCK / 2);
    const uint8_t exponent = (uint8_t)*at(part->scales, block);
    uint16_t values[16];
    for (size_t i = 0; i < 8; i++) {
        values[i] = bfloat_of(exponent == 0xFF ? NAN : ldexpf(magnitudes[i], exponent - 127));
        values[i + 8] = values[i] | 0x8000;
    }
    for (size_t i = 0; i < MXFP4_BLOCK / 2; i++) {
        to[2 * i] = values[bytes[i] & 15];
        to[2 * i + 1] = values[bytes[i] >> 4];
    }
}

/* Row `row` of a part, in the view's dtype. */
static void read_row(const struct view *view, const struct view_part *part, size_t row, char *to)
{
    const struct tensor *source = part->source;
    size_t first = part->first + row * part->row_stride, size = dtype_bytes(view->tensor.dtype);
    if (source->dtype == DTYPE_U8) {
        for (size_t j = 0; j < part->columns; j += MXFP4_BLOCK)
            read_mxfp4(part, (first + j) / MXFP4_BLOCK, (uint16_t *)(void *)to + j);
    } else if (view->tensor.dtype != source->dtype) {
        for (size_t j = 0; j < part->columns; j++)
            ((float *)(void *)to)[j] = number(part, first + j * part->column_stride);
    } else if (part->column_stride == 1) {
        memcpy(to, at(source, first), part->columns * size);
    } else {
        for (size_t j = 0; j < part->columns; j++)
            memcpy(to + j * size, at(source, first + j * part->column_stride), size);
    }
}

static bool is_consecutive(const struct view *view)
{
    const struct view_part *part = &view->parts[0];
    return view->part_count == 1 && view->tensor.dtype == part->source->dtype && !part->scales &&
           part->column_stride == 1 && (part->row_stride == part->columns || part->rows == 1);
}

bool view_place(struct tensor *tensor)
{
    struct view *view = (struct view *)tensor;
    if (!is_consecutive(view))
        return false;
    tensor->data = at(view->parts[0].source, view->parts[0].first);
    return true;
}

/* Scales of all rows, one after the other. */
static void read_scales(const struct view *view, float *to)
{
    for (size_t i = 0; i < view->part_count; i++) {
        const struct view_part *part = &view->parts[i];
        for (size_t row = 0; row < part->rows; row++)
            for (size_t j = 0; j < part->columns; j += SCALED_GROUP)
                *to++ = fp8_scale(part, part->first + row * part->row_stride + j);
    }
}

/* Its numbers; behind them, where there are any, its scales. */
static int allocate_copy(struct view *view, struct error *err)
{
    struct tensor *tensor = &view->tensor;
    size_t numbers = tensor->elements * dtype_bytes(tensor->dtype), scales = 0;
    if (tensor->dtype == DTYPE_F8_E4M3) {
        numbers = (numbers + sizeof(float) - 1) / sizeof(float) * sizeof(float);
        scales = tensor->dims[0] * ((tensor->dims[1] + SCALED_GROUP - 1) / SCALED_GROUP);
    }
    view->copy = malloc(numbers + scales * sizeof(float));
    if (!view->copy)
        return tensor_error(tensor, err, ERROR_UNAVAILABLE, ": no memory for a copy");
    if (scales) {
        tensor->scales = (float *)(void *)((char *)view->copy + numbers);
        read_scales(view, (float *)(void *)((char *)view->copy + numbers));
    }
    return 0;
}

int view_read(struct tensor *tensor, struct error *err)
{
    struct view *view = (struct view *)tensor;
    if (view_place(tensor))
        return 0;
    if (allocate_copy(view, err) != 0)
        return -1;
    char *to = view->copy;
    for (size_t i = 0; i < view->part_count; i++) {
        const struct view_part *part = &view->parts[i];
        for (size_t row = 0; row < part->rows;
             row++, to += part->columns * dtype_bytes(tensor->dtype))
            read_row(view, part, row, to);
        tensor_leave_pages(part->source);
    }
    tensor->data = view->copy;
    return 0;
}
