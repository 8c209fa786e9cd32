/* What experts take: which tasks are timed, and what the times of those say of all. */
#include "core/moe/dispatch.h"
#include "support.h"

static const uint64_t LITTLE = 1000, MUCH = 1 << 22;

/* A task of so many pairs that takes `ns` if it is timed; returns whether it is. */
static bool run_task(struct timing *timing, struct expert_task *task, uint64_t macs, uint32_t ns)
{
    timing_plan(timing, task, macs);
    const bool timed = task->ns > 0;
    task->ns = timed ? ns : 0;
    return timed;
}

static double seconds_of(const struct timing *timing, size_t expert)
{
    return (double)timing->seconds[expert] / 0x1p32;
}

START_TEST(much_work_is_always_timed)
{
    struct timing timing;
    timing_init(&timing, 2, true);
    for (uint32_t i = 1; i <= 200; i++) {
        struct expert_task task = {1, 0, 10, 0};
        ck_assert(run_task(&timing, &task, MUCH, i * 1000));
        timing_settle(&timing, &task, 1);
        ck_assert_double_eq_tol(seconds_of(&timing, 1), i * 1e-7, 1e-9);
    }
    ck_assert_uint_eq(timing.seconds[0], 0);
    timing_close(&timing);
}
END_TEST

/* Of those of one size; what was timed stands for the next ones. */
START_TEST(of_little_work_some_is_timed)
{
    struct timing timing;
    unsigned timed = 0;
    timing_init(&timing, 1, true);
    for (uint32_t i = 0; i < 64 * 100; i++) {
        struct expert_task one = {0, 0, 1, 0}, some = {0, 0, 4 + i % 4, 0};
        timed += run_task(&timing, &one, LITTLE, 500);
        timing_settle(&timing, &one, 1);
        ck_assert_double_eq_tol(seconds_of(&timing, 0), 5e-7, 1e-9);
        timed += run_task(&timing, &some, LITTLE, some.count * 100);
        timing_settle(&timing, &some, 1);
        ck_assert_double_eq_tol(seconds_of(&timing, 0), 1e-7, 1e-9);
    }
    ck_assert_uint_eq(timed, 2 * (100 + 3));
    timing_close(&timing);
}
END_TEST

/* The tasks of one expert on several threads. */
START_TEST(tasks_of_an_expert_add_up)
{
    struct timing timing;
    struct expert_task tasks[] = {{0, 0, 16, 0}, {0, 16, 16, 0}, {0, 32, 8, 0}, {2, 40, 1, 0}};
    const uint32_t ns[] = {1600, 4800, 1600, 77};
    timing_init(&timing, 3, true);
    for (size_t i = 0; i < 4; i++)
        ck_assert(run_task(&timing, &tasks[i], LITTLE, ns[i]));
    timing_settle(&timing, tasks, 4);
    ck_assert_double_eq_tol(seconds_of(&timing, 0), 8e-6 / 40, 1e-9);
    ck_assert_double_eq_tol(seconds_of(&timing, 2), 77e-9, 1e-9);
    timing_close(&timing);
}
END_TEST

START_TEST(nothing_is_timed_unasked)
{
    struct timing timing;
    struct expert_task task = {0, 0, 10, 0};
    timing_init(&timing, 2, false);
    ck_assert(!run_task(&timing, &task, MUCH, 1));
    timing_settle(&timing, &task, 1);
    ck_assert_ptr_null(timing.seconds);
    timing_close(&timing);
}
END_TEST

/* Two experts, the first with three items of four. */
START_TEST(a_forward_pass_says_what_its_experts_took)
{
    enum { WIDTH = 256, ROWS = 40 };
    float *gate = xcalloc(2 * WIDTH, sizeof *gate), *large = new_integers(WIDTH * WIDTH, 1);
    float *x = xcalloc(ROWS * WIDTH, sizeof *x), *y = xcalloc(ROWS * WIDTH, sizeof *y);
    struct error err = ERROR_INIT;
    gate[0] = gate[WIDTH + 1] = 1;
    for (size_t row = 0; row < ROWS; row++)
        x[row * WIDTH + (row % 4 == 0)] = 1;
    struct moed_model *model = load_layers(
        "[256]",
        "[{'op':'moe','name':'m','gate':{'layers':[{'op':'linear','name':'g'}],'top_k':1},"
        "'experts':{'count':2,'layers':[{'op':'linear','name':'fc'}]}}]",
        (struct stored[]){{"m.gate.g.weight", 2, {2, WIDTH}, gate, NULL},
                          {"m.experts.0.fc.weight", 2, {WIDTH, WIDTH}, large, NULL},
                          {"m.experts.1.fc.weight", 2, {WIDTH, WIDTH}, large, NULL}},
        3);
    struct moed_scratch *scratch = new_scratch(model, ROWS, 1, &err);
    const uint64_t began = timing_now();
    forward_rows(model, scratch, NULL, ROWS, x, y);
    const double took = (double)(timing_now() - began) * 1e-9;
    const uint64_t *seconds = moed_routing(scratch, 0)->seconds;
    const double counted = (double)(seconds[0] * 30 + seconds[1] * 10) / 0x1p32;
    ck_assert(seconds[0] > 0 && seconds[1] > 0);
    ck_assert_msg(counted < took, "%g s of %g", counted, took);
    moed_scratch_free(scratch);
    moed_model_free(model);
    free(gate);
    free(large);
    free(x);
    free(y);
}
END_TEST

TEST_MAIN("timing", much_work_is_always_timed, of_little_work_some_is_timed,
          tasks_of_an_expert_add_up, nothing_is_timed_unasked,
          a_forward_pass_says_what_its_experts_took)
