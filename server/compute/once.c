/* From waiting rows to finished jobs. */
#include "server/compute/once.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "server/compute/finite.h"
#include "server/statistics/attribution.h"

static const struct once *const_once(const struct lane *lane)
{
    return (const struct once *)(const void *)lane;
}

/* Two lanes of a loop may share a shard, that of a model and that of its successor. */
static void show_rows(struct once *once)
{
    atomic_fetch_add(&once->stats->queue_rows, once->queue.rows - once->rows_shown);
    once->rows_shown = once->queue.rows;
}

/* ---- what is ready ---- */

/* Whether the next batch is kept open for more rows; if so, *due_ns says until when at most. */
static bool is_held(const struct once *once, uint64_t now, uint64_t *due_ns)
{
    const uint64_t delay_ns = once->options.max_queue_delay_ns;
    if (delay_ns == 0 || once->queue.rows >= once->queue.batch_rows)
        return false;
    const uint64_t due = queue_oldest_ns(&once->queue) + delay_ns;
    if (due <= now)
        return false;
    if (due < *due_ns)
        *due_ns = due;
    return true;
}

static bool ready(const struct lane *lane, uint64_t now, uint64_t *due_ns)
{
    const struct once *once = const_once(lane);
    return once->queue.rows > 0 && !is_held(once, now, due_ns);
}

static uint64_t cost_of(const struct once *once, size_t rows)
{
    return once->lane.model->cost_per_row * rows;
}

static uint64_t cost(const struct lane *lane)
{
    const struct queue *queue = &const_once(lane)->queue;
    return cost_of(const_once(lane),
                   queue->rows < queue->batch_rows ? queue->rows : queue->batch_rows);
}

static bool empty(const struct lane *lane)
{
    return const_once(lane)->queue.rows == 0;
}

/* ---- one batch ---- */

static void begin(struct lane *lane, uint64_t slice_ns)
{
    struct once *once = once_of(lane);
    uint64_t now = uv_hrtime();
    const size_t most = slice_ns ? pace_rows(&once->pace, slice_ns) : once->queue.batch_rows;
    once->cut = most < once->queue.batch_rows;
    once->batch = queue_take(&once->queue, most);
    show_rows(once);
    for (size_t i = 0; i < once->batch->segment_count; i++) {
        struct job *job = once->batch->segments[i].job;
        job->queue_ns = job->queue_ns ? job->queue_ns : now - job->submitted_ns;
        stats_add_wait(once->stats, (double)(now - job->submitted_ns) / 1e9);
    }
}

static void run(struct lane *lane, struct moed_team *team)
{
    const struct once *once = once_of(lane);
    struct batch *batch = once->batch;
    batch_gather(batch, once->lane.model->info);
    const struct moed_batch rows = {.spans = batch->spans,
                                    .span_count = batch->segment_count,
                                    .inputs = batch->inputs,
                                    .outputs = batch->outputs};
    moed_forward(once->lane.model->engine, once->scratch, team, &rows);
}

static void copy_rows(void *to, size_t to_row, const void *from, size_t from_row, size_t rows,
                      size_t row_bytes)
{
    memcpy((char *)to + to_row * row_bytes, (const char *)from + from_row * row_bytes,
           rows * row_bytes);
}

/* Gives a segment's results to its job. */
static void scatter(const struct once *once, const struct batch *batch,
                    const struct segment *segment, size_t batch_row)
{
    const struct moed_model_info *info = once->lane.model->info;
    struct job *job = segment->job;
    for (size_t i = 0; i < info->output_count; i++)
        copy_rows(job->outputs[i], segment->job_row, batch->outputs[i], batch_row, segment->rows,
                  info->outputs[i].elements * sizeof(float));
    for (size_t i = 0; job->wants_routing && i < info->gate_count; i++) {
        const struct moed_routing *routing = moed_routing(once->scratch, i);
        size_t numbers = info->gates[i].items_per_row * info->gates[i].top_k;
        copy_rows(job->routing_experts[i], segment->job_row, routing->expert, batch_row,
                  segment->rows, numbers * sizeof(int32_t));
        copy_rows(job->routing_weights[i], segment->job_row, routing->weight, batch_row,
                  segment->rows, numbers * sizeof(float));
        numbers = info->gates[i].items_per_row * info->gates[i].experts;
        if (job->routing_probabilities[i])
            copy_rows(job->routing_probabilities[i], segment->job_row, routing->probability,
                      batch_row, segment->rows, numbers * sizeof(float));
    }
}

