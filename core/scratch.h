/* The mutable side of a forward pass; private to scratch.c (allocation) and forward.c (running). */
#ifndef CORE_SCRATCH_H
#define CORE_SCRATCH_H

#include "core/model.h"
#include "core/moe/dispatch.h"

struct moed_scratch {
    const struct moed_model *model; /* borrowed */
    size_t max_rows, threads;
    uint64_t bytes;    /* of all that follows */
    float *arena;      /* [max_rows, plan.most of the model] */
    float *workspaces; /* [threads, workspace_stride] */
    size_t workspace_stride;
    struct routing *routing; /* [gate_count of the model] */
    size_t routing_count;
    struct dispatch *dispatches; /* [moe_count of the model] */
    size_t dispatch_count;
};

/* A run over the whole scratch, on `team`. The caller sets its spans. */
struct run scratch_run(struct moed_scratch *scratch, struct moed_team *team);

#endif
