/* Heaps select what is kept of a vocabulary: in time n + k log n for k of n. */
#include "core/sampler_select.h"

#include <stdbool.h>

static bool beats(struct sampler_entry a, struct sampler_entry b)
{
    return a.key > b.key || (a.key == b.key && a.token < b.token);
}

/* Restores the heap below `i`; its root is the best entry or the worst. */
static void sift(struct sampler_entry *heap, size_t count, size_t i, bool best_first)
{
    struct sampler_entry moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < count; i = child) {
        if (child + 1 < count && beats(heap[child + 1], heap[child]) == best_first)
            child++;
        if (beats(heap[child], moved) != best_first)
            break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

static void heapify(struct sampler_entry *heap, size_t count, bool best_first)
{
    for (size_t i = count / 2; i-- > 0;)
        sift(heap, count, i, best_first);
}

/* Moves the root behind the heap, which has one entry less. */
static void pop(struct sampler_entry *heap, size_t count, bool best_first)
{
    struct sampler_entry root = heap[0];
    heap[0] = heap[count - 1];
    heap[count - 1] = root;
    sift(heap, count - 1, 0, best_first);
}

/* The k best of `count` values, best first; k <= count. A value that is no better than the worst
 * of the k so far costs one comparison. */
void sampler_select_best(const float *values, size_t count, size_t k, struct sampler_entry *best)
{
    if (k == 0)
        return;
    for (size_t i = 0; i < k; i++)
        best[i] = (struct sampler_entry){values[i], (int32_t)i};
    heapify(best, k, false);
    for (size_t i = k; i < count; i++) {
        if (values[i] <= best[0].key) /* of equal ones the lower id, which is in the heap */
            continue;
        best[0] = (struct sampler_entry){values[i], (int32_t)i};
        sift(best, k, 0, false);
    }
    for (size_t left = k; left > 1; left--)
        pop(best, left, false);
}

double sampler_sum(const struct sampler_entry *entries, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (double)entries[i].key;
    return sum;
}

/* Keeps entries of at least this weight, in their order. Returns how many. */
size_t sampler_drop_below(struct sampler_entry *entries, size_t count, double least)
{
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if ((double)entries[i].key >= least)
            entries[kept++] = entries[i];
    return kept;
}

/* Keeps the fewest entries whose weights reach the share `top_p` of all, best first. Returns how
 * many. What weighs less than the rest of the mass spread over all entries cannot be among them (a
 * little less, for rounding): that leaves few for the heap. */
size_t sampler_select_mass(struct sampler_entry *entries, size_t count, double top_p)
{
    double total = sampler_sum(entries, count), mass = 0;
    count = sampler_drop_below(entries, count, 0.99 * (1 - top_p) * total / (double)count);
    heapify(entries, count, true);
    size_t left = count;
    while (left > 0 && (mass < top_p * total || left == count)) {
        mass += (double)entries[0].key;
        pop(entries, left--, true);
    }
    for (size_t i = 0, j = count - 1; i < j; i++, j--) { /* the best one is last */
        struct sampler_entry swapped = entries[i];
        entries[i] = entries[j];
        entries[j] = swapped;
    }
    return count - left;
}
