/* Batching; see scheduler.h for the policy. */
#include "server/scheduler.h"

#include <assert.h>
#include <string.h>

/* Multiply-accumulates below which a batch runs on the loop thread: some 200 us of one core, about
 * what waking another thread and hearing back costs on a busy machine, and not enough to be noticed
 * by other connections. */
static const uint64_t LOOP_MACS = 5 * 1000 * 1000;

/* Below this a job is computed where it is read: suspending and resuming its connection would cost
 * more than the batching could save. */
static const uint64_t IMMEDIATE_MACS = 100 * 1000;

static uint64_t cost(const struct served *served, size_t rows)
{
    return served->info->macs_per_row * rows;
}

static void copy_rows(void *to, size_t to_row, const void *from, size_t from_row, size_t rows,
                      size_t row_bytes)
{
    memcpy((char *)to + to_row * row_bytes, (const char *)from + from_row * row_bytes,
           rows * row_bytes);
}

/* Gives a segment's results to its job. */
static void scatter(const struct served *served, const struct batch *batch,
                    const struct segment *segment, size_t batch_row)
{
    const struct moed_model_info *info = served->info;
    struct job *job = segment->job;
    for (size_t i = 0; i < info->output_count; i++)
        copy_rows(job->outputs[i], segment->job_row, batch->outputs[i], batch_row, segment->rows,
                  info->outputs[i].elements * sizeof(float));
    for (size_t i = 0; job->wants_routing && i < info->gate_count; i++) {
        const struct moed_routing *routing = moed_routing(served->scratch, i);
        const size_t numbers = info->gates[i].items_per_row * info->gates[i].top_k;
        copy_rows(job->routing_experts[i], segment->job_row, routing->expert, batch_row,
                  segment->rows, numbers * sizeof(int32_t));
        copy_rows(job->routing_weights[i], segment->job_row, routing->weight, batch_row,
                  segment->rows, numbers * sizeof(float));
    }
}

static void count_batch(struct served *served, const struct batch *batch, uint64_t compute_ns)
{
    const struct moed_routing *routing[served->info->gate_count + 1]; /* no array of 0 */
    for (size_t i = 0; i < served->info->gate_count; i++)
        routing[i] = moed_routing(served->scratch, i);
    stats_add_batch(&served->stats, batch->rows, (double)compute_ns / 1e9, routing);
}

/* A computed batch: statistics first, then the results, then the jobs that are now complete:
 * answering one may submit the next, which may run in this very scratch. */
static void complete(struct scheduler *scheduler, struct served *served, struct batch *batch,
                     uint64_t compute_ns)
{
    size_t row = 0;
    count_batch(served, batch, compute_ns);
    for (size_t i = 0; i < batch->segment_count; i++) {
        scatter(served, batch, &batch->segments[i], row);
        row += batch->segments[i].rows;
    }
    for (size_t i = 0; i < batch->segment_count; i++) {
        struct job *job = batch->segments[i].job;
        job->rows_running -= batch->segments[i].rows;
        if (job->rows_waiting + job->rows_running == 0)
            scheduler->on_finished(job);
    }
    queue_recycle(&served->queue, batch);
}

static void count_waits(struct served *served, const struct batch *batch)
{
    const uint64_t now = uv_hrtime();
    for (size_t i = 0; i < batch->segment_count; i++)
        stats_add_wait(&served->stats, (double)(now - batch->segments[i].job->submitted_ns) / 1e9);
}

static void run_here(struct scheduler *scheduler, struct served *served, struct batch *batch)
{
    const uint64_t began = uv_hrtime();
    served_forward(served, NULL, batch);
    complete(scheduler, served, batch, uv_hrtime() - began);
}

/* Whether the first batch is kept open for more rows; if so, *due_ns says until when at most. */
static bool is_held(const struct scheduler *scheduler, const struct queue *queue, uint64_t now,
                    uint64_t *due_ns)
{
    const struct batch *batch = queue->head;
    const uint64_t due = batch->opened_ns + scheduler->max_queue_delay_ns;
    if (batch->next || batch->rows == queue->batch_rows || due <= now)
        return false;
    if (due < *due_ns)
        *due_ns = due;
    return true;
}

