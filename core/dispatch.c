/* Sorting (item, expert) pairs by expert, so that each expert's weights are read once per batch.
 *
 * A counting sort over the histogram that gate_select has made: stable, so an expert sees its items
 * in order whatever else is in the batch, and an expert that gets every item gets them in place. */
#include "moe.h"

#include <stdlib.h>

void dispatch(struct routing *routing)
{
    uint32_t next = 0;
    for (size_t e = 0; e < routing->experts; e++) {
        routing->first[e] = next;
        next += (uint32_t)routing->selected[e];
    }
    routing->first[routing->experts] = next;

    /* first[e] walks forward as expert e's pairs are placed, to where first[e + 1] began ... */
    for (size_t item = 0; item < routing->items; item++)
        for (size_t slot = 0; slot < routing->top_k; slot++) {
            size_t pair = item * routing->top_k + slot;
            uint32_t at = routing->first[routing->expert[pair]]++;
            routing->item[at] = (uint32_t)item;
            routing->position[pair] = at;
        }

    /* ... so moving every entry up by one restores the beginnings. */
    for (size_t e = routing->experts; e > 0; e--)
        routing->first[e] = routing->first[e - 1];
    routing->first[0] = 0;
}

int routing_init(struct routing *routing, const struct moed_moe_info *info, size_t max_items,
                 struct error *err)
{
    const size_t experts = info->experts, pairs = max_items * info->top_k;
    *routing = (struct routing){.experts = experts, .top_k = info->top_k};
    if (!(routing->expert = calloc_checked(pairs, sizeof *routing->expert, err)) ||
        !(routing->weight = calloc_checked(pairs, sizeof *routing->weight, err)) ||
        !(routing->item = calloc_checked(pairs, sizeof *routing->item, err)) ||
        !(routing->position = calloc_checked(pairs, sizeof *routing->position, err)) ||
        !(routing->tasks = calloc_checked(pairs, sizeof *routing->tasks, err)))
        return -1;
    routing->first = xcalloc(experts + 1, sizeof *routing->first);
    routing->selected = xcalloc(experts, sizeof *routing->selected);
    routing->top1 = xcalloc(experts, sizeof *routing->top1);
    routing->weight_sum = xcalloc(experts, sizeof *routing->weight_sum);
    routing->probability_sum = xcalloc(experts, sizeof *routing->probability_sum);
    routing->scores = xcalloc(experts, sizeof *routing->scores);
    routing->probability = xcalloc(experts, sizeof *routing->probability);
    return 0;
}

void routing_close(struct routing *routing)
{
    free(routing->expert);
    free(routing->weight);
    free(routing->item);
    free(routing->position);
    free(routing->tasks);
    free(routing->first);
    free(routing->selected);
    free(routing->top1);
    free(routing->weight_sum);
    free(routing->probability_sum);
    free(routing->scores);
    free(routing->probability);
}