/* Keeps what the judgement of its answers needs. */
static void note_first(const struct once *once, const struct segment *segment, size_t batch_row)
{
    const struct moed_model_info *info = once->lane.model->info;
    for (size_t i = 0; segment->job->first && i < info->gate_count; i++) {
        const struct moed_routing *routing = moed_routing(once->scratch, i);
        const size_t items = info->gates[i].items_per_row;
        int32_t *first = segment->job->first[i] + segment->job_row * items;
        for (size_t item = 0; item < segment->rows * items; item++)
            first[item] = routing->choice[(batch_row * items + item) * routing->top_k];
    }
}

/* Whether the rows of two jobs are counted at the same place. */
static bool alike(const struct job *job, const struct job *other)
{
    return job->counted == other->counted && job->tag == other->tag && !job->asked == !other->asked;
}

/* Rows with an output that JSON has only null for. */
static size_t nonfinite_rows(const struct moed_model_info *info, const struct batch *batch)
{
    size_t found = 0;
    for (size_t row = 0; row < batch->rows; row++) {
        bool finite = true;
        for (size_t i = 0; i < info->output_count; i++) {
            const size_t elements = info->outputs[i].elements;
            finite &= all_finite(batch->outputs[i] + row * elements, elements);
        }
        found += !finite;
    }
    return found;
}

/* Neighbours that are alike are counted together, which is all of them most of the time. */
static void count_batch(const struct once *once, const struct batch *batch, uint64_t compute_ns)
{
    size_t gates = once->lane.model->info->gate_count;
    const struct moed_routing *routing[gates + 1]; /* no array of 0 */
    for (size_t i = 0; i < gates; i++)
        routing[i] = moed_routing(once->scratch, i);
    const struct model *model = once->lane.model;
    const struct tally_batch decided = {
        .rows = batch->rows,
        .routing = routing,
        .at = stats_time(once->lane.ended_ns),
        .scores = model->class_output < 0 ? NULL : batch->outputs[model->class_output],
        .classes = model_classes(model)};
    stats_add_batch(once->stats, batch->rows, (double)compute_ns / 1e9);
    stats_add_nonfinite(once->stats, nonfinite_rows(model->info, batch));
    for (size_t i = 0, first = 0, end; i < batch->segment_count; first = end) {
        const struct job *job = batch->segments[i].job;
        for (end = first; i < batch->segment_count && alike(job, batch->segments[i].job); i++)
            end += batch->segments[i].rows;
        if (job->counted)
            (job->asked ? stats_count_intervened : stats_count)(once->stats, job->tag, &decided,
                                                                first, end);
    }
}

static void scatter_all(const struct once *once, const struct batch *batch)
{
    size_t row = 0;
    for (size_t i = 0; i < batch->segment_count; i++) {
        scatter(once, batch, &batch->segments[i], row);
        note_first(once, &batch->segments[i], row);
        row += batch->segments[i].rows;
    }
}

/* What was computed from weights that were not there is neither counted nor given to anybody. */
static void fail_all(const struct once *once, const struct batch *batch)
{
    for (size_t i = 0; i < batch->segment_count; i++)
        error_set(&batch->segments[i].job->error, ERROR_UNAVAILABLE,
                  "the weights of model '%s' were truncated while they were served",
                  once->lane.model->name);
    if (!atomic_exchange(&once->lane.model->damage_told, true) && once->options.on_damaged)
        once->options.on_damaged(once->options.context);
}

/* Statistics first, then the results, then the jobs that are now complete: answering one may submit
 * the next, which may run in this very scratch. */
static void finish(struct lane *lane, uint64_t compute_ns)
{
    struct once *once = once_of(lane);
    struct batch *batch = once->batch;
    pace_computed(&once->pace, batch->rows, compute_ns, once->cut);
    pace_left(&once->pace, batch->rows, uv_hrtime(), once->queue.rows > 0);
    if (moed_model_is_damaged(once->lane.model->engine)) {
        fail_all(once, batch);
    } else {
        count_batch(once, batch, compute_ns);
        scatter_all(once, batch);
    }
    for (size_t i = 0; i < batch->segment_count; i++) {
        struct job *job = batch->segments[i].job;
        job->rows_running -= batch->segments[i].rows;
        job->compute_ns += compute_ns;
        if (job->rows_waiting + job->rows_running == 0)
            once->options.on_finished(job);
    }
    queue_recycle(&once->queue, batch);
}

/* ---- life ---- */

