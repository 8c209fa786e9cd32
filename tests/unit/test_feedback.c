/* Answers are remembered within a bound, and given back once. */
#include "server/statistics/feedback.h"
#include "support.h"

static const uint32_t items_per_row[] = {1, 2};

/* Two gates; row r has scores r, r + 1 and first choices r and 10 + r, 20 + r. */
static void remember(struct feedback *feedback, const char *id, size_t rows, int32_t base)
{
    float *scores = xcalloc(rows * 2, sizeof *scores);
    int32_t *one = xcalloc(rows, sizeof *one), *two = xcalloc(2 * rows, sizeof *two);
    for (size_t row = 0; row < rows; row++) {
        scores[2 * row] = (float)base + (float)row;
        scores[2 * row + 1] = scores[2 * row] + 1;
        one[row] = base + (int32_t)row;
        two[2 * row] = 10 + one[row];
        two[2 * row + 1] = 20 + one[row];
    }
    const int32_t *const first[] = {one, two};
    const struct answered_rows answered = {rows, 2, scores, items_per_row, first};
    feedback_remember(feedback, id, 3, &answered, 2);
    free(scores);
    free(one);
    free(two);
}

static struct remembered *take(struct feedback *feedback, const char *id, size_t rows)
{
    size_t has;
    return feedback_take(feedback, id, rows, &has);
}

START_TEST(a_wrong_number_of_labels_leaves_it)
{
    struct feedback feedback;
    feedback_init(&feedback);
    size_t has;
    remember(&feedback, "a", 2, 5);
    ck_assert_ptr_null(feedback_take(&feedback, "a", 3, &has));
    ck_assert_uint_eq(has, 2);
    ck_assert_uint_eq(feedback_lost(&feedback), 0);
    struct remembered *answer = feedback_take(&feedback, "a", 2, &has);
    ck_assert_ptr_nonnull(answer);
    free(answer);
    feedback_close(&feedback);
}
END_TEST

START_TEST(an_answer_comes_back_once)
{
    struct feedback feedback;
    feedback_init(&feedback);
    ck_assert_ptr_null(take(&feedback, "a", 2));
    remember(&feedback, "a", 2, 5);
    remember(&feedback, "b", 1, 8);
    struct remembered *answer = take(&feedback, "a", 2);
    ck_assert_str_eq(answer->id, "a");
    ck_assert_uint_eq(answer->tag, 3);
    ck_assert_uint_eq(answer->rows.rows, 2);
    expect_close(answer->rows.scores, FLOATS(5, 6, 6, 7), 4);
    ck_assert_int_eq(answer->rows.first[0][1], 6);
    ck_assert_int_eq(answer->rows.first[1][3], 26);
    ck_assert_uint_eq(answer->rows.items_per_row[1], 2);
    free(answer);
    ck_assert_ptr_null(take(&feedback, "a", 2));
    ck_assert_uint_eq(feedback_lost(&feedback), 2);
    feedback_close(&feedback);
}
END_TEST

START_TEST(the_newest_of_an_id_counts)
{
    struct feedback feedback;
    feedback_init(&feedback);
    remember(&feedback, "a", 1, 1);
    remember(&feedback, "a", 1, 2);
    struct remembered *answer = take(&feedback, "a", 1);
    ck_assert_int_eq(answer->rows.first[0][0], 2);
    free(answer);
    feedback_close(&feedback);
}
END_TEST

START_TEST(the_oldest_are_forgotten)
{
    struct feedback feedback;
    feedback_init(&feedback);
    char id[16];
    for (int i = 0; i < 100000; i++) {
        snprintf(id, sizeof id, "%d", i);
        remember(&feedback, id, 1 + (size_t)i % 7, i);
        ck_assert_uint_le(feedback.bytes, FEEDBACK_MAX_BYTES);
    }
    ck_assert_uint_gt(feedback.bytes, FEEDBACK_MAX_BYTES / 2);
    ck_assert_ptr_null(take(&feedback, "0", 1));
    struct remembered *answer = take(&feedback, "99000", 7);
    ck_assert_int_eq(answer->rows.first[0][0], 99000);
    free(answer);
    remember(&feedback, "large", FEEDBACK_MAX_BYTES / 4, 0); /* more than all may take */
    ck_assert_ptr_null(take(&feedback, "large", FEEDBACK_MAX_BYTES / 4));
    answer = take(&feedback, "99999", 5); /* and nothing had to go for it */
    ck_assert_ptr_nonnull(answer);
    free(answer);
    feedback_close(&feedback);
}
END_TEST

TEST_MAIN("feedback", a_wrong_number_of_labels_leaves_it, an_answer_comes_back_once,
          the_newest_of_an_id_counts, the_oldest_are_forgotten)
