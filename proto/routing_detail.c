/* Plain tables, a few additions for each item. */
#include "proto/routing_detail.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

static uint64_t *table(size_t rows, size_t columns)
{
    if (rows * columns == 0 || rows * columns > DETAIL_MAX_CELLS)
        return NULL;
    return xcalloc(rows * columns, sizeof(uint64_t));
}

void routing_detail_init(struct routing_detail *detail, size_t experts, size_t top_k,
                         size_t classes)
{
    const size_t paired =
        top_k > 1 && top_k < experts && experts <= DETAIL_MAX_PAIRED ? experts : 0;
    *detail = (struct routing_detail){.experts = experts,
                                      .top_k = top_k,
                                      .classes = classes,
                                      .ranks = table(experts, top_k),
                                      .pairs = table(paired, paired),
                                      .predicted = table(experts, classes),
                                      .truth = table(experts, classes),
                                      .seen = xcalloc(experts, sizeof(uint64_t))};
}

void routing_detail_close(struct routing_detail *detail)
{
    free(detail->ranks);
    free(detail->pairs);
    free(detail->predicted);
    free(detail->truth);
    free(detail->seen);
}

void routing_detail_reset(struct routing_detail *detail)
{
    const size_t experts = detail->experts, top_k = detail->top_k, classes = detail->classes;
    routing_detail_close(detail);
    routing_detail_init(detail, experts, top_k, classes);
}

/* ---- counting ---- */

static void count_pairs(struct routing_detail *detail, const int32_t *choice)
{
    for (size_t a = 0; a < detail->top_k; a++)
        for (size_t b = a + 1; b < detail->top_k; b++) {
            const size_t i = (size_t)choice[a], j = (size_t)choice[b];
            detail->pairs[i < j ? i * detail->experts + j : j * detail->experts + i]++;
        }
}

void routing_detail_count(struct routing_detail *detail, const int32_t *choice, size_t items)
{
    const size_t k = detail->top_k;
    detail->batches++;
    for (size_t item = 0; item < items; item++, choice += k) {
        if (*choice < 0) /* padding */
            continue;
        detail->batch_items++;
        for (size_t rank = 0; rank < k; rank++) {
            const size_t expert = (size_t)choice[rank];
            if (detail->ranks)
                detail->ranks[expert * k + rank]++;
            detail->batch_experts += detail->seen[expert] != detail->batches;
            detail->seen[expert] = detail->batches;
        }
        if (detail->pairs)
            count_pairs(detail, choice);
    }
}

void routing_detail_predict(struct routing_detail *detail, size_t expert, size_t class)
{
    if (detail->predicted && expert < detail->experts && class < detail->classes)
        detail->predicted[expert * detail->classes + class]++;
}

void routing_detail_label(struct routing_detail *detail, size_t expert, size_t class)
{
    if (detail->truth && expert < detail->experts && class < detail->classes)
        detail->truth[expert * detail->classes + class]++;
}

/* ---- arithmetic ---- */

static void add_table(uint64_t *to, const uint64_t *from, size_t count)
{
    for (size_t i = 0; to && from && i < count; i++)
        to[i] += from[i];
}

void routing_detail_add(struct routing_detail *to, const struct routing_detail *from)
{
    add_table(to->ranks, from->ranks, to->experts * to->top_k);
    add_table(to->pairs, from->pairs, to->experts * to->experts);
    add_table(to->predicted, from->predicted, to->experts * to->classes);
    add_table(to->truth, from->truth, to->experts * to->classes);
    to->batches += from->batches;
    to->batch_items += from->batch_items;
    to->batch_experts += from->batch_experts;
}

/* c log2 c, with its limit at 0. */
static double weighed(uint64_t count)
{
    return count > 0 ? (double)count * log2((double)count) : 0;
}

double routing_mutual_information(const uint64_t *counts, size_t rows, size_t columns)
{
    uint64_t all = 0;
    double by_row = 0, by_column = 0, both = 0;
    for (size_t row = 0; row < rows; row++) {
        uint64_t sum = 0;
        for (size_t column = 0; column < columns; column++) {
            sum += counts[row * columns + column];
            both += weighed(counts[row * columns + column]);
        }
        by_row += weighed(sum);
        all += sum;
    }
    for (size_t column = 0; column < columns; column++) {
        uint64_t sum = 0;
        for (size_t row = 0; row < rows; row++)
            sum += counts[row * columns + column];
        by_column += weighed(sum);
    }
    return all > 0 ? fmax((weighed(all) + both - by_row - by_column) / (double)all, 0) : 0;
}
