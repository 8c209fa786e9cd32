/* Tensors that a checkpoint stores in another form than layers ask for: under another name, as part
 * of a larger one, transposed, interleaved, side by side, quantised in blocks.
 *
 * A view is made of matrices inside stored tensors. Where those are consecutive numbers it reads
 * them in place. Otherwise they are copied when a layer claims the view, and the copy is freed when
 * they are packed, so that no more than one such matrix is held twice. */
#ifndef CORE_VIEW_H
#define CORE_VIEW_H

#include "core/load/tensor.h"

/* Queries, keys and values. */
enum { VIEW_MAX_PARTS = 3 };

/* A matrix inside a stored tensor: element [i, j] is number first + i * row_stride + j *
 * column_stride of it. Of MXFP4 and FP8 these count the numbers that are stored in blocks. */
struct view_part {
    struct tensor *source;
    /* MXFP4 (`source` is U8): U8, an exponent for each 32 numbers. FP8: F32, F16 or BF16, a
     * factor for each block of 128 x 128. NULL: `source` is F32, F16 or BF16. */
    struct tensor *scales;
    size_t first, rows, columns, row_stride, column_stride;
};

/* Checkpoints' own numbers per block. FP8's are whole groups of a row (tensor.h). */
enum { MXFP4_BLOCK = 32, FP8_BLOCK = 128 };

/* Several times what the largest published models have: a few hundred megabytes. A small file can
 * describe a million experts of one number each, and a view takes more memory than it stands for.
 */
enum { MAX_VIEWS = 1 << 19 };

struct views;

struct views *views_new(void);
void views_free(struct views *views);

/* Adds a tensor called `name`: the parts, one after the other, as [rows of all, columns] or, with
 * `rank` 1, as one list. The parts must lie inside their sources, which become used. MXFP4 gives
 * BF16; FP8 stays where its rows are whole, or else gives F32, as do parts of different dtypes. -1:
 * there would be more than MAX_VIEWS. */
MUST_CHECK int views_add(struct views *views, const char *name, size_t rank,
                         const struct view_part *parts, size_t count, struct error *err);

/* To be called once, before any is looked for: -1 if two have one name. */
MUST_CHECK int views_sort(struct views *views, struct error *err);

/* NULL: none has that name. It has a shape, and numbers once they are read. */
struct tensor *views_find(const struct views *views, const char *name);
const struct tensor *views_unused(const struct views *views);

/* Gives a tensor of views_find() its numbers, if the file has them as they are wanted. Whether it
 * does. */
bool view_place(struct tensor *tensor);

/* The same, or else makes a copy of them. */
MUST_CHECK int view_read(struct tensor *tensor, struct error *err);

#endif
