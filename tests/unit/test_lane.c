/* Lanes whose work returns step by step, beside lanes whose work takes one batch. A fake decoder
 * has sequences of several steps each, and new ones arrive while it runs. */
#include "scheduler_fixture.h"

enum { MAX_SEQUENCES = 16, CHEAP = 1000, EXPENSIVE = 50 * 1000 * 1000, MANY_STEPS = 100 };

struct fake_sequence {
    int wanted, done;
    bool running;
};

struct stepping {
    struct lane lane;
    uint64_t step_cost;
    struct fake_sequence sequences[MAX_SEQUENCES];
    size_t count;
    int steps;
    uv_thread_t ran_on;
    unsigned step_ms;
    uint64_t slice_ns;   /* of the last step */
    uint64_t longest_ns; /* step so far */
    int batch_at_step;   /* whose finish submits a batch to `large` */
};

static struct stepping decoder;

static bool is_unfinished(const struct fake_sequence *sequence)
{
    return sequence->done < sequence->wanted;
}

static bool stepping_empty(const struct lane *lane)
{
    const struct stepping *stepping = (const struct stepping *)(const void *)lane;
    for (size_t i = 0; i < stepping->count; i++)
        if (is_unfinished(&stepping->sequences[i]))
            return false;
    return true;
}

static bool stepping_ready(const struct lane *lane, uint64_t now_ns, uint64_t *due_ns)
{
    (void)now_ns, (void)due_ns;
    return !stepping_empty(lane);
}

static uint64_t stepping_cost(const struct lane *lane)
{
    return ((const struct stepping *)(const void *)lane)->step_cost;
}

/* All present sequences take part; one that arrives meanwhile waits for the next step. */
static void stepping_begin(struct lane *lane, uint64_t slice_ns)
{
    struct stepping *stepping = (struct stepping *)(void *)lane;
    stepping->slice_ns = slice_ns;
    for (size_t i = 0; i < stepping->count; i++)
        stepping->sequences[i].running = is_unfinished(&stepping->sequences[i]);
}

static void stepping_run(struct lane *lane, struct moed_team *team)
{
    (void)team;
    struct stepping *stepping = (struct stepping *)(void *)lane;
    stepping->ran_on = uv_thread_self();
    uv_sleep(stepping->step_ms);
}

static void stepping_finish(struct lane *lane, uint64_t compute_ns)
{
    struct stepping *stepping = (struct stepping *)(void *)lane;
    if (compute_ns > stepping->longest_ns)
        stepping->longest_ns = compute_ns;
    stepping->steps++;
    for (size_t i = 0; i < stepping->count; i++) {
        stepping->sequences[i].done += stepping->sequences[i].running;
        stepping->sequences[i].running = false;
    }
    if (stepping->steps == stepping->batch_at_step)
        submit("large", BATCH_ROWS, 1);
}

static void stepping_free(struct lane *lane)
{
    (void)lane; /* static */
}

static const struct lane_kind STEPPING = {stepping_ready, stepping_cost,   stepping_begin,
                                          stepping_run,   stepping_finish, stepping_empty,
                                          stepping_free};

static void on_any_empty(struct lane *lane, void *context)
{
    if (lane != &decoder.lane)
        lanes_on_empty(lane, context);
}

static void start_decoder(uint64_t step_cost)
{
    start(0);
    scheduler.on_empty = on_any_empty;
    decoder = (struct stepping){.lane.kind = &STEPPING, .step_cost = step_cost};
}

static void ask(int steps)
{
    decoder.sequences[decoder.count++] = (struct fake_sequence){.wanted = steps};
    scheduler_wake(&scheduler, &decoder.lane);
}

static void run_decoder(void)
{
    uv_timer_start(&watchdog, on_watchdog, PATIENCE_SECONDS * 1000, 0);
    while (!stepping_empty(&decoder.lane) && !watchdog_fired)
        uv_run(&loop, UV_RUN_ONCE);
    uv_timer_stop(&watchdog);
    ck_assert(!watchdog_fired);
}

START_TEST(work_comes_back_until_it_is_done)
{
    start_decoder(CHEAP);
    ask(5);
    ask(2);
    run_decoder();
    ck_assert_int_eq(decoder.steps, 5); /* together, not one after the other */
    ck_assert_int_eq(decoder.sequences[0].done, 5);
    ck_assert_int_eq(decoder.sequences[1].done, 2);
    const uv_thread_t self = uv_thread_self();
    ck_assert(uv_thread_equal(&decoder.ran_on, &self));
    ck_assert(!decoder.lane.listed);
}
END_TEST

START_TEST(an_expensive_step_is_run_on_the_compute_thread)
{
    start_decoder(EXPENSIVE);
    ask(3);
    run_until_busy();
    ck_assert(decoder.lane.busy);
    ask(4); /* joins at the next step */
    run_decoder();
    ck_assert_int_eq(decoder.steps, 5);
    ck_assert_int_eq(decoder.sequences[1].done, 4);
    const uv_thread_t self = uv_thread_self();
    ck_assert(!uv_thread_equal(&decoder.ran_on, &self));
}
END_TEST

/* A busy decoder and a large batch share the compute thread by the time that they take. */
START_TEST(steps_and_batches_take_turns)
{
    write_dense("large", 24);
    start_decoder(EXPENSIVE);
    decoder.batch_at_step = 2;
    decoder.step_ms = 1;
    ask(MANY_STEPS);
    run_until(1);
    ck_assert_uint_le(decoder.lane.turn_ns, lane("large")->lane.turn_ns + 2 * decoder.longest_ns);
    ck_assert_uint_gt(decoder.slice_ns, 0); /* it is told that it is not alone */
    expect_answer(&posted[0], 1);
    run_decoder();
    ck_assert_int_eq(decoder.steps, MANY_STEPS);
}
END_TEST

/* The lane of a model that is no longer served ends with its work. */
START_TEST(a_retired_lane_is_freed_when_it_is_empty)
{
    write_dense("large", 24);
    start(0);
    struct posted *job = submit("large", BATCH_ROWS, 3);
    submit("small", 1, 1);
    struct model *large = model_hold(model("large"));
    run_until_busy();
    ck_assert_uint_eq(lanes.count, 2);
    lanes_serve(&lanes, catalog_new(NULL, 0));
    ck_assert_uint_eq(lanes.count, 1);
    ck_assert_uint_eq(large->holders, 2); /* ours and the lane's */
    run_until(2);
    uv_run(&loop, UV_RUN_NOWAIT);
    expect_answer(job, 3);
    ck_assert_uint_eq(lanes.count, 0);
    ck_assert_uint_eq(large->holders, 1);
    model_release(large);
}
END_TEST

TEST_MAIN_WITH("lane", begin, end, work_comes_back_until_it_is_done,
               an_expensive_step_is_run_on_the_compute_thread, steps_and_batches_take_turns,
               a_retired_lane_is_freed_when_it_is_empty)
