/* The experts: one chain of layers each, run once per batch over the pairs dispatched to them.
 *
 * Experts are tasks of the team. Scratch is linear in rows, so a task's share of the arena follows
 * from where its pairs begin, and tasks need no memory of their own. */
#include "moe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int build_expert(struct experts *experts, size_t index, struct layer *layer,
                        const struct build *build, struct config_node *node, struct error *err)
{
    struct build inner = *build;
    struct chain *chain = &experts->chains[index];
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    if (snprintf(inner.prefix, sizeof inner.prefix, "%s%s.experts.%zu.", build->prefix, layer->name,
                 index) >= (int)sizeof inner.prefix)
        return config_error(node, NULL, err, "tensor names would be too long");
    inner.inside_moe = true;
    if (chain_build(chain, &inner, node, "layers", &layer->in, err) != 0)
        return -1;
    if (!shape_equal(&chain->out, &experts->chains[0].out))
        return config_error(node, NULL, err, "expert %zu gives %s, expert 0 gives %s", index,
                            shape_text(&chain->out, a), shape_text(&experts->chains[0].out, b));
    if (chain->scratch_per_row > experts->scratch_per_row)
        experts->scratch_per_row = chain->scratch_per_row;
    if (chain->workspace > layer->workspace)
        layer->workspace = chain->workspace;
    layer->parameters += chain->parameters;
    layer->weight_bytes += chain->weight_bytes;
    return 0;
}

int experts_build(struct experts *experts, struct layer *layer, struct build *build,
                  struct config_node *node, struct error *err)
{
    struct config_node own;
    int64_t count;
    if (config_object(node, "experts", &own, err) != 0 ||
        config_integer(&own, "count", CONFIG_REQUIRED, 1, MAX_EXPERTS, &count, err) != 0)
        return -1;
    experts->chains = xcalloc((size_t)count, sizeof *experts->chains);
    for (; experts->count < (size_t)count; experts->count++)
        if (build_expert(experts, experts->count, layer, build, &own, err) != 0) {
            experts->count++;
            return -1;
        }
    return config_done(&own, err);
}

void experts_close(struct experts *experts)
{
    for (size_t i = 0; i < experts->count; i++)
        chain_close(&experts->chains[i]);
    free(experts->chains);
}

struct experts_job {
    const struct experts *experts;
    const struct run *run;
    const struct routing *routing; /* NULL for heads: every item */
    size_t items;
    const float *x, *hidden;
    float *gathered, *out;
};

static struct run task_run(const struct experts_job *job, size_t first_row, unsigned worker)
{
    struct run run = *job->run;
    run.worker = run.team ? worker : run.worker;
    run.team = NULL;
    run.arena += first_row * job->experts->scratch_per_row;
    return run;
}

static void head_task(void *context, size_t e, unsigned worker)
{
    const struct experts_job *job = context;
    struct run run = task_run(job, e * job->items, worker);
    chain_forward(&job->experts->chains[e], 0, job->experts->split, &run, job->items, job->x,
                  job->out + e * job->items * job->experts->split_elements);
}

void experts_heads(const struct experts *experts, const struct run *run, size_t items,
                   const float *x, float *hidden)
{
    struct experts_job job = {
        .experts = experts, .run = run, .items = items, .x = x, .out = hidden};
    team_run(run->team, experts->count, head_task, &job);
}

/* The pairs' inputs side by side; no copy for an expert that gets every item, in order. */
static const float *gather(const struct experts_job *job, size_t e, size_t elements)
{
    const struct routing *routing = job->routing;
    const size_t first = routing->first[e], last = routing->first[e + 1];
    const float *source =
        job->experts->split ? job->hidden + e * job->items * elements : job->x;
    if (last - first == job->items)
        return source;
    for (size_t at = first; at < last; at++)
        memcpy(job->gathered + at * elements, source + routing->item[at] * elements,
               elements * sizeof *source);
    return job->gathered + first * elements;
}

static void expert_task(void *context, size_t e, unsigned worker)
{
    const struct experts_job *job = context;
    const struct chain *chain = &job->experts->chains[e];
    const size_t first = job->routing->first[e], count = job->routing->first[e + 1] - first;
    if (count == 0)
        return;
    const size_t elements =
        job->experts->split ? job->experts->split_elements : chain->in_elements;
    struct run run = task_run(job, first, worker);
    chain_forward(chain, job->experts->split, chain->count, &run, count, gather(job, e, elements),
                  job->out + first * chain->out_elements);
}

void experts_forward(const struct experts *experts, const struct run *run,
                     const struct routing *routing, const float *x, const float *hidden,
                     float *gathered, float *out)
{
    struct experts_job job = {.experts = experts,
                              .run = run,
                              .routing = routing,
                              .items = routing->items,
                              .x = x,
                              .hidden = hidden,
                              .gathered = gathered,
                              .out = out};
    team_run(run->team, experts->count, expert_task, &job);
}
