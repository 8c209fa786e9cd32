/* What is found in a routing document, and what is not: each kind once on either side of chance. */
#include <math.h>
#include <string.h>

#include "clients/c/moectl/report.h"
#include "support.h"

/* A layer of `experts` experts with these selections; `more` are further members of it. */
static struct document *document_of(unsigned long long rows, size_t top_k, size_t experts,
                                    const unsigned long long *selected, const char *more)
{
    char text[4096];
    int used = snprintf(text, sizeof text,
                        "{\"model\": \"m\", \"version\": \"1\", \"layers\": [{\"name\": \"moe\", "
                        "\"rows\": %llu, \"top_k\": %zu%s, \"experts\": [",
                        rows, top_k, more);
    for (size_t i = 0; i < experts; i++)
        used += snprintf(text + used, sizeof text - (size_t)used,
                         "%s{\"index\": %zu, \"selected\": %llu}", i ? ", " : "", i, selected[i]);
    snprintf(text + used, sizeof text - (size_t)used, "]}]}");
    struct moed_client_error err = {0};
    struct document *document = document_read(text, strlen(text), "test", &err);
    ck_assert_msg(document != NULL, "%s", err.text);
    return document;
}

/* The first finding of that kind; NULL: none. */
static json_t *found(json_t *findings, const char *kind)
{
    size_t i;
    json_t *finding;
    json_array_foreach(findings, i, finding)
    {
        if (strcmp(json_string_value(json_object_get(finding, "kind")), kind) == 0)
            return finding;
    }
    return NULL;
}

static json_t *report_of(struct document *now, struct document *before, uint64_t cache)
{
    struct moed_client_error err = {0};
    json_t *findings = report_make(now, before, cache, &err);
    ck_assert_msg(findings != NULL, "%s", err.text);
    document_free(now);
    document_free(before);
    return findings;
}

#define SELECTED(...)                                                                              \
    (const unsigned long long[])                                                                   \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

START_TEST(an_even_layer_is_quiet)
{
    json_t *findings =
        report_of(document_of(1000, 1, 4, SELECTED(260, 240, 255, 245), ""), NULL, 0);
    for (size_t i = 0; i < json_array_size(findings); i++)
        ck_assert_str_eq(json_string_value(json_object_get(json_array_get(findings, i), "kind")),
                         "cache");
    json_decref(findings);
}
END_TEST

START_TEST(hot_and_unused_want_more_than_chance)
{
    json_t *findings = report_of(document_of(1000, 1, 4, SELECTED(600, 200, 200, 0), ""), NULL, 0);
    ck_assert_int_eq(json_integer_value(json_object_get(found(findings, "hot"), "expert")), 0);
    ck_assert_int_eq(json_integer_value(json_object_get(found(findings, "unused"), "expert")), 3);
    json_decref(findings);
    findings = report_of(document_of(5, 1, 4, SELECTED(3, 1, 1, 0), ""), NULL, 0);
    ck_assert_ptr_null(found(findings, "hot"));
    ck_assert_ptr_null(found(findings, "unused"));
    ck_assert_ptr_nonnull(found(findings, "unseen"));
    json_decref(findings);
}
END_TEST

START_TEST(a_gate_collapses_or_cannot_decide)
{
    json_t *findings = report_of(
        document_of(1000, 1, 4, SELECTED(1000, 0, 0, 0), ", \"gate_entropy_bits\": 0.1"), NULL, 0);
    ck_assert_ptr_nonnull(found(findings, "collapsed"));
    ck_assert_ptr_null(found(findings, "undecided"));
    json_decref(findings);
    findings = report_of(
        document_of(1000, 1, 4, SELECTED(250, 250, 250, 250), ", \"gate_entropy_bits\": 1.95"),
        NULL, 0);
    ck_assert_ptr_null(found(findings, "collapsed"));
    ck_assert_ptr_nonnull(found(findings, "undecided"));
    json_decref(findings);
}
END_TEST

START_TEST(overflowed_rows_are_told)
{
    json_t *findings = report_of(
        document_of(1000, 1, 4, SELECTED(250, 250, 250, 250), ", \"overflowed\": 3"), NULL, 0);
    ck_assert(json_number_value(json_object_get(found(findings, "overflowed"), "rows")) == 3);
    json_decref(findings);
}
END_TEST

