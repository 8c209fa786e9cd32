/* Scratch that a part of a model needs while it runs, planned once when it is built.
 *
 * Scratch is linear in rows: the part asks for floats of each row, and gets a place. At run time
 * run_floats() (layer.h) finds the place for any number of rows; nobody adds up sizes by hand. */
#ifndef CORE_PLAN_H
#define CORE_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "core/shape.h"

struct plan {
    size_t used;      /* floats per row that are taken */
    size_t most;      /* the largest that `used` ever was: what the part needs */
    size_t workspace; /* floats of a worker's own, whatever the number of rows */
};

/* Sums end here, far above what moed_scratch_new() gives memory for: those of a hostile config,
 * whose lists lie in each other, must not start again at 0. */
static const size_t PLAN_MOST = (size_t)1 << 48;

static inline size_t plan_floats(struct plan *plan, size_t per_row)
{
    size_t place = plan->used;
    plan->used = per_row < PLAN_MOST - place ? place + per_row : PLAN_MOST;
    plan->most = max_size(plan->most, plan->used);
    return place;
}

/* What was planned from `place` on is not needed any more when what comes next is. */
static inline void plan_release(struct plan *plan, size_t place)
{
    plan->used = place;
}

static inline void plan_workspace(struct plan *plan, size_t floats)
{
    plan->workspace = max_size(plan->workspace, floats);
}

/* A place for everything that `part` needs, which runs on `times` rows for each row. */
static inline size_t plan_part(struct plan *plan, const struct plan *part, size_t times)
{
    plan_workspace(plan, part->workspace);
    bool fits = part->most == 0 || times <= PLAN_MOST / part->most;
    return plan_floats(plan, fits ? times * part->most : PLAN_MOST);
}

/* The same for a part whose scratch is free again as soon as it has run. */
static inline size_t plan_passing_part(struct plan *plan, const struct plan *part, size_t times)
{
    size_t place = plan_part(plan, part, times);
    plan_release(plan, place);
    return place;
}

#endif