static void once_free(struct lane *lane)
{
    struct once *once = once_of(lane);
    queue_close(&once->queue);
    moed_scratch_free(once->scratch);
    model_release(once->lane.model);
    free(once);
}

static const struct lane_kind ONCE = {ready, cost, begin, run, finish, empty, once_free};

/* The loop's, but for what the model has limits of its own for. Its largest request must fit in one
 * loop's queue. */
static struct once_options options_of(const struct model *model, const struct once_options *options)
{
    struct once_options own = *options;
    const struct serving_limits *limits = &model->limits;
    own.max_batch_rows = serving_limit(limits->max_batch_rows, own.max_batch_rows);
    if (limits->max_queue_rows != SERVING_UNSET) {
        uint64_t share = (limits->max_queue_rows + own.loops - 1) / own.loops;
        uint64_t least = serving_limit(limits->max_request_rows, limits->max_queue_rows);
        own.max_queue_rows = share > least ? share : least;
    }
    if (limits->max_queue_delay_us != SERVING_UNSET)
        own.max_queue_delay_ns = limits->max_queue_delay_us * 1000;
    return own;
}

/* Of one thread, while nothing has been measured. */
enum { MACS_PER_NS = 25 };

struct once *once_new(struct model *model, struct scheduler *scheduler,
                      const struct once_options *options, struct error *err)
{
    struct error cause = ERROR_INIT;
    const struct once_options own = options_of(model, options);
    const struct moed_scratch_options wanted = {
        .max_rows = own.max_batch_rows, .threads = own.threads, .distributions = true};
    struct moed_scratch *scratch = moed_scratch_new(model->engine, &wanted, &cause);
    if (!scratch) {
        error_set(err, ERROR_UNAVAILABLE, "%s", cause.text);
        return NULL;
    }
    struct once *once = xcalloc(1, sizeof *once);
    once->lane.kind = &ONCE;
    once->scheduler = scheduler;
    once->options = own;
    once->lane.model = model_hold(model);
    once->stats = &model->stats->loop[options->loop];
    once->scratch = scratch;
    queue_init(&once->queue, model->info, own.max_batch_rows, own.max_queue_rows);
    pace_init(&once->pace, own.max_batch_rows, model->cost_per_row / MACS_PER_NS);
    return once;
}

/* A batch that is being computed is not reckoned with, nor are jobs that others' turns may bring
 * before this one: it is refused only if it would be late for sure. */
static int check_deadline(const struct once *once, const struct job *job, struct error *err)
{
    const int tag = job->tag_name ? tags_find(&job->model->stats->tags, job->tag_name) : TAG_NONE;
    const size_t rows = tag < 0 ? 0
                                : queue_rows_before(&once->queue, job_priority_of(job), (size_t)tag,
                                                    job->request.rows);
    const double wait_ns = pace_wait_ns(&once->pace, rows);
    if ((double)job->submitted_ns + wait_ns <= (double)job->deadline_ns)
        return 0;
    if (job->submitted_ns >= job->deadline_ns)
        return error_set(
            err, ERROR_DEADLINE,
            "the time that this request may take had passed before it could be queued");
    return error_set(
        err, ERROR_OVERLOADED,
        "the queue is full: what is before this request, %zu row%s, takes %.0f ms, more than "
        "the %.0f ms that it may wait",
        rows, text_s(rows), wait_ns / 1e6,
        ((double)job->deadline_ns - (double)job->submitted_ns) / 1e6);
}

int once_submit(struct once *once, struct job *job, struct error *err)
{
    bool alone = once->queue.rows == 0 && !once->lane.busy;
    bool small = cost_of(once, job->request.rows) < SCHEDULER_SMALL_COST;
    job->submitted_ns = uv_hrtime();
    if (queue_check(&once->queue, job->request.rows, err) != 0 ||
        check_deadline(once, job, err) != 0 || queue_read(&once->queue, job, err) != 0)
        return -1;
    attribute_accepted(job);
    queue_push(&once->queue, job);
    show_rows(once);
    if (alone && small && once->options.max_queue_delay_ns == 0)
        scheduler_run_now(&once->lane);
    else
        scheduler_wake(once->scheduler, &once->lane);
    return 0;
}

unsigned once_retry_after(const struct once *once)
{
    return pace_retry_after(&once->pace, once->queue.rows);
}

void once_cancel(struct once *once, struct job *job)
{
    queue_cancel(&once->queue, job);
    show_rows(once);
    if (job->rows_running == 0)
        once->options.on_finished(job);
}
