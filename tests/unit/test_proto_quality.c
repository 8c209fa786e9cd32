/* routing_quality and annotation: what answers are worth, and the labels that say so. */
#include <math.h>

#include "proto/annotation.h"
#include "proto/routing_quality.h"
#include "test_proto_support.h"

static void check_near(double value, double expected)
{
    ck_assert_msg(fabs(value - expected) < 1e-9, "%.17g, expected %.17g", value, expected);
}

START_TEST(probabilities_are_taken_as_they_are)
{
    const struct routing_verdict verdict =
        routing_judge((const float[]){0.25f, 0.625f, 0.125f}, 3, 0);
    ck_assert_uint_eq(verdict.predicted, 1);
    ck_assert(!verdict.correct);
    check_near(verdict.confidence, 0.625);
    check_near(verdict.log_loss, -log(0.25));
    ck_assert(routing_judge((const float[]){0.25f, 0.625f, 0.125f}, 3, 1).correct);
    check_near(routing_judge((const float[]){1, 0}, 2, 1).log_loss, -log(1e-15));
}
END_TEST

START_TEST(logits_become_probabilities)
{
    const struct routing_verdict verdict =
        routing_judge((const float[]){(float)M_LN2, 0, 0}, 3, 2); /* 1/2, 1/4, 1/4 */
    check_near(round(verdict.confidence * 1e6) / 1e6, 0.5);
    ck_assert_double_eq_tol(verdict.log_loss, log(4), 1e-6);
    ck_assert_double_eq_tol(routing_judge((const float[]){1000, 0}, 2, 0).log_loss, 0, 1e-12);
}
END_TEST

START_TEST(what_is_not_finite_poisons_nothing)
{
    const float scores[][3] = {
        {NAN, 1, 2},     {INFINITY, 1, 0},    {-INFINITY, -INFINITY, -INFINITY},
        {NAN, NAN, NAN}, {1, NAN, -INFINITY}, {INFINITY, INFINITY, NAN}};
    struct routing_quality quality = {0};
    for (size_t i = 0; i < sizeof scores / sizeof *scores; i++)
        for (size_t truth = 0; truth < 3; truth++) {
            const struct routing_verdict verdict = routing_judge(scores[i], 3, truth);
            ck_assert(verdict.log_loss >= 0 && verdict.log_loss <= -log(1e-15) + 1e-9);
            ck_assert(verdict.confidence >= 0 && verdict.confidence <= 1);
            routing_quality_count(&quality, &verdict);
        }
    ck_assert_uint_eq(routing_quality_figures(&quality).labelled, 18);
    ck_assert_uint_eq(routing_predicted(scores[0], 3), 2);
}
END_TEST

/* Two of three right at a confidence of 0.75, one of one at 1. */
START_TEST(figures_by_hand)
{
    struct routing_quality quality = {0}, half = {0};
    const struct routing_verdict verdicts[] = {
        {0, true, 0.75, 0.25}, {0, true, 0.75, 0.25}, {0, false, 0.75, 1.5}, {0, true, 1, 0}};
    for (size_t i = 0; i < 4; i++)
        routing_quality_count(i < 2 ? &half : &quality, &verdicts[i]);
    routing_quality_add(&quality, &half, 1);
    const struct quality_figures figures = routing_quality_figures(&quality);
    ck_assert_uint_eq(figures.labelled, 4);
    ck_assert_uint_eq(figures.correct, 3);
    check_near(figures.accuracy, 0.75);
    check_near(figures.log_loss, 0.5);
    check_near(figures.ece, (3 * (0.75 - 2.0 / 3) + 0) / 4);
    routing_quality_add(&quality, &half, -1);
    ck_assert_uint_eq(routing_quality_figures(&quality).labelled, 2);
    check_near(routing_quality_figures(&quality).log_loss, 0.75);
    check_near(routing_quality_figures(&(struct routing_quality){0}).accuracy, 0);
}
END_TEST

/* ---- feedback ---- */

static const char *const names[] = {"red", "green", "blue"};
static const size_t three[] = {3};
static const struct signature_tensor outputs[] = {
    {.name = "hidden", .rank = 2, .dims = (const size_t[]){2, 2}, .elements = 4},
    {.name = "color", .rank = 1, .dims = three, .elements = 3, .label_count = 3, .labels = names}};
