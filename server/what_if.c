/* A request that names gates and asks nothing of them is like any other. */
#include "server/what_if.h"

#include "core/intervention.h"
#include "server/job.h"
#include "server/model.h"

/* Returns whether the override asks for anything. */
static bool apply(const struct infer_override *override, const struct moed_model_info *info,
                  struct moed_intervention *intervention)
{
    const size_t gate = override->gate;
    bool asked = override->top_k > 0;
    intervention->gates[gate].top_k = override->top_k;
    for (size_t e = 0; e < info->gates[gate].experts; e++) {
        if (override->experts[e] & OVERRIDE_EXCLUDED)
            moed_intervention_exclude(intervention, info, gate, (int32_t)e);
        if (override->experts[e] & OVERRIDE_SILENCED)
            moed_intervention_silence(intervention, info, gate, (int32_t)e);
        asked |= override->experts[e] & (OVERRIDE_EXCLUDED | OVERRIDE_SILENCED);
    }
    return asked;
}

int what_if(struct job *job, struct error *err)
{
    const struct infer_overrides *overrides = &job->request.overrides;
    const struct moed_model_info *info = job->model->info;
    bool asked = false;
    if (overrides->count == 0)
        return 0;
    struct moed_intervention *intervention = moed_intervention_new(info);
    for (size_t i = 0; i < overrides->count; i++)
        asked |= apply(&overrides->items[i], info, intervention);
    if (asked && moed_intervention_finish(intervention, info, err) == 0) {
        job->intervention = intervention;
        return 0;
    }
    moed_intervention_free(intervention);
    if (!asked)
        return 0;
    error_prefix(err, "experts");
    return -1;
}
