/* The memory of decisions: made with the scratch, overwritten by every forward. */
#include "core/moe/routing.h"

#include <stdlib.h>

#include "core/memory.h"

static int allocate_distributions(struct routing *routing, size_t experts, size_t max_items,
                                  struct error *err)
{
    if (!(routing->probability =
              calloc_checked(max_items * experts, sizeof *routing->probability, err)) ||
        !(routing->entropy = calloc_checked(max_items, sizeof *routing->entropy, err)) ||
        !(routing->margin = calloc_checked(max_items, sizeof *routing->margin, err)))
        return -1;
    return 0;
}

int routing_init(struct routing *routing, const struct moed_gate_info *info, size_t max_items,
                 bool distributions, struct error *err)
{
    const size_t experts = info->experts, pairs = max_items * info->top_k;
    *routing = (struct routing){0};
    if (!(routing->expert = calloc_checked(pairs, sizeof *routing->expert, err)) ||
        !(routing->choice = calloc_checked(pairs, sizeof *routing->choice, err)) ||
        !(routing->weight = calloc_checked(pairs, sizeof *routing->weight, err)) ||
        (distributions && allocate_distributions(routing, experts, max_items, err) != 0))
        return -1;
    if (info->limited && (!(routing->score = calloc_checked(pairs, sizeof *routing->score, err)) ||
                          !(routing->line = calloc_checked(pairs, sizeof *routing->line, err))))
        return -1;
    routing->scores = xcalloc(experts, sizeof *routing->scores);
    routing->keys = xcalloc(experts, sizeof *routing->keys);
    routing->p = xcalloc(experts, sizeof *routing->p);
    routing->places = xcalloc(experts, sizeof *routing->places);
    routing->decisions = (struct moed_routing){.experts = experts,
                                               .top_k = info->top_k,
                                               .expert = routing->expert,
                                               .choice = routing->choice,
                                               .weight = routing->weight,
                                               .probability = routing->probability,
                                               .entropy = routing->entropy,
                                               .margin = routing->margin};
    return 0;
}

void routing_close(struct routing *routing)
{
    free(routing->expert);
    free(routing->choice);
    free(routing->weight);
    free(routing->probability);
    free(routing->entropy);
    free(routing->margin);
    free(routing->scores);
    free(routing->keys);
    free(routing->p);
    free(routing->places);
    free(routing->score);
    free(routing->line);
}