static const struct signature colors = {.model = "colors", .output_count = 2, .outputs = outputs};

static int decode(const char *body, struct feedback_request *request, struct error *err)
{
    struct guarded copy = guarded_text(body);
    *err = (struct error)ERROR_INIT;
    const int result = feedback_request_decode(&colors, copy.text, copy.length, request, err);
    guarded_free(&copy);
    return result;
}

START_TEST(labels_are_indices_or_names)
{
    struct feedback_request request;
    struct error err;
    ck_assert_int_eq(annotation_class_output(&colors), 1);
    ck_assert_int_eq(decode("{\"id\":\"a\",\"labels\":[2,0]}", &request, &err), 0);
    ck_assert_str_eq(request.id, "a");
    ck_assert_mem_eq(request.labels, ((const int32_t[]){2, 0}), 2 * sizeof(int32_t));
    feedback_request_close(&request);
    ck_assert_int_eq(decode("{\"labels\":[null,\"blue\",1],\"id\":\"\"}", &request, &err), 0);
    ck_assert_uint_eq(request.rows, 3);
    ck_assert_mem_eq(request.labels, ((const int32_t[]){-1, 2, 1}), 3 * sizeof(int32_t));
    feedback_request_close(&request);
    ck_assert_int_eq(decode("{\"id\":\"a\",\"labels\":[]}", &request, &err), 0);
    feedback_request_close(&request);
}
END_TEST

START_TEST(wrong_feedback_is_refused)
{
    static const struct {
        const char *body, *message;
    } cases[] = {
        {"", "the body is empty"},
        {"[1]", "expected a JSON object"},
        {"{\"labels\":[1]}", "'id' is missing"},
        {"{\"id\":\"a\"}", "'labels' is missing"},
        {"{\"id\":7,\"labels\":[1]}", "'id' is a number, expected a string"},
        {"{\"id\":\"a\",\"labels\":1}", "'labels' is a number, expected a list"},
        {"{\"id\":\"a\",\"labels\":[3]}", "labels[0] is not a class of output 'color'"},
        {"{\"id\":\"a\",\"labels\":[1,-1]}", "labels[1] is not a class"},
        {"{\"id\":\"a\",\"labels\":[0.5]}", "labels[0] is not a class"},
        {"{\"id\":\"a\",\"labels\":[1e300]}", "labels[0] is not a class"},
        {"{\"id\":\"a\",\"labels\":[[1]]}", "labels[0] is not a class"},
        {"{\"id\":\"a\",\"labels\":[\"pink\"]}", "labels[0] is 'pink', which is not a label"},
        {"{\"id\":\"a\",\"labels\":[1,x]}", "malformed JSON"},
        {"{\"id\":\"a\",\"labels\":[1],\"more\":[1,x]}", "malformed JSON"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct feedback_request request;
        struct error err;
        ck_assert_msg(decode(cases[i].body, &request, &err) == -1, "%s", cases[i].body);
        ck_assert_msg(strstr(err.text, cases[i].message) != NULL, "%s: %s", cases[i].body,
                      err.text);
        ck_assert_ptr_null(request.id);
        ck_assert_ptr_null(request.labels);
    }
}
END_TEST

START_TEST(a_model_without_classes_takes_no_labels)
{
    struct feedback_request request;
    struct error err = ERROR_INIT;
    const struct signature plain = {.model = "plain", .output_count = 1, .outputs = outputs};
    const char body[] = "{\"id\":\"a\",\"labels\":[1]}";
    ck_assert_int_eq(feedback_request_decode(&plain, body, strlen(body), &request, &err), -1);
    ck_assert_msg(strstr(err.text, "has no output of one number for each") != NULL, "%s", err.text);
}
END_TEST

RUN_TESTS("proto/quality", probabilities_are_taken_as_they_are, logits_become_probabilities,
          what_is_not_finite_poisons_nothing, figures_by_hand, labels_are_indices_or_names,
          wrong_feedback_is_refused, a_model_without_classes_takes_no_labels)
