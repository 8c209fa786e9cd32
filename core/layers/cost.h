/* The cost of a part of a model: memory for its weights, and work for one row. */
#ifndef CORE_COST_H
#define CORE_COST_H

#include <stdint.h>

struct cost {
    uint64_t parameters, weight_bytes; /* stored numbers; resident bytes */
    uint64_t mapped_bytes;             /* of these: in the checkpoint's files */
    uint64_t active_parameters, macs;  /* parameters that one row reads; its multiply-adds */
    uint64_t shared_bytes;             /* that every row reads, whichever experts it selects */
};

/* Adds the weights of `from`, whether a row uses them or not. */
static inline void cost_add_weights(struct cost *cost, const struct cost *from)
{
    cost->parameters += from->parameters;
    cost->weight_bytes += from->weight_bytes;
    cost->mapped_bytes += from->mapped_bytes;
}

/* Adds the work of `from`, done `times` times for one row. */
static inline void cost_add_work(struct cost *cost, const struct cost *from, uint64_t times)
{
    cost->active_parameters += times * from->active_parameters;
    cost->macs += times * from->macs;
    cost->shared_bytes += times * from->shared_bytes;
}

static inline void cost_add(struct cost *cost, const struct cost *from)
{
    cost_add_weights(cost, from);
    cost_add_work(cost, from, 1);
}

#endif
