/* The experts: one chain of layers each, run once per batch over the pairs dispatched to them.
 *
 * The pairs of all active experts form one pool of tasks for the team; an expert that got most of
 * the rows is cut into several, so that no thread waits for it. Scratch is linear in rows: a task's
 * share of the arena follows from where its pairs begin, and tasks need no memory of their own. */
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
    experts->chains = calloc_checked((size_t)count, sizeof *experts->chains, err);
    if (!experts->chains)
        return -1;
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

/* The inputs of a task's pairs side by side; no copy for an expert that gets every item, in order.
 */
static const float *gather(const struct experts_job *job, const struct expert_task *task,
                           size_t elements)
{
    const struct routing *routing = job->routing;
    const uint32_t first = routing->first[task->expert], last = routing->first[task->expert + 1];
    const float *source =
        job->experts->split ? job->hidden + task->expert * job->items * elements : job->x;
    if (last - first == job->items)
        return source + (task->first - first) * elements;
    float *to = job->gathered + task->first * elements;
    for (size_t i = 0; i < task->count; i++)
        memcpy(to + i * elements, source + routing->item[task->first + i] * elements,
               elements * sizeof *to);
    return to;
}

static void expert_task(void *context, size_t index, unsigned worker)
{
    const struct experts_job *job = context;
    const struct expert_task *task = &job->routing->tasks[index];
    const struct chain *chain = &job->experts->chains[task->expert];
    const size_t elements = job->experts->split ? job->experts->split_elements : chain->in_elements;
    struct run run = task_run(job, task->first, worker);
    chain_forward(chain, job->experts->split, chain->count, &run, task->count,
                  gather(job, task, elements), job->out + task->first * chain->out_elements);
}

/* Fewer rows than this read an expert's weights for too little work. */
enum { MIN_TASK_ROWS = 16 };

/* Cuts every active expert's pairs into tasks small enough that each thread gets a few. */
static size_t plan_tasks(struct routing *routing, unsigned threads)
{
    const uint32_t pairs = routing->first[routing->experts];
    uint32_t rows = threads > 1 ? pairs / (2 * threads) + 1 : pairs;
    rows = rows < MIN_TASK_ROWS ? MIN_TASK_ROWS : rows;
    size_t count = 0;
    for (uint32_t e = 0; e < routing->experts; e++)
        for (uint32_t at = routing->first[e], end = routing->first[e + 1]; at < end; at += rows)
            routing->tasks[count++] =
                (struct expert_task){e, at, end - at < rows ? end - at : rows};
    return count;
}

void experts_forward(const struct experts *experts, const struct run *run, struct routing *routing,
                     const float *x, const float *hidden, float *gathered, float *out)
{
    struct experts_job job = {.experts = experts,
                              .run = run,
                              .routing = routing,
                              .items = routing->items,
                              .x = x,
                              .hidden = hidden,
                              .gathered = gathered,
                              .out = out};
    team_run(run->team, plan_tasks(routing, team_size(run->team)), expert_task, &job);
}
