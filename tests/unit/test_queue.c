/* The queue of one model: which rows make a batch, and that they are the job's, whatever is
 * cancelled or refused in between. The fake model has two inputs, `pair` [2] and `single` []; row r
 * of a job that starts at b has the pair (b + r, b + r + 0.5) and the single 10 * (b + r). */
#include "server/compute/queue.h"
#include "support.h"

enum { BATCH_ROWS = 4, MAX_ROWS = 12 };

static const struct moed_tensor_info inputs[] = {{.name = "pair", .shape = {1, {2}}, .elements = 2},
                                                 {.name = "single", .elements = 1}};
static const struct moed_tensor_info outputs[] = {
    {.name = "sum", .shape = {1, {3}}, .elements = 3}};
static const struct moed_model_info info = {
    .input_count = 2, .inputs = inputs, .output_count = 1, .outputs = outputs};

static const struct signature_tensor signature_inputs[] = {
    {.name = "pair", .rank = 1, .dims = (const size_t[]){2}, .elements = 2},
    {.name = "single", .elements = 1}};
static const struct signature signature = {
    .model = "m", .version = "1", .input_count = 2, .inputs = signature_inputs};

static struct queue queue;
static char *values[256]; /* of jobs that were read */
static size_t value_count;

static void begin(void)
{
    queue_init(&queue, &info, BATCH_ROWS, MAX_ROWS);
}

static void end(void)
{
    queue_close(&queue);
    for (size_t i = 0; i < value_count; i++)
        free(values[i]);
    value_count = 0;
}

/* A job and the body with its numbers. */
struct posted {
    struct job job;
    int base;
    struct infer_input where[2];
    char pair[512], single[512];
};

static void write_numbers(struct posted *posted, int base, size_t rows)
{
    char *pair = posted->pair, *single = posted->single;
    *pair++ = *single++ = '[';
    for (int row = base; row < base + (int)rows; row++) {
        pair += sprintf(pair, "%s[%d,%d.5]", row > base ? "," : "", row, row);
        single += sprintf(single, "%s%d", row > base ? "," : "", 10 * row);
    }
    strcpy(pair, "]");
    strcpy(single, "]");
}

static struct posted job_of(int base, size_t rows)
{
    struct posted posted = {.job.request = {.signature = &signature, .rows = rows}, .base = base};
    write_numbers(&posted, base, rows);
    return posted;
}

static int push(struct posted *posted, struct error *err)
{
    posted->where[0] = (struct infer_input){.where = "data",
                                            .data = posted->pair,
                                            .length = strlen(posted->pair),
                                            .datatype = DATATYPE_FP32};
    posted->where[1] = (struct infer_input){.where = "data",
                                            .data = posted->single,
                                            .length = strlen(posted->single),
                                            .datatype = DATATYPE_FP32};
    posted->job.request.inputs = posted->where;
    posted->job.request.body = posted->pair;
    if (queue_check(&queue, posted->job.request.rows, err) != 0 ||
        queue_read(&queue, &posted->job, err) != 0)
        return -1;
    values[value_count++] = posted->job.values;
    queue_push(&queue, &posted->job);
    return 0;
}

static void expect_push(struct posted *posted)
{
    struct error err = ERROR_INIT;
    int result = push(posted, &err);
    ck_assert_msg(result == 0, "%s", err.text);
    ck_assert_uint_eq(posted->job.rows_waiting, posted->job.request.rows);
}

static struct batch *take(void)
{
    struct batch *batch = queue_take(&queue, BATCH_ROWS);
    if (batch)
        batch_gather(batch, &info);
    return batch;
}

static void expect_rows(const struct batch *batch, size_t row, size_t rows, int base)
{
    for (size_t i = 0; i < rows; i++) {
        const float value = (float)base + (float)i;
        const float *pair = batch->inputs[0], *single = batch->inputs[1];
        ck_assert_float_eq(pair[2 * (row + i)], value);
        ck_assert_float_eq(pair[2 * (row + i) + 1], value + 0.5f);
        ck_assert_float_eq(single[row + i], 10 * value);
    }
}

/* Segment `index` of a batch begins at its `row` and holds rows of the job from `job_row` on. */
static void expect_segment(const struct batch *batch, size_t index, size_t row,
                           const struct posted *posted, size_t job_row, size_t rows)
{
    ck_assert_uint_lt(index, batch->segment_count);
    ck_assert_ptr_eq(batch->segments[index].job, &posted->job);
    ck_assert_uint_eq(batch->segments[index].job_row, job_row);
    ck_assert_uint_eq(batch->segments[index].rows, rows);
    expect_rows(batch, row, rows, posted->base + (int)job_row);
}

