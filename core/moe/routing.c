/* The memory of decisions: made with the scratch, overwritten by every forward. */
#include "core/moe/routing.h"

#include <stdlib.h>

#include "core/memory.h"

static int allocate_floats(struct routing *routing, float **floats, size_t count, struct error *err)
{
    *floats = calloc_counted(count, sizeof **floats, &routing->bytes, err);
    return *floats ? 0 : -1;
}

static int allocate_distributions(struct routing *routing, size_t experts, size_t max_items,
                                  struct error *err)
{
    if (allocate_floats(routing, &routing->probability, max_items * experts, err) != 0 ||
        allocate_floats(routing, &routing->entropy, max_items, err) != 0)
        return -1;
    return allocate_floats(routing, &routing->margin, max_items, err);
}

static int allocate_capacity(struct routing *routing, size_t pairs, struct error *err)
{
    routing->line = calloc_counted(pairs, sizeof *routing->line, &routing->bytes, err);
    return routing->line ? allocate_floats(routing, &routing->score, pairs, err) : -1;
}

/* One item's working memory. */
static int allocate_item(struct routing *routing, size_t experts, struct error *err)
{
    routing->places = calloc_counted(experts, sizeof *routing->places, &routing->bytes, err);
    if (!routing->places || allocate_floats(routing, &routing->scores, experts, err) != 0 ||
        allocate_floats(routing, &routing->keys, experts, err) != 0)
        return -1;
    return allocate_floats(routing, &routing->p, experts, err);
}

static int allocate_selections(struct routing *routing, size_t pairs, struct error *err)
{
    uint64_t *bytes = &routing->bytes;
    if (!(routing->expert = calloc_counted(pairs, sizeof *routing->expert, bytes, err)) ||
        !(routing->choice = calloc_counted(pairs, sizeof *routing->choice, bytes, err)))
        return -1;
    return allocate_floats(routing, &routing->weight, pairs, err);
}

int routing_init(struct routing *routing, const struct moed_gate_info *info, size_t max_items,
                 bool distributions, struct error *err)
{
    const size_t experts = info->experts, pairs = max_items * info->top_k;
    *routing = (struct routing){0};
    if (allocate_selections(routing, pairs, err) != 0 ||
        allocate_item(routing, experts, err) != 0 ||
        (distributions && allocate_distributions(routing, experts, max_items, err) != 0) ||
        (info->limited && allocate_capacity(routing, pairs, err) != 0))
        return -1;
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
