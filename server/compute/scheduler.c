/* Only lanes that have work are in the list, so the number of models does not matter. */
#include "server/compute/scheduler.h"

/* Work of fewer multiply-accumulates runs on the loop thread: they take some 200 us of one core,
 * about what waking another thread and hearing back costs on a busy machine, and too little for
 * other connections to notice. */
static const uint64_t LOOP_MACS = 5 * 1000 * 1000;

static void run_here(struct lane *lane)
{
    lane->busy = true;
    lane->kind->begin(lane);
    uint64_t began = uv_hrtime();
    lane->kind->run(lane, NULL);
    uint64_t compute_ns = uv_hrtime() - began;
    lane->busy = false;
    lane->kind->finish(lane, compute_ns);
}

/* Moves the lane behind the others, whose turn is next. */
static void run_there(struct scheduler *scheduler, struct lane *lane)
{
    TAILQ_REMOVE(&scheduler->lanes, lane, link);
    TAILQ_INSERT_TAIL(&scheduler->lanes, lane, link);
    lane->busy = true;
    lane->kind->begin(lane);
    engine_start(&scheduler->engine, lane);
}

/* Runs or hands over one piece. Returns whether another is ready at once. */
static bool serve(struct scheduler *scheduler, struct lane *lane, uint64_t now, uint64_t *due_ns)
{
    uint64_t never = UINT64_MAX;
    if (lane->busy || !lane->kind->ready(lane, now, due_ns))
        return false;
    if (lane->kind->cost(lane) < LOOP_MACS) {
        run_here(lane);
        return lane->kind->ready(lane, now, &never);
    }
    if (!scheduler->engine.busy)
        run_there(scheduler, lane);
    return false;
}

static void on_hold(uv_timer_t *hold);
static void on_again(uv_idle_t *again);

static void forget(struct scheduler *scheduler, struct lane *lane)
{
    TAILQ_REMOVE(&scheduler->lanes, lane, link);
    lane->listed = false;
    scheduler->on_empty(lane, scheduler->context);
}

/* Serves one piece of every lane that has one, beginning with the lane that has waited longest for
 * the compute thread, so that a busy model cannot keep it from the others. */
static void run_turn(struct scheduler *scheduler)
{
    uint64_t now = uv_hrtime();
    uint64_t due_ns = UINT64_MAX;
    bool more = false;
    struct lane *last = TAILQ_LAST(&scheduler->lanes, lane_list), *next;
    for (struct lane *lane = TAILQ_FIRST(&scheduler->lanes); lane; lane = next) {
        /* Lanes that are moved or woken behind the last one are served in the next turn. */
        next = lane == last ? NULL : TAILQ_NEXT(lane, link);
        more |= serve(scheduler, lane, now, &due_ns);
        if (!lane->busy && lane->kind->empty(lane))
            forget(scheduler, lane);
    }
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

/* While this handle is active the loop polls without sleeping. */
static void on_again(uv_idle_t *again)
{
    (void)again;
}

static void on_hold(uv_timer_t *hold)
{
    run_turn(hold->data);
}

static void on_done(struct lane *lane, uint64_t compute_ns, void *context)
{
    lane->busy = false;
    lane->kind->finish(lane, compute_ns);
    run_turn(context);
}

int scheduler_init(struct scheduler *scheduler, uv_loop_t *loop, unsigned threads,
                   void (*on_empty)(struct lane *lane, void *context), void *context,
                   struct error *err)
{
    scheduler->on_empty = on_empty;
    scheduler->context = context;
    TAILQ_INIT(&scheduler->lanes);
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
    /* These must not keep the loop alive. */
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

void scheduler_wake(struct scheduler *scheduler, struct lane *lane)
{
    if (!lane->listed)
        TAILQ_INSERT_TAIL(&scheduler->lanes, lane, link);
    lane->listed = true;
    uv_idle_start(&scheduler->again, on_again);
}

void scheduler_run_now(struct lane *lane)
{
    while (!lane->kind->empty(lane))
        run_here(lane);
}