static void expect_taken(const struct posted *posted, size_t rows)
{
    ck_assert_uint_eq(posted->job.rows_running, rows);
    ck_assert_uint_eq(posted->job.rows_waiting, posted->job.request.rows - rows);
}

START_TEST(rows_leave_in_the_order_of_their_arrival)
{
    struct posted a = job_of(100, 1), b = job_of(200, 1), c = job_of(300, 1), d = job_of(400, 1),
                  e = job_of(500, 1);
    struct posted *const jobs[] = {&a, &b, &c, &d, &e};
    for (size_t i = 0; i < 5; i++)
        expect_push(jobs[i]);
    ck_assert_uint_eq(queue.rows, 5);
    struct batch *batch = take();
    ck_assert_uint_eq(batch->rows, 4);
    for (size_t i = 0; i < 4; i++)
        expect_segment(batch, i, i, jobs[i], 0, 1);
    ck_assert_uint_eq(queue.rows, 1);
    queue_recycle(&queue, batch);
    batch = take();
    expect_segment(batch, 0, 0, &e, 0, 1);
    queue_recycle(&queue, batch);
    ck_assert_ptr_null(take());
    ck_assert_uint_eq(queue.rows, 0);
}
END_TEST

START_TEST(a_job_may_span_batches)
{
    struct posted a = job_of(100, 9);
    expect_push(&a);
    static const size_t first[] = {0, 4, 8}, rows[] = {4, 4, 1};
    for (size_t i = 0; i < 3; i++) {
        struct batch *batch = take();
        ck_assert_uint_eq(batch->segment_count, 1);
        expect_segment(batch, 0, 0, &a, first[i], rows[i]);
        expect_taken(&a, first[i] + rows[i]);
        queue_recycle(&queue, batch);
    }
    ck_assert_ptr_null(take());
}
END_TEST

START_TEST(a_batch_may_be_cut_short)
{
    struct posted a = job_of(100, 3), b = job_of(200, 1);
    expect_push(&a);
    expect_push(&b);
    struct batch *batch = queue_take(&queue, 2);
    ck_assert_uint_eq(batch->rows, 2);
    queue_recycle(&queue, batch);
    ck_assert_uint_eq(queue.rows, 2);
    queue_recycle(&queue, take());
    expect_taken(&a, 3);
    expect_taken(&b, 1);
}
END_TEST

/* Half of every batch goes to the oldest, half to the shortest. */
START_TEST(a_short_job_does_not_wait_for_a_long_one)
{
    struct posted a = job_of(100, 9), b = job_of(200, 1), c = job_of(300, 1);
    expect_push(&a);
    queue_recycle(&queue, take());
    expect_push(&b);
    expect_push(&c);
    struct batch *batch = take();
    expect_taken(&b, 1);
    expect_taken(&c, 1);
    expect_taken(&a, 6);
    ck_assert_uint_eq(batch->segment_count, 3);
    queue_recycle(&queue, batch);
    queue_recycle(&queue, take());
    expect_taken(&a, 9);
}
END_TEST

START_TEST(a_long_job_is_not_starved_by_short_ones)
{
    struct posted a = job_of(100, 9), shorts[12];
    expect_push(&a);
    for (size_t i = 0, batches = 0; a.job.rows_waiting > 0; batches++) {
        for (; queue.rows <= MAX_ROWS - 1 && i < 12; i++) {
            shorts[i] = job_of(200, 1);
            expect_push(&shorts[i]);
        }
        queue_recycle(&queue, take());
        ck_assert_uint_lt(batches, 5);
    }
}
END_TEST

START_TEST(tags_share_every_batch)
{
    struct posted flood[8], other[2];
    for (size_t i = 0; i < 8; i++) {
        flood[i] = job_of(100, 1);
        flood[i].job.tag = 1;
        expect_push(&flood[i]);
    }
    for (size_t i = 0; i < 2; i++) {
        other[i] = job_of(200, 1);
        other[i].job.tag = 2;
        expect_push(&other[i]);
    }
    queue_recycle(&queue, take());
    for (size_t i = 0; i < 2; i++) {
        expect_taken(&other[i], 1);
        expect_taken(&flood[i], 1);
    }
}
END_TEST

static size_t taken_of(const struct posted *jobs, size_t count)
{
    size_t rows = 0;
    for (size_t i = 0; i < count; i++)
        rows += jobs[i].job.rows_running;
    return rows;
}

