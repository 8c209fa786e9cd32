/* envelope: what is cut, what is not, and the positions of errors. */
#include "core/memory.h"
#include "proto/envelope.h"
#include "test_proto_support.h"

/* Opens an envelope over a guarded copy of `text`. */
static int open_envelope(struct envelope *envelope, struct guarded *copy, const char *text,
                         struct error *err)
{
    *copy = guarded_text(text);
    return envelope_init(envelope, copy->text, copy->length, err);
}

static void close_envelope(struct envelope *envelope, struct guarded *copy)
{
    envelope_close(envelope);
    guarded_free(copy);
}

/* The literals that are cut from `text`, joined by spaces. */
static void check_cut(const char *text, const char *expected)
{
    struct envelope envelope;
    struct guarded copy;
    struct error err = ERROR_INIT;
    ck_assert_msg(open_envelope(&envelope, &copy, text, &err) == 0, "%s: %s", text, err.text);
    char joined[256] = "";
    for (size_t i = 0; i < envelope.literal_count; i++) {
        size_t used = strlen(joined);
        snprintf(joined + used, sizeof joined - used, "%s%.*s", i > 0 ? " " : "",
                 (int)envelope.literals[i].length, envelope.literals[i].text);
    }
    ck_assert_str_eq(joined, expected);
    close_envelope(&envelope, &copy);
}

static void check_error(const char *text, const char *expected)
{
    struct envelope envelope;
    struct guarded copy;
    struct error err = ERROR_INIT;
    int result = open_envelope(&envelope, &copy, text, &err);
    if (result == 0) {
        result = envelope_check_rest(&envelope, &err);
        envelope_close(&envelope);
    }
    ck_assert_msg(result == -1, "%s was accepted", text);
    ck_assert_msg(strstr(err.text, expected) != NULL, "%s: \"%s\" lacks \"%s\"", text, err.text,
                  expected);
    guarded_free(&copy);
}

START_TEST(cuts_lists_that_begin_with_a_value)
{
    check_cut("{\"a\": [\"1\"], \"b\": [[null, 1]]}", "[\"1\"] [[null, 1]]");
    check_cut("{}", "");
    check_cut("{\"a\": [1, 2]}", "[1, 2]");
    check_cut("{\"a\": [-1], \"b\": [[0, 1], [2]]}", "[-1] [[0, 1], [2]]");
    check_cut("{\"a\": [ \t\r\n [ [ 5 ] ] ]}", "[ \t\r\n [ [ 5 ] ] ]");
    check_cut("{\"a\": {\"b\": [{\"c\": [1]}, {\"c\": [2]}]}}", "[1] [2]");
    check_cut("{\"a\": [1, \"x\", [true], {\"b\": null}]}", "[1, \"x\", [true], {\"b\": null}]");
}
END_TEST

START_TEST(leaves_everything_else)
{
    check_cut("{\"a\": [], \"b\": [[]], \"d\": [true], \"f\": 12}", "");
    check_cut("{\"a\": [[], [7]]}", "[7]");
    check_cut("{\"a\": [{\"b\": 1}]}", "");
}
END_TEST

