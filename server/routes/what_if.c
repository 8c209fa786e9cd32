/* A request that names gates and asks nothing of them is like any other. */
#include "server/routes/what_if.h"

#include "core/intervention.h"
#include "server/compute/job.h"
#include "server/models/model.h"

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

struct moed_intervention *what_if_asked(const struct infer_overrides *overrides, const char *member,
                                        const struct model *model,
                                        const struct quarantined *quarantined, struct error *err)
{
    const struct moed_model_info *info = model->info;
    struct moed_intervention *intervention = moed_intervention_new(info);
    bool asked = false;
    for (size_t i = 0; i < overrides->count; i++)
        asked |= apply(&overrides->items[i], info, intervention);
    if (asked && quarantined)
        moed_intervention_add(intervention, info, quarantined->asked);
    if (asked && moed_intervention_finish(intervention, info, err) == 0)
        return intervention;
    moed_intervention_free(intervention);
    error_prefix(err, "%s%s", member, quarantined ? ", beside those in quarantine" : "");
    return NULL;
}

int what_if(struct job *job, struct error *err)
{
    job->quarantined = quarantined_now(job->model);
    if (job->quarantined)
        job->intervention = job->quarantined->rows;
    if (job->request.overrides.count == 0)
        return 0;
    job->asked =
        what_if_asked(&job->request.overrides, "experts", job->model, job->quarantined, err);
    if (job->asked)
        job->intervention = job->asked;
    return err->code == ERROR_NONE ? 0 : -1;
}