START_TEST(priorities_have_their_shares)
{
    struct posted jobs[3][40];
    size_t pushed[3] = {0};
    for (size_t batches = 0; batches < 20; batches++) {
        for (size_t p = 0; p < 3; p++)
            while (pushed[p] - taken_of(jobs[p], pushed[p]) < 4 && pushed[p] < 40) {
                struct posted *job = &jobs[p][pushed[p]++];
                *job = job_of(100, 1);
                job->job.request.priority = p + 1;
                expect_push(job);
            }
        if (pushed[0] == 40)
            break;
        queue_recycle(&queue, take());
    }
    const size_t high = taken_of(jobs[0], pushed[0]), normal = taken_of(jobs[1], pushed[1]),
                 low = taken_of(jobs[2], pushed[2]);
    ck_assert_msg(high > 5 * normal && normal > 0, "%zu, %zu and %zu rows", high, normal, low);
    ck_assert_uint_le(low, normal);
}
END_TEST

START_TEST(the_lowest_priority_gets_its_turn)
{
    struct posted low = job_of(100, 1), flood[100];
    low.job.request.priority = 99;
    expect_push(&low);
    size_t pushed = 0;
    for (size_t batches = 0; low.job.rows_waiting > 0; batches++) {
        while (queue.rows < 10) {
            flood[pushed] = job_of(200, 1);
            flood[pushed].job.request.priority = 1;
            expect_push(&flood[pushed++]);
        }
        queue_recycle(&queue, take());
        ck_assert_uint_lt(batches, 17); /* 64 rows of the highest */
    }
    ck_assert_uint_gt(pushed, 40);
}
END_TEST

START_TEST(rows_before_a_job_are_those_of_jobs_not_longer)
{
    struct posted a = job_of(100, 1), b = job_of(200, 7), c = job_of(300, 1);
    c.job.tag = 5;
    expect_push(&a);
    expect_push(&b);
    expect_push(&c);
    ck_assert_uint_eq(queue_rows_before(&queue, PRIORITY_NORMAL, 0, 1), 1);
    ck_assert_uint_eq(queue_rows_before(&queue, PRIORITY_NORMAL, 0, 7), 8);
    ck_assert_uint_eq(queue_rows_before(&queue, PRIORITY_NORMAL, 5, 7), 1);
    ck_assert_uint_eq(queue_rows_before(&queue, PRIORITY_HIGH, 0, 7), 0);
}
END_TEST

START_TEST(arrivals_join_the_next_batch)
{
    struct posted a = job_of(100, 1), b = job_of(200, 1);
    expect_push(&a);
    struct batch *first = take();
    expect_push(&b);
    struct batch *second = take();
    ck_assert_ptr_ne(first, second);
    expect_segment(second, 0, 0, &b, 0, 1);
    queue_recycle(&queue, first);
    queue_recycle(&queue, second);
}
END_TEST

START_TEST(cancelled_rows_leave_no_gap)
{
    struct posted a = job_of(100, 1), b = job_of(200, 5), c = job_of(300, 3);
    expect_push(&a);
    expect_push(&b);
    expect_push(&c);
    queue_cancel(&queue, &b.job);
    queue_cancel(&queue, &b.job); /* nothing of it waits */
    ck_assert_uint_eq(b.job.rows_waiting, 0);
    ck_assert_uint_eq(queue.rows, 4);
    struct batch *batch = take();
    ck_assert_uint_eq(batch->segment_count, 2);
    expect_segment(batch, 0, 0, &a, 0, 1);
    expect_segment(batch, 1, 1, &c, 0, 3);
    queue_recycle(&queue, batch);
    ck_assert_ptr_null(take());
    ck_assert_uint_eq(queue.rows, 0);
}
END_TEST

START_TEST(a_whole_job_is_never_cut)
{
    queue.whole_jobs = true;
    struct error err = ERROR_INIT;
    struct posted a = job_of(100, 3), b = job_of(200, 2), c = job_of(300, 4), d = job_of(400, 5);
    expect_push(&a);
    expect_push(&b);
    expect_push(&c);
    ck_assert_int_eq(push(&d, &err), -1);
    ck_assert_int_eq(err.code, ERROR_OVERLOADED);
    err = (struct error)ERROR_INIT;
    struct batch *batch = queue_take(&queue, 1); /* too few for any, so for one */
    ck_assert_uint_eq(batch->segment_count, 1);
    expect_taken(&a, 3);
    queue_recycle(&queue, batch);
    ck_assert_int_eq(queue_check(&queue, 5, &err), -1);
    ck_assert_int_eq(err.code, ERROR_TOO_LARGE);
    queue_recycle(&queue, take());
    expect_taken(&b, 2);
    expect_taken(&c, 0);
    queue_recycle(&queue, take());
    expect_taken(&c, 4);
}
END_TEST