/* Selections are even, the weight is not, and the reference knows nothing of it. */
START_TEST(one_expert_has_the_weight)
{
    static const char DOCUMENT[] =
        "{\"model\": \"m\", \"version\": \"1\", \"layers\": [{\"name\": \"moe\", \"rows\": 100, "
        "\"top_k\": 2, \"drift\": {\"reference\": {\"js_bits\": %s, \"psi\": 2, \"p_value\": %s}}, "
        "\"experts\": [{\"index\": 0, \"selected\": 70, \"weight\": 10}, {\"index\": 1, "
        "\"selected\": 70, \"weight\": %s}, {\"index\": 2, \"selected\": 60, \"weight\": 5}]}]}";
    static const char *const CASES[][3] = {
        {"0.2", "0", "85"}, {"0.2", "0", "55"}, {"0.05", "0", "85"}, {"0.2", "0.5", "85"}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char text[1024];
        struct moed_client_error err = {0};
        snprintf(text, sizeof text, DOCUMENT, CASES[i][0], CASES[i][1], CASES[i][2]);
        struct document *document = document_read(text, strlen(text), "test", &err);
        ck_assert_msg(document != NULL, "%s", err.text);
        json_t *findings = report_of(document, NULL, 0);
        ck_assert_ptr_null(found(findings, "collapsed"));
        ck_assert_int_eq(found(findings, "alone") != NULL, i == 0);
        json_decref(findings);
    }
}
END_TEST

/* Two rows are always of one or two experts. */
START_TEST(few_rows_say_nothing_of_a_gate)
{
    json_t *findings = report_of(
        document_of(2, 1, 4, SELECTED(2, 0, 0, 0), ", \"gate_entropy_bits\": 1.95"), NULL, 0);
    ck_assert_ptr_null(found(findings, "collapsed"));
    ck_assert_ptr_null(found(findings, "undecided"));
    json_decref(findings);
    findings = report_of(document_of(8, 1, 4, SELECTED(8, 0, 0, 0), ""), NULL, 0);
    ck_assert_ptr_nonnull(found(findings, "collapsed"));
    json_decref(findings);
}
END_TEST

START_TEST(redundant_experts_go_together)
{
    static const char PAIRS[] = ", \"pairs\": [[0, 1, 198], [2, 3, 60], [0, 9, 1]]";
    json_t *findings =
        report_of(document_of(1000, 2, 5, SELECTED(200, 210, 400, 390, 800), PAIRS), NULL, 0);
    json_t *finding = found(findings, "redundant");
    ck_assert_int_eq(json_integer_value(json_array_get(json_object_get(finding, "experts"), 1)), 1);
    json_decref(findings);
}
END_TEST

/* Pairs of all rows, selections of the last minute: who went together then is not known, unless
 * there are ranks, which count as pairs do. */
START_TEST(pairs_are_not_compared_with_a_window)
{
    static const char HEAD[] = "{\"model\": \"m\", \"version\": \"1\", \"window\": \"1m\", "
                               "\"layers\": [{\"name\": \"moe\", \"rows\": 10, \"top_k\": 2";
    static const char TAIL[] = ", \"experts\": [{\"index\": 0, \"selected\": 5}, {\"index\": 1, "
                               "\"selected\": 5}, {\"index\": 2, \"selected\": 10}], \"pairs\": "
                               "[[0, 1, 50], [0, 2, 450], [1, 2, 500]]";
    static const char *const RANKS[] = {"", ", \"ranks\": [[50, 450], [50, 500], [900, 50]]",
                                        ", \"ranks\": [[30, 22], [25, 25], [945, 953]]"};
    for (size_t i = 0; i < 3; i++) {
        char text[1024];
        struct moed_client_error err = {0};
        snprintf(text, sizeof text, "%s%s%s}]}", HEAD, TAIL, RANKS[i]);
        struct document *document = document_read(text, strlen(text), "test", &err);
        ck_assert_msg(document != NULL, "%s", err.text);
        json_t *findings = report_of(document, NULL, 0), *finding = found(findings, "redundant");
        ck_assert_int_eq(finding != NULL, i == 2);
        if (finding)
            ck_assert(fabs(json_number_value(json_object_get(finding, "lift")) -
                           50 * 1000 / (52.0 * 50)) < 1e-9);
        json_decref(findings);
    }
}
END_TEST

START_TEST(dying_experts_and_recorded_drift_are_passed_on)
{
    json_t *findings = report_of(
        document_of(1000, 1, 4, SELECTED(250, 250, 250, 250),
                    ", \"dying\": [2], \"drift\": {\"reference\": {\"js_bits\": 0.1, \"psi\": 0.5, "
                    "\"p_value\": 0.0}, \"previous\": {\"js_bits\": 0.1, \"psi\": 0.5, "
                    "\"p_value\": 0.2}}"),
        NULL, 0);
    ck_assert_int_eq(json_integer_value(json_object_get(found(findings, "dying"), "expert")), 2);
    ck_assert_ptr_nonnull(strstr(
        json_string_value(json_object_get(found(findings, "drift"), "text")), "the reference"));
    json_decref(findings);
}
END_TEST

static bool collapsed(const char *more)
{
    json_t *findings = report_of(document_of(1000, 1, 4, SELECTED(1000, 0, 0, 0), more), NULL, 0),
           *finding;
    bool is = false;
    size_t i;
    json_array_foreach(findings, i, finding)
    {
        is |= strcmp(json_string_value(json_object_get(finding, "kind")), "collapsed") == 0;
    }
    json_decref(findings);
    return is;
}

