/* Only lanes that have work are in the list, so the number of models does not matter. */
#include "server/compute/scheduler.h"

/* Work of fewer multiply-accumulates runs on the loop thread: they take some 200 us of one core,
 * about what waking another thread and hearing back costs on a busy machine, and too little for
 * other connections to notice. */
static const uint64_t LOOP_MACS = 5 * 1000 * 1000;

/* How long a piece should take that others wait for: long enough that handing over is no loss,
 * short beside what a network adds to an answer. */
static const uint64_t SLICE_NS = 2 * 1000 * 1000;

/* A lane that has used the compute thread so recently is expected to use it again. */
static const uint64_t RECENT_NS = UINT64_C(10) * 1000 * 1000 * 1000;

static void run_here(struct lane *lane)
{
    lane->busy = true;
    lane->kind->begin(lane, 0);
    uint64_t began = uv_hrtime();
    lane->kind->run(lane, NULL);
    lane->ended_ns = uv_hrtime();
    lane->busy = false;
    lane->kind->finish(lane, lane->ended_ns - began);
}

/* ---- the compute thread ---- */

static bool has_others(const struct scheduler *scheduler, const struct lane *lane, uint64_t now)
{
    const struct scheduler_use *other =
        scheduler->last.lane == lane ? &scheduler->before : &scheduler->last;
    return other->lane && now - other->ended_ns < RECENT_NS;
}

static void note_use(struct scheduler *scheduler, const struct lane *lane)
{
    if (scheduler->last.lane != lane)
        scheduler->before = scheduler->last;
    scheduler->last = (struct scheduler_use){lane, uv_hrtime()};
}

/* Moves the lane behind the others that have had as much. */
static void run_there(struct scheduler *scheduler, struct lane *lane, uint64_t now)
{
    TAILQ_REMOVE(&scheduler->lanes, lane, link);
    TAILQ_INSERT_TAIL(&scheduler->lanes, lane, link);
    scheduler->turn_ns = lane->turn_ns;
    lane->busy = true;
    lane->kind->begin(lane, has_others(scheduler, lane, now) ? SLICE_NS : 0);
    engine_start(&scheduler->engine, lane);
}

/* ---- turns ---- */

/* What one look at all lanes finds. */
struct turn {
    uint64_t now, due_ns;
    bool more;         /* another piece for the loop thread is ready at once */
    struct lane *next; /* for the compute thread; NULL: none */
};

/* Runs a small piece, or makes the lane a candidate for the compute thread. */
static void serve(struct lane *lane, struct turn *turn)
{
    uint64_t never = UINT64_MAX;
    if (lane->busy || !lane->kind->ready(lane, turn->now, &turn->due_ns))
        return;
    if (lane->kind->cost(lane) < LOOP_MACS) {
        run_here(lane);
        turn->more |= lane->kind->ready(lane, turn->now, &never);
    } else if (!turn->next || lane->turn_ns < turn->next->turn_ns) {
        turn->next = lane;
    }
}

static void on_hold(uv_timer_t *hold);
static void on_again(uv_idle_t *again);

static void forget(struct scheduler *scheduler, struct lane *lane)
{
    TAILQ_REMOVE(&scheduler->lanes, lane, link);
    lane->listed = false;
    scheduler->on_empty(lane, scheduler->context);
}

/* Serves one small piece of every lane that has one, and the compute thread. */
static void run_turn(struct scheduler *scheduler)
{
    struct turn turn = {.now = uv_hrtime(), .due_ns = UINT64_MAX};
    uint64_t never = UINT64_MAX;
    struct lane *last = TAILQ_LAST(&scheduler->lanes, lane_list), *next;
    for (struct lane *lane = TAILQ_FIRST(&scheduler->lanes); lane; lane = next) {
        /* Lanes that are woken behind the last one are served in the next turn. */
        next = lane == last ? NULL : TAILQ_NEXT(lane, link);
        serve(lane, &turn);
        if (!lane->busy && lane->kind->empty(lane))
            forget(scheduler, lane);
    }
    /* The answers of small pieces may have cancelled what was ready. */
    if (turn.next && !scheduler->engine.busy && turn.next->kind->ready(turn.next, turn.now, &never))
        run_there(scheduler, turn.next, turn.now);
    if (turn.more)
        uv_idle_start(&scheduler->again, on_again);
    else
        uv_idle_stop(&scheduler->again);
    if (turn.due_ns == UINT64_MAX)
        uv_timer_stop(&scheduler->hold);
    else
        uv_timer_start(&scheduler->hold, on_hold, (turn.due_ns - turn.now) / 1000000 + 1, 0);
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
    lane->turn_ns += compute_ns;
    note_use(context, lane);
    lane->kind->finish(lane, compute_ns);
    run_turn(context);
}

int scheduler_init(struct scheduler *scheduler, uv_loop_t *loop, unsigned threads,
                   void (*on_empty)(struct lane *lane, void *context), void *context,
                   struct error *err)
{
    *scheduler = (struct scheduler){.on_empty = on_empty, .context = context};
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
    if (!lane->listed) {
        TAILQ_INSERT_TAIL(&scheduler->lanes, lane, link);
        if (lane->turn_ns < scheduler->turn_ns)
            lane->turn_ns = scheduler->turn_ns; /* idle time is not saved up */
    }
    lane->listed = true;
    uv_idle_start(&scheduler->again, on_again);
}

void scheduler_leave(struct scheduler *scheduler, const struct lane *lane)
{
    if (scheduler->last.lane == lane)
        scheduler->last.lane = NULL;
    if (scheduler->before.lane == lane)
        scheduler->before.lane = NULL;
}

void scheduler_run_now(struct lane *lane)
{
    while (!lane->kind->empty(lane))
        run_here(lane);
}
