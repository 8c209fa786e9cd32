/* A place for each expert; a table among those that have one. */
#include "proto/routing_busiest.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

size_t routing_busiest_side(size_t experts, size_t top_k, size_t cells)
{
    if (top_k < 2 || top_k >= experts)
        return 0;
    size_t side = experts < BUSIEST_MAX ? experts : BUSIEST_MAX;
    while (side * side > cells)
        side--;
    return side > 1 ? side : 0;
}

struct use {
    uint64_t selected;
    uint16_t expert;
};

static int busier_first(const void *a, const void *b)
{
    const struct use *x = a, *y = b;
    if (x->selected != y->selected)
        return x->selected < y->selected ? 1 : -1;
    return x->expert - y->expert;
}

static int ascending(const void *a, const void *b)
{
    return *(const uint16_t *)a - *(const uint16_t *)b;
}

void routing_busiest_find(const uint64_t *selected, size_t experts, size_t side, uint16_t *expert)
{
    struct use *uses = xcalloc(experts, sizeof *uses);
    for (size_t i = 0; i < experts; i++)
        uses[i] = (struct use){selected[i], (uint16_t)i};
    qsort(uses, experts, sizeof *uses, busier_first);
    for (size_t i = 0; i < side; i++)
        expert[i] = uses[i].expert;
    qsort(expert, side, sizeof *expert, ascending);
    free(uses);
}

int routing_busiest_choose(struct routing_busiest *busiest, size_t experts, const uint16_t *expert,
                           uint64_t since)
{
    const size_t side = busiest->side;
    uint16_t *chosen = calloc(side, sizeof *chosen), *place = calloc(experts, sizeof *place);
    if (!chosen || !place) {
        free(chosen);
        free(place);
        return -1;
    }
    routing_busiest_forget(busiest);
    memcpy(chosen, expert, side * sizeof *chosen);
    for (size_t i = 0; i < experts; i++)
        place[i] = (uint16_t)side;
    for (size_t i = 0; i < side; i++)
        place[chosen[i]] = (uint16_t)i;
    *busiest = (struct routing_busiest){side, chosen, place, since, 0, 0};
    return 0;
}

void routing_busiest_forget(struct routing_busiest *busiest)
{
    free(busiest->expert);
    free(busiest->place);
    *busiest = (struct routing_busiest){.side = busiest->side};
}

void routing_busiest_count(struct routing_busiest *busiest, uint64_t *pairs, const int32_t *choice,
                           size_t k)
{
    const size_t side = busiest->side;
    busiest->items++;
    for (size_t a = 0; a < k && choice[a] >= 0; a++) {
        const size_t i = busiest->place[choice[a]];
        if (i < side)
            pairs[i * side + i]++;
        for (size_t b = a + 1; b < k && choice[b] >= 0; b++) {
            const size_t j = busiest->place[choice[b]];
            if (i < side && j < side)
                pairs[i < j ? i * side + j : j * side + i]++;
            else
                busiest->outside++;
        }
    }
}
