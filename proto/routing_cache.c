/* The stack is an array: it is short, and most uses are near its top. */
#include "proto/routing_cache.h"

#include <stdlib.h>

#include "core/memory.h"

struct simulation {
    const uint16_t *sequence;
    size_t length, experts;
    uint16_t *stack; /* [filled] */
    size_t filled;
    uint64_t *priority; /* [experts] the higher the nearer to the top */
    uint64_t *uses;     /* [experts] so far */
};

/* The use of each place's expert after that place; length: there is none. The caller frees. */
static uint32_t *next_uses(const struct simulation *of)
{
    uint32_t *next = xcalloc(of->length, sizeof *next);
    uint32_t *latest = xcalloc(of->experts, sizeof *latest);
    for (size_t i = 0; i < of->experts; i++)
        latest[i] = (uint32_t)of->length;
    for (size_t i = of->length; i-- > 0;) {
        next[i] = latest[of->sequence[i]];
        latest[of->sequence[i]] = (uint32_t)i;
    }
    free(latest);
    return next;
}

static size_t depth_of(const struct simulation *of, uint16_t expert)
{
    size_t depth = 0;
    while (depth < of->filled && of->stack[depth] != expert)
        depth++;
    return depth;
}

/* The used expert goes to the top. From there down to where it was, of the one that had to leave
 * the place above and the one that is there the higher stays. */
static void move_to_top(struct simulation *of, uint16_t expert, size_t depth)
{
    uint16_t leaving = expert;
    for (size_t i = 0; i < depth; i++) {
        const uint16_t here = of->stack[i];
        if (i == 0 || of->priority[leaving] > of->priority[here]) {
            of->stack[i] = leaving;
            leaving = here;
        }
    }
    of->stack[depth] = leaving;
    of->filled += depth == of->filled;
}

static void simulate(struct simulation *of, enum routing_cache_policy policy, uint64_t *depths)
{
    uint32_t *next = policy == CACHE_BELADY ? next_uses(of) : NULL;
    for (size_t i = 0; i < of->length; i++) {
        const uint16_t expert = of->sequence[i];
        const size_t depth = depth_of(of, expert);
        if (depth < of->filled)
            depths[depth]++;
        move_to_top(of, expert, depth);
        of->priority[expert] = policy == CACHE_LRU   ? i
                               : policy == CACHE_LFU ? ++of->uses[expert] * of->length + i
                                                     : of->length - next[i];
    }
    free(next);
}

void routing_cache_depths(const uint16_t *sequence, size_t length, size_t experts,
                          enum routing_cache_policy policy, uint64_t *depths)
{
    struct simulation of = {.sequence = sequence,
                            .length = length,
                            .experts = experts,
                            .stack = xcalloc(experts, sizeof *of.stack),
                            .priority = xcalloc(experts, sizeof *of.priority),
                            .uses = xcalloc(experts, sizeof *of.uses)};
    simulate(&of, policy, depths);
    free(of.stack);
    free(of.priority);
    free(of.uses);
}
