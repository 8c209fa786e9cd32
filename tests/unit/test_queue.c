/* The queue of one model: the rows of jobs are in batch buffers, in order, whatever is cancelled or
 * refused in between. The fake model has two inputs, `pair` [2] and `single` []; row r of a job
 * that starts at b has the pair (b + r, b + r + 0.5) and the single 10 * (b + r). */
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

static void begin(void)
{
    queue_init(&queue, &info, BATCH_ROWS, MAX_ROWS);
}

static void end(void)
{
    queue_close(&queue);
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
    return queue_push(&queue, &posted->job, 7, err);
}

static void expect_push(struct posted *posted)
{
    struct error err = ERROR_INIT;
    int result = push(posted, &err);
    ck_assert_msg(result == 0, "%s", err.text);
    ck_assert_uint_eq(posted->job.rows_waiting, posted->job.request.rows);
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

static size_t batches_held(void)
{
    size_t count = queue.spare_count;
    for (const struct batch *batch = queue.head; batch; batch = batch->next)
        count++;
    return count;
}

START_TEST(rows_wait_in_the_order_of_their_arrival)
{
    struct posted a = job_of(100, 3), b = job_of(200, 1), c = job_of(300, 2);
    expect_push(&a);
    expect_push(&b);
    expect_push(&c);
    ck_assert_uint_eq(queue.rows, 6);
    struct batch *batch = queue_take(&queue);
    ck_assert_uint_eq(batch->rows, 4);
    ck_assert_uint_eq(batch->segment_count, 2);
    expect_segment(batch, 0, 0, &a, 0, 3);
    expect_segment(batch, 1, 3, &b, 0, 1);
    ck_assert_uint_eq(batch->opened_ns, 7);
    ck_assert_uint_eq(queue.rows, 2);
    queue_recycle(&queue, batch);
    batch = queue_take(&queue);
    expect_segment(batch, 0, 0, &c, 0, 2);
    queue_recycle(&queue, batch);
    ck_assert_ptr_null(queue_take(&queue));
    ck_assert_uint_eq(queue.rows, 0);
}
END_TEST

START_TEST(a_job_may_span_batches)
{
    struct posted a = job_of(100, 1), b = job_of(200, 9);
    expect_push(&a);
    expect_push(&b);
    static const size_t first[] = {0, 3, 7}, rows[] = {3, 4, 2};
    for (size_t i = 0; i < 3; i++) {
        struct batch *batch = queue_take(&queue);
        expect_segment(batch, i == 0, i == 0, &b, first[i], rows[i]);
        ck_assert_uint_eq(b.job.rows_running, first[i] + rows[i]);
        ck_assert_uint_eq(b.job.rows_waiting, 9 - first[i] - rows[i]);
        queue_recycle(&queue, batch);
    }
    ck_assert_ptr_null(queue_take(&queue));
}
END_TEST

START_TEST(arrivals_join_the_last_batch_until_it_is_taken)
{
    struct posted a = job_of(100, 1), b = job_of(200, 1);
    expect_push(&a);
    struct batch *first = queue_take(&queue);
    expect_push(&b);
    struct batch *second = queue_take(&queue);
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
    ck_assert_uint_eq(b.job.rows_waiting, 0);
    ck_assert_uint_eq(queue.rows, 4);
    struct batch *batch = queue_take(&queue);
    ck_assert_uint_eq(batch->rows, 1);
    ck_assert_uint_eq(batch->segment_count, 1);
    expect_segment(batch, 0, 0, &a, 0, 1);
    queue_recycle(&queue, batch);
    batch = queue_take(&queue);
    ck_assert_uint_eq(batch->rows, 2);
    expect_segment(batch, 0, 0, &c, 0, 2);
    queue_recycle(&queue, batch);
    batch = queue_take(&queue);
    expect_segment(batch, 0, 0, &c, 2, 1);
    queue_recycle(&queue, batch);
    ck_assert_ptr_null(queue_take(&queue));
    ck_assert_uint_eq(queue.rows, 0);
}
END_TEST

START_TEST(cancelling_every_place_in_a_batch)
{
    for (size_t gone = 0; gone < 3; gone++) {
        struct posted jobs[3] = {job_of(100, 1), job_of(200, 2), job_of(300, 1)};
        for (size_t i = 0; i < 3; i++)
            expect_push(&jobs[i]);
        queue_cancel(&queue, &jobs[gone].job);
        struct batch *batch = queue_take(&queue);
        ck_assert_uint_eq(batch->segment_count, 2);
        size_t row = 0;
        for (size_t i = 0, segment = 0; i < 3; i++)
            if (i != gone) {
                const size_t rows = jobs[i].job.request.rows;
                expect_segment(batch, segment++, row, &jobs[i], 0, rows);
                row += rows;
            }
        ck_assert_uint_eq(batch->rows, row);
        queue_recycle(&queue, batch);
    }
}
END_TEST

START_TEST(room_of_cancelled_rows_is_used_again)
{
    struct posted a = job_of(100, 2), b = job_of(200, 2), c = job_of(300, 2);
    expect_push(&a);
    expect_push(&b);
    queue_cancel(&queue, &a.job);
    expect_push(&c);
    struct batch *batch = queue_take(&queue);
    ck_assert_uint_eq(batch->rows, 4);
    expect_segment(batch, 0, 0, &b, 0, 2);
    expect_segment(batch, 1, 2, &c, 0, 2);
    queue_recycle(&queue, batch);
    ck_assert_ptr_null(queue_take(&queue));
}
END_TEST

/* A client repeatedly sends a request and hangs up while a batch is computed. */
START_TEST(cancelled_jobs_hold_no_memory)
{
    struct posted live = job_of(900, 1);
    expect_push(&live);
    for (int i = 0; i < 50; i++) {
        struct posted a = job_of(100, 11);
        expect_push(&a);
        queue_cancel(&queue, &a.job);
        ck_assert_uint_eq(queue.rows, 1);
        ck_assert_uint_le(batches_held(), 4);
    }
    queue_cancel(&queue, &live.job);
    ck_assert_uint_le(batches_held(), 3);
    ck_assert_ptr_null(queue.head);
    ck_assert_ptr_null(queue_take(&queue));
}
END_TEST

START_TEST(running_rows_cannot_be_cancelled)
{
    struct posted a = job_of(100, 6);
    expect_push(&a);
    struct batch *batch = queue_take(&queue);
    queue_cancel(&queue, &a.job);
    ck_assert_uint_eq(a.job.rows_waiting, 0);
    ck_assert_uint_eq(a.job.rows_running, 4);
    expect_segment(batch, 0, 0, &a, 0, 4);
    queue_recycle(&queue, batch);
    ck_assert_ptr_null(queue_take(&queue));
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
    ck_assert_uint_eq(posted->job.rows_waiting, 0);
    ck_assert_uint_eq(queue.rows, rows);
}

START_TEST(a_failed_push_leaves_an_empty_queue_empty)
{
    for (size_t rows = 1; rows <= 9; rows++) {
        struct posted bad = job_of(100, rows), worse = job_of(100, rows);
        expect_push_fails(&bad, bad.single);
        expect_push_fails(&worse, worse.pair);
        ck_assert_ptr_null(queue.head);
        ck_assert_ptr_null(queue.tail);
    }
    struct posted good = job_of(200, 2);
    expect_push(&good);
    struct batch *batch = queue_take(&queue);
    expect_segment(batch, 0, 0, &good, 0, 2);
    queue_recycle(&queue, batch);
}
END_TEST

START_TEST(a_failed_push_leaves_the_rows_before_it)
{
    for (size_t before = 1; before <= 5; before++)
        for (size_t rows = 1; rows <= 6; rows++) {
            struct posted a = job_of(100, before), bad = job_of(200, rows), c = job_of(300, 1);
            expect_push(&a);
            expect_push_fails(&bad, bad.pair);
            expect_push(&c);
            struct batch *batch = queue_take(&queue);
            expect_segment(batch, 0, 0, &a, 0, before < 4 ? before : 4);
            if (before >= 4) {
                queue_recycle(&queue, batch);
                batch = queue_take(&queue);
            }
            expect_segment(batch, before % 4 > 0, before % 4, &c, 0, 1);
            queue_recycle(&queue, batch);
            ck_assert_ptr_null(queue_take(&queue));
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
    expect_text(err.text, "12 rows wait, 1 more would exceed the limit of 12");
    ck_assert_uint_eq(queue.rows, 12);
    queue_recycle(&queue, queue_take(&queue));
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
    ck_assert_ptr_null(queue.head);
}
END_TEST

START_TEST(buffers_are_used_again_but_not_hoarded)
{
    struct posted jobs[3] = {job_of(100, 4), job_of(200, 4), job_of(300, 4)};
    struct batch *taken[5];
    for (size_t i = 0; i < 3; i++) {
        expect_push(&jobs[i]);
        taken[i] = queue_take(&queue);
    }
    struct posted more[2] = {job_of(400, 4), job_of(500, 4)};
    for (size_t i = 0; i < 2; i++) {
        expect_push(&more[i]);
        taken[3 + i] = queue_take(&queue);
    }
    for (size_t i = 0; i < 5; i++)
        queue_recycle(&queue, taken[i]);
    ck_assert_uint_eq(queue.spare_count, 3);
    struct posted again = job_of(600, 1);
    expect_push(&again);
    ck_assert_uint_eq(queue.spare_count, 2);
    struct batch *batch = queue_take(&queue);
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

TEST_MAIN_WITH("queue", begin, end, rows_wait_in_the_order_of_their_arrival, a_job_may_span_batches,
               arrivals_join_the_last_batch_until_it_is_taken, cancelled_rows_leave_no_gap,
               cancelling_every_place_in_a_batch, room_of_cancelled_rows_is_used_again,
               cancelled_jobs_hold_no_memory, running_rows_cannot_be_cancelled,
               a_failed_push_leaves_an_empty_queue_empty, a_failed_push_leaves_the_rows_before_it,
               a_full_queue_refuses_at_once, a_job_larger_than_the_queue_is_refused,
               buffers_are_used_again_but_not_hoarded, what_waits_at_the_end_is_freed)
