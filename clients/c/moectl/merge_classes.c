/* Counts add up; what the expert says of the class follows from the sums. */
#include "clients/c/moectl/merge_classes.h"

#include <math.h>
#include <stdlib.h>

#include "clients/c/moectl/figures.h"
#include "clients/c/moectl/merge_values.h"

int classes_add(json_t *into, json_t *from, struct moed_client_error *err)
{
    json_t *a = json_object_get(into, "classes"), *b = json_object_get(from, "classes");
    json_t *truth = json_object_get(a, "truth"), *other = json_object_get(b, "truth");
    if (!json_is_object(a) || !json_is_object(b)) {
        json_object_del(into, "classes");
        return 0;
    }
    if (!json_equal(json_object_get(a, "labels"), json_object_get(b, "labels")))
        return merge_differs("labels", err);
    static const char *const ADDED[] = {"counts", "correct"};
    if (!truth && other)
        json_object_set_new(a, "truth", json_deep_copy(other));
    else if (truth && other && merge_members(truth, other, ADDED, LENGTH(ADDED), err) != 0)
        return -1;
    return merge_member(a, b, "counts", err);
}

/* What follows from counts [experts][classes]: H(expert), H(class) and H of both, in bits. */
struct entropies {
    double expert, class, both;
};

static struct entropies entropies_of(json_t *counts)
{
    size_t rows = json_array_size(counts), columns = json_array_size(json_array_get(counts, 0));
    double *cells = xcalloc(rows * columns, sizeof *cells), *by_row = xcalloc(rows, sizeof *by_row);
    double *by_column = xcalloc(columns, sizeof *by_column);
    for (size_t i = 0; i < rows * columns; i++) {
        json_t *cell = json_array_get(json_array_get(counts, i / columns), i % columns);
        cells[i] = json_number_value(cell);
        by_row[i / columns] += cells[i];
        by_column[i % columns] += cells[i];
    }
    const struct entropies bits = {entropy_bits(by_row, rows), entropy_bits(by_column, columns),
                                   entropy_bits(cells, rows * columns)};
    free(cells);
    free(by_row);
    free(by_column);
    return bits;
}

static void finish_table(json_t *table)
{
    json_t *counts = json_object_get(table, "counts");
    if (json_array_size(counts) == 0)
        return;
    const struct entropies bits = entropies_of(counts);
    json_object_set_new(table, "mi_bits", json_real(fmax(bits.expert + bits.class - bits.both, 0)));
    json_object_set_new(table, "dispatch_entropy_bits",
                        json_real(fmax(bits.both - bits.expert, 0)));
}

void classes_finish(json_t *layer)
{
    json_t *classes = json_object_get(layer, "classes");
    finish_table(classes);
    finish_table(json_object_get(classes, "truth"));
}