START_TEST(who_is_left_has_not_collapsed)
{
    ck_assert(collapsed(""));
    ck_assert(collapsed(", \"quarantine\": [{\"expert\": 2}]"));
    ck_assert(!collapsed(", \"quarantine\": [{\"expert\": 2}, {\"expert\": 1}, {\"expert\": 3}]"));
}
END_TEST

START_TEST(who_is_in_quarantine_is_not_unused)
{
    json_t *findings =
        report_of(document_of(1000, 1, 4, SELECTED(400, 600, 0, 0),
                              ", \"quarantine\": [{\"expert\": 2, \"reason\": \"NaN\"}]"),
                  NULL, 0);
    ck_assert_int_eq(json_integer_value(json_object_get(found(findings, "unused"), "expert")), 3);
    json_decref(findings);
}
END_TEST

START_TEST(who_is_in_quarantine_is_not_dying)
{
    json_t *findings = report_of(
        document_of(1000, 1, 4, SELECTED(250, 250, 250, 250),
                    ", \"dying\": [2, 3], \"quarantine\": [{\"expert\": 2, \"reason\": \"NaN\"}]"),
        NULL, 0);
    ck_assert_int_eq(json_integer_value(json_object_get(found(findings, "dying"), "expert")), 3);
    ck_assert_str_eq(json_string_value(json_object_get(found(findings, "quarantine"), "text")),
                     "expert 2 is in quarantine: NaN");
    json_decref(findings);
}
END_TEST

START_TEST(a_cache_holds_the_most_used)
{
    static const char CACHE[] =
        ", \"cache\": [{\"size\": 2, \"lru\": 0.5, \"lfu\": 0.6, \"belady\": 0.7}]";
    json_t *findings =
        report_of(document_of(1000, 1, 5, SELECTED(100, 400, 200, 250, 50), CACHE), NULL, 3);
    static const double FIXED[] = {0.4, 0.65, 0.85, 0.95}; /* 1, 2, 3 as asked, 4 */
    size_t at = 0;
    for (size_t i = 0; i < json_array_size(findings); i++) {
        json_t *finding = json_array_get(findings, i);
        if (!json_object_get(finding, "fixed"))
            continue;
        ck_assert(fabs(json_number_value(json_object_get(finding, "fixed")) - FIXED[at]) < 1e-12);
        ck_assert((strstr(json_string_value(json_object_get(finding, "text")), "LRU 50.0 %") !=
                   NULL) == (at == 1));
        at++;
    }
    ck_assert_uint_eq(at, 4);
    json_decref(findings);
}
END_TEST

START_TEST(what_moved_is_told_apart_from_chance)
{
    json_t *findings = report_of(document_of(1000, 1, 3, SELECTED(600, 200, 200), ""),
                                 document_of(1000, 1, 3, SELECTED(200, 200, 600), ""), 0);
    ck_assert_ptr_nonnull(found(findings, "drift"));
    ck_assert_ptr_nonnull(found(findings, "change"));
    json_decref(findings);
    findings = report_of(document_of(10, 1, 3, SELECTED(5, 3, 2), ""),
                         document_of(10, 1, 3, SELECTED(3, 3, 4), ""), 0);
    ck_assert_ptr_null(found(findings, "drift"));
    ck_assert_ptr_nonnull(found(findings, "stable"));
    json_decref(findings);
}
END_TEST

START_TEST(documents_of_different_models_are_refused)
{
    struct moed_client_error err = {0};
    struct document *a = document_of(1, 1, 2, SELECTED(1, 0), "");
    struct document *b = document_of(1, 1, 3, SELECTED(1, 0, 0), "");
    ck_assert_ptr_null(report_make(a, b, 0, &err));
    ck_assert_msg(strstr(err.text, "layer 'moe' of one document, 1 of 3 experts") != NULL, "%s",
                  err.text);
    free(b->model);
    b->model = strdup("other");
    err = (struct moed_client_error){0};
    ck_assert_ptr_null(report_make(a, b, 0, &err));
    ck_assert_msg(strstr(err.text, "is of model 'other'") != NULL, "%s", err.text);
    document_free(a);
    document_free(b);
}
END_TEST

TEST_MAIN("moectl report", an_even_layer_is_quiet, hot_and_unused_want_more_than_chance,
          a_gate_collapses_or_cannot_decide, overflowed_rows_are_told,
          few_rows_say_nothing_of_a_gate, one_expert_has_the_weight, redundant_experts_go_together,
          pairs_are_not_compared_with_a_window, dying_experts_and_recorded_drift_are_passed_on,
          who_is_left_has_not_collapsed, who_is_in_quarantine_is_not_unused,
          who_is_in_quarantine_is_not_dying, a_cache_holds_the_most_used,
          what_moved_is_told_apart_from_chance, documents_of_different_models_are_refused)
