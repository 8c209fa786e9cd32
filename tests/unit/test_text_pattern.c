/* pattern: what matches where, what is refused and at which byte, and that steps are bounded. */
#include "core/memory.h"
#include "proto/text/pattern.h"
#include "test_proto_support.h"

/* All matches of a text, with | between. */
static void expect_matches(const char *source, const char *text, const char *expected)
{
    struct error err = ERROR_INIT;
    struct pattern *pattern = pattern_new(source, &err);
    ck_assert_msg(pattern != NULL, "%s", err.text);
    struct guarded copy = guarded_text(text);
    uint64_t steps = PATTERN_STEPS;
    struct pattern_search search = pattern_begin(pattern, copy.text, copy.length, &steps);
    char found[512] = "";
    const char *start = copy.text, *end;
    for (; pattern_find(&search, &start, &end); start = end) {
        size_t used = strlen(found);
        snprintf(found + used, sizeof found - used, "%s%.*s", used ? "|" : "", (int)(end - start),
                 start);
    }
    ck_assert_msg(strcmp(found, expected) == 0, "%s on '%s': '%s', expected '%s'", source, text,
                  found, expected);
    guarded_free(&copy);
    pattern_free(pattern);
}

START_TEST(finds_what_it_says)
{
    expect_matches("ab|a|c", "abacb", "ab|a|c");
    expect_matches("a?b", "bab ab", "b|ab|ab");
    expect_matches("[a-c]+", "abcdcba", "abc|cba");
    expect_matches("[^a-c\\s]+", "ab d\te", "d|e");
    expect_matches("\\p{N}{1,3}", "12345a6", "123|45|6");
    expect_matches("\\p{Lu}\\p{Ll}*", "ABc \xC3\x89t\xC3\xA9", "A|Bc|\xC3\x89t\xC3\xA9");
    expect_matches("[\\p{^L}]", "a1b", "1");
    expect_matches("\\P{L}", "a1b", "1");
    expect_matches("\\s+(?!\\S)|\\s+", "a   b  ", "  | |  ");
    expect_matches("a(?=b)", "abaacab", "a|a");
    expect_matches("x(?:ab|c)?y", "xaby xcy xy xz", "xaby|xcy|xy");
    expect_matches("(?i:'s|'ll)", "'S 'lL 's 'x '\xC5\xBF", "'S|'lL|'s|'\xC5\xBF");
    expect_matches("[\\]\\-a]+", "]-ab", "]-a");
    expect_matches("\\w+", "a_1 \xC3\xA9!\xC2\xB2", "a_1|\xC3\xA9|\xC2\xB2");
    expect_matches("\\S+", "a\xE3\x80\x80\xF0\x9F\x99\x82 b", "a|\xF0\x9F\x99\x82|b");
    expect_matches("a++b", "aab", "aab");
    expect_matches("a*+a", "aaa", "");
    expect_matches("a{2,}", "a aa aaaa", "aa|aaaa");
    expect_matches("\\D+", "a1b", "a|b");
}
END_TEST

static const char *const REFUSALS[][2] = {
    {"a|", "matches the empty text"},
    {"a*", "matches the empty text"},
    {"(a?|b)c?", "matches the empty text"},
    {"(?!a)", "matches the empty text"},
    {"(ab)+", "at byte 4 ('+'): a group that repeats"},
    {"a+?", "a quantifier of a quantifier"},
    {"[a", "the class has no end"},
    {"[a-", "the class has no end"},
    {"[a&&b]", "at byte 2"},
    {"[[:alpha:]]", "a class inside a class"},
    {"\\p{Han}", "no such general category"},
    {"\\p", "is not followed by"},
    {"\\b", "at byte 1 ('b'): an escape that is not known here"},
    {"\\W", "an escape that is not known here"},
    {"^a", "at byte 0 ('^a'): this is not known here"},
    {"a.b", "at byte 1 ('.b')"},
    {"(?<=a)b", "this kind of group"},
    {"(a", "the group has no end"},
    {"a)", "at byte 1 (')'): a ) without its ("},
    {"a{3,1}", "a quantifier is"},
    {"a{", "a number is missing"},
    {"[b-a]", "a range whose end"},
    {"(?i:\xC3\xA9)", "with a letter beyond ASCII"},
};

START_TEST(refuses_the_rest)
{
    struct error err = ERROR_INIT;
    struct guarded copy = guarded_copy(REFUSALS[_i][0], strlen(REFUSALS[_i][0]) + 1);
    ck_assert_ptr_null(pattern_new(copy.text, &err));
    ck_assert_msg(strstr(err.text, REFUSALS[_i][1]) != NULL, "'%s': %s", REFUSALS[_i][0], err.text);
    guarded_free(&copy);
}
END_TEST

START_TEST(bounds_its_nodes)
{
    char source[2048] = "";
    for (int i = 0; i < 600; i++)
        strcat(source, "(a");
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(pattern_new(source, &err));
    ck_assert_msg(strstr(err.text, "the pattern is too long") != NULL, "%s", err.text);
}
END_TEST

START_TEST(bounds_its_steps)
{
    struct error err = ERROR_INIT;
    struct pattern *pattern = pattern_new("a*a*a*a*a*a*b", &err);
    char text[2000];
    memset(text, 'a', sizeof text);
    uint64_t steps = PATTERN_STEPS;
    struct pattern_search search = pattern_begin(pattern, text, sizeof text, &steps);
    const char *start = text, *end;
    ck_assert(!pattern_find(&search, &start, &end));
    ck_assert_uint_eq(steps, 0);
    pattern_free(pattern);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("text_pattern");
    TCase *tcase = tcase_create("text_pattern");
    tcase_set_timeout(tcase, TEST_SECONDS);
    tcase_add_test(tcase, finds_what_it_says);
    tcase_add_loop_test(tcase, refuses_the_rest, 0, sizeof REFUSALS / sizeof *REFUSALS);
    tcase_add_test(tcase, bounds_its_nodes);
    tcase_add_test(tcase, bounds_its_steps);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