/* Runs or hands over one batch of model `index`. Returns whether more could be done at once. */
static bool serve(struct scheduler *scheduler, size_t index, uint64_t now, uint64_t *due_ns)
{
    struct served *served = scheduler->registry->items[index];
    struct queue *queue = &served->queue;
    if (!queue->head || served->busy || is_held(scheduler, queue, now, due_ns))
        return false;
    const bool here = cost(served, queue->head->rows) < LOOP_MACS;
    if (!here && scheduler->engine.busy)
        return false;
    struct batch *batch = queue_take(queue);
    count_waits(served, batch);
    if (here) {
        run_here(scheduler, served, batch);
        return queue->head != NULL;
    }
    served->busy = true;
    scheduler->turn = (index + 1) % scheduler->registry->count;
    engine_start(&scheduler->engine, served, batch);
    return false;
}

static void on_hold(uv_timer_t *hold);
static void on_again(uv_idle_t *again);

/* One batch of every model that has one, beginning with the model after the last that got the
 * compute thread, so that a busy model cannot keep it from the others. */
static void run_turn(struct scheduler *scheduler)
{
    const size_t count = scheduler->registry->count, first = scheduler->turn;
    const uint64_t now = uv_hrtime();
    uint64_t due_ns = UINT64_MAX;
    bool more = false;
    for (size_t i = 0; i < count; i++)
        more |= serve(scheduler, (first + i) % count, now, &due_ns);
    if (more)
        uv_idle_start(&scheduler->again, on_again);
    else
        uv_idle_stop(&scheduler->again);
    if (due_ns == UINT64_MAX)
        uv_timer_stop(&scheduler->hold);
    else
        uv_timer_start(&scheduler->hold, on_hold, (due_ns - now) / 1000000 + 1, 0);
}

static void on_check(uv_check_t *check)
{
    run_turn(check->data);
}

static void on_prepare(uv_prepare_t *prepare)
{
    run_turn(prepare->data);
}

/* Only its being active matters: the loop then polls without sleeping. */
static void on_again(uv_idle_t *again)
{
    (void)again;
}

static void on_hold(uv_timer_t *hold)
{
    run_turn(hold->data);
}

static void on_done(struct served *served, struct batch *batch, uint64_t compute_ns, void *context)
{
    struct scheduler *scheduler = context;
    served->busy = false;
    complete(scheduler, served, batch, compute_ns);
    run_turn(scheduler);
}

int scheduler_init(struct scheduler *scheduler, uv_loop_t *loop, struct registry *registry,
                   unsigned threads, uint64_t max_queue_delay_us,
                   void (*on_finished)(struct job *job), struct error *err)
{
    scheduler->registry = registry;
    scheduler->max_queue_delay_ns = max_queue_delay_us * 1000;
    scheduler->turn = 0;
    scheduler->on_finished = on_finished;
    if (engine_init(&scheduler->engine, loop, threads, on_done, scheduler, err) != 0)
        return -1;
    uv_check_init(loop, &scheduler->check);
    uv_prepare_init(loop, &scheduler->prepare);
    uv_idle_init(loop, &scheduler->again);
    uv_timer_init(loop, &scheduler->hold);
    scheduler->check.data = scheduler->prepare.data = scheduler->again.data = scheduler->hold.data =
        scheduler;
    uv_check_start(&scheduler->check, on_check);
    uv_prepare_start(&scheduler->prepare, on_prepare);
    /* The loop lives as long as the server's other handles; these only ride along. */
    uv_unref((uv_handle_t *)&scheduler->check);
    uv_unref((uv_handle_t *)&scheduler->prepare);
    return 0;
}

void scheduler_close(struct scheduler *scheduler)
{
    engine_close(&scheduler->engine);
    uv_close((uv_handle_t *)&scheduler->check, NULL);
    uv_close((uv_handle_t *)&scheduler->prepare, NULL);
    uv_close((uv_handle_t *)&scheduler->again, NULL);
    uv_close((uv_handle_t *)&scheduler->hold, NULL);
}

int scheduler_submit(struct scheduler *scheduler, struct job *job, struct error *err)
{
    struct served *served = job->served;
    const bool alone = !served->queue.head && !served->busy;
    job->submitted_ns = uv_hrtime();
    if (queue_push(&served->queue, job, job->submitted_ns, err) != 0)
        return -1;
    if (alone && scheduler->max_queue_delay_ns == 0 &&
        cost(served, job->request.rows) < IMMEDIATE_MACS) {
        struct batch *batch;
        while ((batch = queue_take(&served->queue))) {
            count_waits(served, batch);
            run_here(scheduler, served, batch);
        }
    } else {
        uv_idle_start(&scheduler->again, on_again);
    }
    return 0;
}

void scheduler_cancel(struct scheduler *scheduler, struct job *job)
{
    queue_cancel(&job->served->queue, job);
    if (job->rows_running == 0)
        scheduler->on_finished(job);
}