START_TEST(cuts_rows_of_objects)
{
    static const struct {
        const char *text;
        size_t literals, entries;
    } cases[] = {
        {"{\"rows\" : [ {\"a\": [1, 2]}, {\"a\": 3}]}", 1, 2},
        {"{\"b\": 1, \"rows\":[{}]}", 1, 1},
        {"{\"rows\": [[{}]], \"arows\": [{}], \"x\": {\"rows\": [{}]}}", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct envelope envelope;
        struct guarded copy = guarded_text(cases[i].text);
        struct error err = ERROR_INIT;
        ck_assert_msg(envelope_init_with_rows(&envelope, copy.text, copy.length, "rows", &err) == 0,
                      "%s", err.text);
        ck_assert_uint_eq(envelope.literal_count, cases[i].literals);
        if (cases[i].literals)
            ck_assert_uint_eq(envelope.literals[0].entries, cases[i].entries);
        close_envelope(&envelope, &copy);
    }
}
END_TEST

START_TEST(brackets_in_strings_mean_nothing)
{
    check_cut("{\"[1]\": \"[2]\", \"a\": [3, \"]\", 4]}", "[3, \"]\", 4]");
    check_cut("{\"a\\\"[1\": [5]}", "[5]");
    check_cut("{\"a\": [1, \"\\\\\", \"\\\"]\"], \"b\": [2]}", "[1, \"\\\\\", \"\\\"]\"] [2]");
}
END_TEST

START_TEST(long_literals_are_cut_whole)
{
    /* Windows have 64 bytes: brackets and quotes at every place in one. */
    char text[400];
    for (int shift = 0; shift < 70; shift++) {
        int used = snprintf(text, sizeof text, "{\"a\":[%*s[0", shift, "");
        for (int i = 1; i < 30; i++)
            used += snprintf(text + used, sizeof text - (size_t)used, ",%d", i);
        snprintf(text + used, sizeof text - (size_t)used, "],[1,\"]\",2],3],\"b\":[4]}");
        struct envelope envelope;
        struct guarded copy;
        struct error err = ERROR_INIT;
        ck_assert_int_eq(open_envelope(&envelope, &copy, text, &err), 0);
        ck_assert_uint_eq(envelope.literal_count, 2);
        ck_assert_uint_eq(envelope.literals[0].entries, 3);
        ck_assert_uint_eq(envelope.literals[0].length, strlen(text) - strlen("{\"a\":,\"b\":[4]}"));
        close_envelope(&envelope, &copy);
    }
}
END_TEST

/* A quote with no bracket near it, and a bracket deep inside its string. */
START_TEST(long_strings_in_literals_are_skipped)
{
    char text[200];
    for (int shift = 0; shift < 70; shift++) {
        snprintf(text, sizeof text, "{\"a\":[1,%*s\"%050d],[\",2]}", shift, "", 0);
        struct envelope envelope;
        struct guarded copy;
        struct error err = ERROR_INIT;
        ck_assert_msg(open_envelope(&envelope, &copy, text, &err) == 0, "%s", err.text);
        ck_assert_uint_eq(envelope.literals[0].entries, 3);
        ck_assert_int_eq(envelope_check_rest(&envelope, &err), 0);
        close_envelope(&envelope, &copy);
    }
}
END_TEST

START_TEST(counts_outermost_entries)
{
    const struct {
        const char *text;
        size_t entries;
    } cases[] = {
        {"{\"a\": [1]}", 1},
        {"{\"a\": [1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20]}", 20},
        {"{\"a\": [[1,2,3],[4,5,6]]}", 2},
        {"{\"a\": [[[1,2],[3]],[[4],[5]],[[6],[7]]]}", 3},
        {"{\"a\": [1, [2,3], \",\", {\"b\": [1,2], \"c\": 1}]}", 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct envelope envelope;
        struct guarded copy;
        ck_assert_int_eq(open_envelope(&envelope, &copy, cases[i].text, NULL), 0);
        const struct envelope_literal *literal = &envelope.literals[0];
        ck_assert_uint_eq(literal->entries, cases[i].entries);
        ck_assert_uint_eq(envelope_list_entries(literal->text, literal->text + literal->length),
                          cases[i].entries);
        close_envelope(&envelope, &copy);
    }
    ck_assert_uint_eq(envelope_list_entries("[]", (const char *)"[]" + 2), 0);
    const char *spaced = "[ \n ], 1";
    ck_assert_uint_eq(envelope_list_entries(spaced, spaced + 8), 0);
}
END_TEST

START_TEST(claims_what_stands_for_a_literal)
{
    struct envelope envelope;
    struct guarded copy;
    ck_assert_int_eq(open_envelope(&envelope, &copy,
                                   "{\"a\": [1], \"b\": [[2]], \"c\": [], \"d\": 0, \"e\": [true]}",
                                   NULL),
                     0);
    const struct envelope_literal *a =
        envelope_claim(&envelope, json_object_get(envelope.root, "a"));
    const struct envelope_literal *b =
        envelope_claim(&envelope, json_object_get(envelope.root, "b"));
    ck_assert_ptr_eq(a, &envelope.literals[0]);
    ck_assert_ptr_eq(b, &envelope.literals[1]);
    ck_assert_ptr_null(envelope_claim(&envelope, json_object_get(envelope.root, "c")));
    ck_assert_ptr_null(envelope_claim(&envelope, json_object_get(envelope.root, "d")));
    ck_assert_ptr_null(envelope_claim(&envelope, json_object_get(envelope.root, "e")));
    ck_assert_ptr_null(envelope_claim(&envelope, NULL));
    close_envelope(&envelope, &copy);
}
END_TEST

/* If a client itself writes "[0]", it is cut like any list and stands for nothing else. */
START_TEST(stand_ins_cannot_be_forged)
{
    struct envelope envelope;
    struct guarded copy;
    ck_assert_int_eq(
        open_envelope(&envelope, &copy, "{\"a\": [7, 8], \"b\": [0], \"c\": [1e2]}", NULL), 0);
    const struct envelope_literal *b =
        envelope_claim(&envelope, json_object_get(envelope.root, "b"));
    ck_assert_mem_eq(b->text, "[0]", 3);
    const struct envelope_literal *c =
        envelope_claim(&envelope, json_object_get(envelope.root, "c"));
    ck_assert_mem_eq(c->text, "[1e2]", 5);
    close_envelope(&envelope, &copy);
}
END_TEST

START_TEST(refuses_malformed_json)
{
    check_error("", "the body is empty");
    check_error("[1, 2]", "expected a JSON object");
    check_error("[]", "expected a JSON object");
    check_error("7", "malformed JSON at byte 0 (line 1, column 1)");
    check_error("{", "malformed JSON at byte 1 (line 1, column 2)");
    check_error("{\"a\": 1,}", "malformed JSON at byte 8 (line 1, column 9)");
    check_error("{\"a\": [1, 2}", "malformed JSON at byte 11 (line 1, column 12)");
    check_error("{\"a\": [\"x\"}", "malformed JSON at byte 10");
    check_error("{\"a\": 1}}", "malformed JSON at byte 8 (line 1, column 9): this bracket closes");
    check_error("{\"a\": 1} x", "malformed JSON at byte 9");
    check_error("{\"a\": [1, 2",
                "malformed JSON at byte 6 (line 1, column 7): the body ends inside");
    check_error("{\"a\": [1, \"x]}", "the body ends inside");
    check_error("{\"a\": \"x\\", "malformed JSON at byte");
    check_error("{\"a\": [NaN]}", "NaN");
    check_error("{\"a\": [.5]}", "malformed JSON at byte 7");
    check_error("{\"a\": [+1]}", "malformed JSON at byte 7");
    check_error("{a: 1}", "malformed JSON at byte 1");
    check_error("{\"a\": 'x'}", "malformed JSON at byte 6");
    check_error("{\"a\": \"\xFF\"}", "malformed JSON at byte");
    check_error("{\"a\": \"line\nbreak\"}", "malformed JSON at byte");
    check_error("\xEF\xBB\xBF{}", "malformed JSON at byte");
}
END_TEST

START_TEST(refuses_duplicate_keys)
{
    check_error("{\"a\": 1, \"a\": 2}", "duplicate object key");
    check_error("{\"a\": [1], \"a\": [2]}", "duplicate object key");
    check_error("{\"a\": 1, \"\\u0061\": 2}", "duplicate object key");
}
END_TEST

START_TEST(refuses_nul_bytes)
{
    struct envelope envelope;
    struct error err = ERROR_INIT;
    const char inside[] = "{\"a\0b\": 1}";
    ck_assert_int_eq(envelope_init(&envelope, inside, sizeof inside - 1, &err), -1);
    const char after[] = "{\"a\": 1}\0";
    ck_assert_int_eq(envelope_init(&envelope, after, sizeof after - 1, &err), -1);
    check_error("{\"a\\u0000b\": 1}", "a string holds \\u0000");
    check_error("{\"a\": \"\\u0000\"}", "a string holds \\u0000");
}
END_TEST

/* jansson takes a NUL after a number or a word as the end of its buffer and reads on. */
START_TEST(refuses_nul_bytes_behind_values)
{
    static const struct {
        const char *text;
        size_t length, position;
    } cases[] = {{"{\"a\": 1\0}", 9, 7},
                 {"{\"a\": true\0}", 12, 10},
                 {"{\"a\": null\0, \"b\": 1}", 20, 10},
                 {"{\"b\": [1, 2], \"a\": false\0}", 26, 24},
                 {"{\"a\": [1\0]}", 11, 8},
                 {"{\"a\": [1, false\0]}", 18, 15}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct envelope envelope;
        struct error err = ERROR_INIT;
        char expected[64];
        snprintf(expected, sizeof expected,
                 "malformed JSON at byte %zu (line 1, column %zu): a NUL", cases[i].position,
                 cases[i].position + 1);
        int result = envelope_init(&envelope, cases[i].text, cases[i].length, &err);
        if (result == 0) {
            result = envelope_check_rest(&envelope, &err);
            envelope_close(&envelope);
        }
        ck_assert_int_eq(result, -1);
        ck_assert_msg(strstr(err.text, expected) != NULL, "%zu: %s", i, err.text);
    }
}
END_TEST

START_TEST(refuses_a_byte_order_mark)
{
    check_error("\xEF\xBB\xBF{}", "malformed JSON at byte 0 (line 1, column 1): a byte-order mark");
}
END_TEST

/* An empty object has three bytes of text and takes 240 bytes of memory. */
START_TEST(refuses_what_costs_too_much_memory)
{
    enum { OBJECTS = 60000 };
    char *text = xmalloc(3 * OBJECTS + 16), *c = text;
    c = stpcpy(c, "{\"a\":[{}");
    for (int i = 1; i < OBJECTS; i++)
        c = stpcpy(c, ",{}");
    strcpy(c, "]}");
    check_error(text, "too many values");
    free(text);
}
END_TEST

/* After cut literals, positions in the envelope and in the body differ. */
START_TEST(positions_are_those_of_the_body)
{
    check_error("{\"a\": [1,2,3,4,5,6,7,8,9], \"b\": tru}", "malformed JSON at byte 34");
    check_error("{\"a\": [1,\n2,3],\n\"b\": [4], \"c\": nul}", "(line 3, column 18)");
    check_error("{\"a\": [1,2,3], \"b\": tru, \"c\": [4,5,6]}", "malformed JSON at byte 22");
    check_error("{\"b\": tru, \"c\": [4,5,6]}", "malformed JSON at byte 8");
    check_error("{\"a\": [1,2,3] [4]}", "malformed JSON at byte 14");
    check_error("{\"a\": [1,2,3] \"b\"}", "malformed JSON at byte 16");
}
END_TEST

START_TEST(unclaimed_literals_are_checked)
{
    check_error("{\"a\": [1,,2]}", "malformed JSON at byte 9");
    check_error("{\"a\": [1,2,]}", "malformed JSON at byte 11");
    check_error("{\"a\": [01]}", "malformed JSON at byte 7");
    check_error("{\"a\": [1 2]}", "malformed JSON at byte 9");
    check_error("{\"a\": [1e999]}", "malformed JSON at byte");
    check_error("{\"a\": [1, {\"b\": 1, \"b\": 2}]}", "duplicate object key");
    check_error("{\"a\": [[1,2],[3,4x]]}", "malformed JSON at byte 17");
    check_error("{\"a\": [-]}", "malformed JSON");
}
END_TEST

START_TEST(claimed_literals_are_not)
{
    struct envelope envelope;
    struct guarded copy;
    ck_assert_int_eq(open_envelope(&envelope, &copy, "{\"a\": [1,,2]}", NULL), 0);
    envelope_claim(&envelope, json_object_get(envelope.root, "a"));
    ck_assert_int_eq(envelope_check_rest(&envelope, NULL), 0);
    close_envelope(&envelope, &copy);
}
END_TEST

/* `count` copies of `unit`, between `before` and `after`. */
static char *repeated(const char *before, const char *unit, size_t count, const char *after)
{
    size_t bytes = strlen(unit);
    char *text = malloc(strlen(before) + count * bytes + strlen(after) + 1);
    char *to = stpcpy(text, before);
    for (size_t i = 0; i < count; i++)
        to = stpcpy(to, unit);
    strcpy(to, after);
    return text;
}

static void check_repeated_error(const char *before, const char *unit, size_t count,
                                 const char *after, const char *expected)
{
    char *text = repeated(before, unit, count, after);
    check_error(text, expected);
    free(text);
}

START_TEST(depth_is_bounded)
{
    check_repeated_error("{\"a\":", "[", 31, "1]", "the body ends inside");
    check_repeated_error("{\"a\":", "[", 32, "1]", "nested too deeply");
    check_repeated_error("{\"a\":", "[", 1000000, "", "nested too deeply");
    check_repeated_error("", "{\"a\":", 1000000, "", "nested too deeply");
    check_repeated_error("{\"a\":", "[ ", 32, "", "nested too deeply");
    char deepest[128] = "{\"a\":";
    for (int i = 0; i < 31; i++)
        strcat(deepest, "[");
    strcat(deepest, "1");
    for (int i = 0; i < 31; i++)
        strcat(deepest, "]");
    strcat(deepest, "}");
    struct envelope envelope;
    ck_assert_int_eq(envelope_init(&envelope, deepest, strlen(deepest), NULL), 0);
    envelope_close(&envelope);
}
END_TEST

START_TEST(memory_is_bounded)
{
    check_repeated_error("{\"a\":[true", ",{}", 1000000, "]}",
                         "the JSON beside the numbers is longer than");
    check_repeated_error("{\"a\":[true", ",[1]", 2000, "]}", "separate lists");
    check_repeated_error("{\"a\":[1", ",{}", 1000000, "]}", "too long to ignore");
}
END_TEST

RUN_TESTS("proto/envelope", cuts_lists_that_begin_with_a_value, cuts_rows_of_objects,
          leaves_everything_else, brackets_in_strings_mean_nothing, long_literals_are_cut_whole,
          long_strings_in_literals_are_skipped, counts_outermost_entries,
          claims_what_stands_for_a_literal, stand_ins_cannot_be_forged, refuses_malformed_json,
          refuses_duplicate_keys, refuses_nul_bytes, refuses_nul_bytes_behind_values,
          refuses_a_byte_order_mark, refuses_what_costs_too_much_memory,
          positions_are_those_of_the_body, unclaimed_literals_are_checked, claimed_literals_are_not,
          depth_is_bounded, memory_is_bounded)
