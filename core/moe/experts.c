/* The experts: one chain of layers each, run once per batch over the pairs dispatched to them.
 *
 * The pairs of all active experts form one pool of tasks for the team. An expert that got most of
 * the rows is cut into several tasks, so that no thread waits for it. Scratch is linear in rows: a
 * task's share of the arena follows from its first pair. */
#include "core/moe/experts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"

static int build_expert(struct experts *experts, size_t index, const struct scope *outer,
                        struct config_node *node, const struct moed_shape *in, struct error *err)
{
    struct scope scope;
    struct chain *chain = &experts->chains[index];
    char a[SHAPE_TEXT_BYTES], b[SHAPE_TEXT_BYTES];
    if (scope_enter(&scope, outer, node, err, "experts.%zu", index) != 0)
        return -1;
    scope.no_moe = true;
    if (index + experts->identities >= experts->total)
        chain_init(chain, in);
    else if (chain_build(chain, &scope, node, "layers", in, err) != 0)
        return -1;
    if (!shape_equal(&chain->out, &experts->chains[0].out))
        return config_error(node, NULL, err, "expert %zu gives %s, expert 0 gives %s", index,
                            shape_text(&chain->out, a), shape_text(&experts->chains[0].out, b));
    plan_passing_part(&experts->each, &chain->plan, 1);
    return 0;
}

/* "inputs": which entry of the item each expert sees, or NULL. */
static int read_inputs(int32_t **entries, struct config_node *node, size_t count,
                       const struct moed_shape *item, bool routes_positions, struct error *err)
{
    size_t given;
    *entries = NULL;
    if (!config_has(node, "inputs"))
        return 0;
    if (item->rank == 0 || routes_positions)
        return config_error(node, "inputs", err, "%s has no entries to choose from",
                            routes_positions ? "a position" : "the layer's input");
    if (config_integers(node, "inputs", within(0, (int64_t)item->dims[0] - 1), entries, &given,
                        err) != 0)
        return -1;
    if (given == count)
        return 0;
    free(*entries);
    return config_error(node, "inputs", err, "%zu %s for %zu expert%s", given,
                        given == 1 ? "entry" : "entries", count, text_s(count));
}

int experts_build(struct experts *experts, const struct scope *scope, struct config_node *node,
                  const struct moed_shape *item, bool routes_positions, struct error *err)
{
    const int format = scope->loading->format;
    struct config_node own;
    int64_t count, identities;
    int32_t *entries;
    if (config_object(node, "experts", &own, err) != 0 ||
        config_since(&own, 3, format, KEYS("identity"), err) != 0 ||
        config_since(&own, 2, format, KEYS("inputs"), err) != 0 ||
        config_integer(&own, "count", CONFIG_REQUIRED, within(1, MAX_EXPERTS), &count, err) != 0 ||
        config_integer(&own, "identity", 0, within(0, count - 1), &identities, err) != 0 ||
        scope_take(scope, &own, "experts", (size_t)count,
                   sizeof *experts->chains + sizeof *experts->inputs, err) != 0 ||
        read_inputs(&entries, &own, (size_t)count, item, routes_positions, err) != 0)
        return -1;
    experts->item_elements = moed_shape_elements(item);
    experts->total = (size_t)count;
    experts->identities = (size_t)identities;
    experts->chains = xcalloc((size_t)count, sizeof *experts->chains);
    experts->inputs = xcalloc((size_t)count, sizeof *experts->inputs);
    int result = 0;
    for (; result == 0 && experts->count < (size_t)count; experts->count++) {
        struct moed_shape in;
        slice_of(&experts->inputs[experts->count], &in, item,
                 entries ? (size_t)entries[experts->count] : WHOLE);
        result = build_expert(experts, experts->count, scope, &own, &in, err);
    }
    free(entries);
    return result != 0 ? -1 : config_done(&own, err);
}

void experts_split(struct experts *experts, size_t last)
{
    experts->split = last + 1;
    experts->split_elements = experts->chains[0].layers[last].out_elements;
}

/* Numbers that one pair takes when it is gathered. */
static size_t input_elements(const struct experts *experts)
{
    return max_size(experts->split_elements, experts->item_elements);
}

void experts_plan_front(struct experts *experts, struct plan *plan)
{
    experts->front = plan_passing_part(plan, &experts->each, experts->count);
}

void experts_plan(struct experts *experts, struct plan *plan, size_t slots)
{
    experts->gathered = plan_floats(plan, slots * input_elements(experts));
    experts->back = plan_part(plan, &experts->each, slots);
}

void experts_close(struct experts *experts)
{
    for (size_t i = 0; i < experts->count; i++)
        chain_close(&experts->chains[i]);
    free(experts->chains);
    free(experts->inputs);
}

struct experts_job {
    const struct experts *experts;
    const struct run *run;
    const struct dispatch *dispatch; /* NULL before the split: every item */
    size_t items;
    size_t gathered_pitch; /* of a pair's place in gathered */
    const float *x, *hidden;
    float *gathered, *out;
};

