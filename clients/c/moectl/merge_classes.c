/* Counts add up; what the expert says of the class follows from the sums. */
#include "clients/c/moectl/merge_classes.h"

#include <math.h>
#include <stdlib.h>

#include "clients/c/moectl/figures.h"
#include "clients/c/moectl/merge_exact.h"
#include "clients/c/moectl/merge_values.h"

/* ---- sums ---- */

/* The mean of two cells over their items, of whom one may have none. */
static json_t *mean_of(json_t *x, json_t *y, double a, double b)
{
    if (!(b > 0))
        return json_incref(x);
    if (!(a > 0))
        return json_incref(y);
    return exact_number((json_number_value(x) * a + json_number_value(y) * b) / (a + b));
}

static json_t *cell_of(json_t *table, size_t row, size_t column)
{
    return json_array_get(json_array_get(table, row), column);
}

/* Means of tables [experts][classes] over their counts. NULL: one of them has none. */
static json_t *mean_table(json_t *truth, json_t *other, const char *key)
{
    json_t *x = json_object_get(truth, key), *a = json_object_get(truth, "counts");
    json_t *y = json_object_get(other, key), *b = json_object_get(other, "counts");
    if (!json_is_array(x) || !json_is_array(y))
        return NULL;
    json_t *table = json_array();
    for (size_t i = 0; i < json_array_size(a); i++) {
        json_t *row = json_array();
        for (size_t j = 0; j < json_array_size(json_array_get(a, i)); j++)
            json_array_append_new(row, mean_of(cell_of(x, i, j), cell_of(y, i, j),
                                               json_number_value(cell_of(a, i, j)),
                                               json_number_value(cell_of(b, i, j))));
        json_array_append_new(table, row);
    }
    return table;
}

/* Calibration is of all items at once: classes_finish() has it where the sums are exact. */
static int add_truth(json_t *truth, json_t *other, struct moed_client_error *err)
{
    static const char *const ADDED[] = {"counts", "correct"};
    json_t *log_loss = mean_table(truth, other, "log_loss");
    json_object_del(truth, "log_loss");
    if (log_loss)
        json_object_set_new(truth, "log_loss", log_loss);
    return merge_members(truth, other, ADDED, LENGTH(ADDED), err);
}

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
    if (!truth && other)
        json_object_set_new(a, "truth", json_deep_copy(other));
    else if (truth && other && add_truth(truth, other, err) != 0)
        return -1;
    json_object_del(json_object_get(a, "truth"), "ece");
    return merge_member(a, b, "counts", err);
}

/* ---- what follows from them ---- */

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

/* One figure of each expert and class. */
struct quality_tables {
    json_t *log_loss, *ece; /* owned; NULL: not known */
};

static void append_cell(json_t *log_losses, json_t *eces, const struct exact_quality *quality)
{
    json_array_append_new(log_losses, exact_number(quality->log_loss));
    json_array_append_new(eces, exact_number(quality->ece));
}

/* False: the sums of a cell are not of the items that it counts. A document without them may be
 * among those that were added. */
static bool append_row(struct quality_tables *tables, json_t *exact, json_t *counts)
{
    json_t *log_losses = json_array(), *eces = json_array();
    bool whole = true;
    json_array_append_new(tables->log_loss, log_losses);
    json_array_append_new(tables->ece, eces);
    for (size_t i = 0; i < json_array_size(counts); i++) {
        struct exact_quality quality = {.log_loss = NAN, .ece = NAN};
        json_t *cell = json_array_get(exact, i);
        whole &= json_object_size(cell) == 0 || exact_quality_of(cell, &quality);
        whole &= quality.labelled == json_number_value(json_array_get(counts, i));
        append_cell(log_losses, eces, &quality);
    }
    return whole;
}

static void finish_qualities(json_t *truth, json_t *sums)
{
    json_t *exact = json_object_get(sums, "classes"), *counts = json_object_get(truth, "counts");
    struct quality_tables tables = {json_array(), json_array()};
    bool whole = json_is_array(exact) && json_is_array(counts);
    for (size_t i = 0; i < json_array_size(counts); i++)
        whole &= append_row(&tables, json_array_get(exact, i), json_array_get(counts, i));
    if (whole) {
        json_object_set(truth, "log_loss", tables.log_loss);
        json_object_set(truth, "ece", tables.ece);
    } else
        json_object_del(sums, "classes");
    json_decref(tables.log_loss);
    json_decref(tables.ece);
}

void classes_finish(json_t *layer)
{
    json_t *classes = json_object_get(layer, "classes");
    finish_table(classes);
    finish_table(json_object_get(classes, "truth"));
    finish_qualities(json_object_get(classes, "truth"), json_object_get(layer, "exact"));
}

bool classes_are_calibrated(json_t *layer)
{
    json_t *truth = json_object_get(json_object_get(layer, "classes"), "truth");
    return !truth || json_object_get(truth, "ece");
}