START_TEST(running_rows_cannot_be_cancelled)
{
    struct posted a = job_of(100, 6);
    expect_push(&a);
    struct batch *batch = take();
    queue_cancel(&queue, &a.job);
    ck_assert_uint_eq(a.job.rows_waiting, 0);
    ck_assert_uint_eq(a.job.rows_running, 4);
    expect_segment(batch, 0, 0, &a, 0, 4);
    queue_recycle(&queue, batch);
    ck_assert_ptr_null(take());
}
END_TEST

/* Expects a push to fail because the last number of one input is invalid. */
static void expect_push_fails(struct posted *posted, char *numbers)
{
    struct error err = ERROR_INIT;
    numbers[strlen(numbers) - 2] = 'x';
    const size_t rows = queue.rows;
    ck_assert_int_eq(push(posted, &err), -1);
    ck_assert_int_eq(err.code, ERROR_INVALID);
    ck_assert_ptr_null(posted->job.values);
    ck_assert_uint_eq(queue.rows, rows);
}

START_TEST(a_failed_push_leaves_the_rows_before_it)
{
    for (size_t rows = 1; rows <= 9; rows++) {
        struct posted good = job_of(200, 2), bad = job_of(100, rows), worse = job_of(100, rows);
        expect_push_fails(&bad, bad.single);
        expect_push(&good);
        expect_push_fails(&worse, worse.pair);
        struct batch *batch = take();
        expect_segment(batch, 0, 0, &good, 0, 2);
        queue_recycle(&queue, batch);
        ck_assert_ptr_null(take());
    }
}
END_TEST

START_TEST(a_full_queue_refuses_at_once)
{
    struct error err = ERROR_INIT;
    struct posted a = job_of(100, 7), b = job_of(200, 5), c = job_of(300, 1), d = job_of(400, 5);
    expect_push(&a);
    expect_push(&b);
    ck_assert_int_eq(push(&c, &err), -1);
    ck_assert_int_eq(err.code, ERROR_OVERLOADED);
    expect_text(err.text, "12 rows in it, 1 more would exceed the limit of 12");
    ck_assert_uint_eq(queue.rows, 12);
    queue_recycle(&queue, take());
    ck_assert_int_eq(push(&d, NULL), -1);
    expect_push(&c);
    ck_assert_uint_eq(queue.rows, 9);
}
END_TEST

START_TEST(a_job_larger_than_the_queue_is_refused)
{
    struct error err = ERROR_INIT;
    struct posted a = job_of(100, 13);
    ck_assert_int_eq(push(&a, &err), -1);
    ck_assert_int_eq(err.code, ERROR_OVERLOADED);
    ck_assert_uint_eq(queue.rows, 0);
}
END_TEST

START_TEST(buffers_are_used_again_but_not_hoarded)
{
    struct posted jobs[5] = {job_of(100, 4), job_of(200, 4), job_of(300, 4), job_of(400, 4),
                             job_of(500, 4)};
    struct batch *taken[5];
    for (size_t i = 0; i < 5; i++) {
        expect_push(&jobs[i]);
        taken[i] = take();
    }
    for (size_t i = 0; i < 5; i++)
        queue_recycle(&queue, taken[i]);
    ck_assert_uint_eq(queue.spare_count, 2);
    struct posted again = job_of(600, 1);
    expect_push(&again);
    ck_assert_uint_eq(queue.spare_count, 2);
    struct batch *batch = take();
    expect_segment(batch, 0, 0, &again, 0, 1);
    ck_assert_uint_eq(batch->rows, 1);
    queue_recycle(&queue, batch);
}
END_TEST

START_TEST(what_waits_at_the_end_is_freed)
{
    struct posted a = job_of(100, 9);
    expect_push(&a);
}
END_TEST

TEST_MAIN_WITH("queue", begin, end, rows_leave_in_the_order_of_their_arrival,
               a_job_may_span_batches, a_batch_may_be_cut_short,
               a_short_job_does_not_wait_for_a_long_one, a_long_job_is_not_starved_by_short_ones,
               tags_share_every_batch, priorities_have_their_shares,
               the_lowest_priority_gets_its_turn, rows_before_a_job_are_those_of_jobs_not_longer,
               arrivals_join_the_next_batch, cancelled_rows_leave_no_gap, a_whole_job_is_never_cut,
               running_rows_cannot_be_cancelled, a_failed_push_leaves_the_rows_before_it,
               a_full_queue_refuses_at_once, a_job_larger_than_the_queue_is_refused,
               buffers_are_used_again_but_not_hoarded, what_waits_at_the_end_is_freed)