static struct run task_run(const struct experts_job *job, size_t first_row, unsigned worker)
{
    struct run run = *job->run;
    run.worker = run.team ? worker : run.worker;
    run.team = NULL;
    run.lengths = NULL;
    run.arena = run_floats(&run, job->experts->each.most, first_row);
    return run;
}

static void front_task(void *context, size_t e, unsigned worker)
{
    const struct experts_job *job = context;
    const struct chain_part front = {&job->experts->chains[e], 0, job->experts->split};
    struct run run = task_run(job, e * job->items, worker);
    chain_forward_part(&front, &run, job->items, job->x,
                       job->out + e * job->items * job->experts->split_elements);
}

void experts_front(const struct experts *experts, const struct run *run, size_t items,
                   const float *x, float *hidden)
{
    struct run inner = run_part(run, experts->front, items);
    struct experts_job job = {
        .experts = experts, .run = &inner, .items = items, .x = x, .out = hidden};
    team_run(team_for(run->team, items * experts->count * experts->chains[0].cost.macs),
             experts->count, front_task, &job);
}

/* Where an expert's inputs are: those of item i at first + i * pitch, `elements` numbers. */
struct inputs {
    const float *first;
    size_t pitch, elements;
};

static struct inputs find_inputs(const struct experts_job *job, size_t expert)
{
    const struct experts *experts = job->experts;
    if (experts->split) {
        const size_t elements = experts->split_elements;
        return (struct inputs){job->hidden + expert * job->items * elements, elements, elements};
    }
    const struct slice *input = &experts->inputs[expert];
    return (struct inputs){job->x + input->first, job->experts->item_elements, input->elements};
}

/* The inputs of a task's pairs side by side. An expert that gets every item gets them in order, and
 * reads them where they are. */
static const float *gather(const struct experts_job *job, const struct expert_task *task)
{
    const struct dispatch *dispatch = job->dispatch;
    const struct inputs from = find_inputs(job, task->expert);
    const uint32_t first = dispatch->first[task->expert], end = dispatch->first[task->expert + 1];
    const float *weight = dispatch->input_weight;
    if (!weight && end - first == job->items && from.pitch == from.elements)
        return from.first + (task->first - first) * from.elements;
    float *to = job->gathered + task->first * job->gathered_pitch;
    for (size_t i = 0; i < task->count; i++) {
        const float *input = from.first + dispatch->item[task->first + i] * from.pitch;
        float *pair = to + i * from.elements;
        memcpy(pair, input, from.elements * sizeof *pair);
        for (size_t j = 0; weight && j < from.elements; j++)
            pair[j] *= weight[task->first + i];
    }
    return to;
}

/* At least 1: it was timed. */
static uint32_t took_since(uint64_t began)
{
    const uint64_t ns = timing_now() - began;
    return ns == 0 ? 1 : ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static void expert_task(void *context, size_t index, unsigned worker)
{
    const struct experts_job *job = context;
    struct expert_task *task = &job->dispatch->tasks[index];
    const struct chain *chain = &job->experts->chains[task->expert];
    struct run run = task_run(job, task->first, worker);
    const struct chain_part back = {chain, job->experts->split, chain->count};
    const uint64_t began = task->ns > 0 ? timing_now() : 0;
    chain_forward_part(&back, &run, task->count, gather(job, task),
                       job->out + task->first * chain->out_elements);
    if (task->ns > 0)
        task->ns = took_since(began);
}

/* A task with fewer rows reads an expert's weights for too little work. */
enum { MIN_TASK_ROWS = 16 };

/* Cuts every active expert's pairs into tasks small enough that each thread gets a few. */
static size_t plan_tasks(const struct experts *experts, struct dispatch *dispatch, unsigned threads)
{
    const uint32_t pairs = dispatch->first[dispatch->experts];
    uint32_t rows = threads > 1 ? pairs / (2 * threads) + 1 : pairs;
    rows = rows < MIN_TASK_ROWS ? MIN_TASK_ROWS : rows;
    size_t count = 0;
    for (uint32_t e = 0; e < dispatch->experts; e++)
        for (uint32_t at = dispatch->first[e], end = dispatch->first[e + 1]; at < end; at += rows) {
            struct expert_task *task = &dispatch->tasks[count++];
            *task = (struct expert_task){e, at, end - at < rows ? end - at : rows, 0};
            timing_plan(&dispatch->timing, task, task->count * experts->chains[e].cost.macs);
        }
    return count;
}

void experts_forward(const struct experts *experts, const struct run *run,
                     struct dispatch *dispatch, const float *x, const float *hidden, float *out)
{
    const size_t items = dispatch->items;
    struct run inner = run_part(run, experts->back, items);
    struct experts_job job = {.experts = experts,
                              .run = &inner,
                              .dispatch = dispatch,
                              .items = items,
                              .gathered_pitch = input_elements(experts),
                              .x = x,
                              .hidden = hidden,
                              .gathered = run_floats(run, experts->gathered, items),
                              .out = out};
    struct moed_team *team =
        team_for(run->team, dispatch->first[dispatch->experts] * experts->chains[0].cost.macs);
    const size_t tasks = plan_tasks(experts, dispatch, team_size(team));
    team_run(team, tasks, expert_task, &job);
    timing_settle(&dispatch->timing, dispatch->tasks, tasks);
}
