/* chat_template: what jinja2 makes of the same templates (tests/data/text), what is refused when it
 * is loaded and where, and that no template takes more than its share. */
#include "core/memory.h"
#include "proto/text/template.h"
#include "test_proto_support.h"

/* ---- against jinja2 ---- */

static char *read_file(const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/data/text/%s", MOED_TEST_DATA, name);
    FILE *file = fopen(path, "r");
    ck_assert_msg(file != NULL, "%s", path);
    char *text = xcalloc(1, 1 << 16);
    ck_assert_uint_gt(fread(text, 1, (1 << 16) - 1, file), 0);
    fclose(file);
    return text;
}

static int render(const char *source, size_t length, const json_t *variables, time_t now,
                  struct buffer *text, struct error *err)
{
    struct chat_template *chat_template = chat_template_new(source, length, err);
    int result =
        chat_template ? chat_template_render(chat_template, variables, now, text, err) : -1;
    chat_template_free(chat_template);
    return result;
}

static void expect_case(const json_t *golden, const json_t *variables, time_t now)
{
    const char *source = json_string_value(json_object_get(golden, "source"));
    const json_t *number = json_object_get(golden, "variables");
    const json_t *wanted = json_object_get(golden, "text");
    char *file = json_is_integer(number) ? read_file(source) : xstrdup(source);
    struct guarded copy = guarded_text(file);
    struct error err = ERROR_INIT;
    struct buffer text;
    buffer_init(&text, 1 << 20);
    const json_t *given = json_is_integer(number)
                              ? json_array_get(json_object_get(variables, "conversations"),
                                               (size_t)json_integer_value(number))
                              : json_object_get(variables, "values");
    int result = render(copy.text, copy.length, given, now, &text, &err);
    if (json_is_null(wanted)) {
        ck_assert_msg(result == -1 && *err.text, "rendered: %s", source);
    } else {
        ck_assert_msg(result == 0, "%s: %s", source, err.text);
        ck_assert_msg(
            text.length == json_string_length(wanted) &&
                memcmp(text.length ? text.data : "", json_string_value(wanted), text.length) == 0,
            "%s: '%.*s', expected '%s'", source, (int)text.length, text.data ? text.data : "",
            json_string_value(wanted));
    }
    buffer_close(&text);
    guarded_free(&copy);
    free(file);
}

START_TEST(agrees_with_jinja2)
{
    setenv("TZ", "UTC", 1);
    json_t *expected =
        json_load_file(MOED_TEST_DATA "/data/text/templates.expected.json", JSON_ALLOW_NUL, NULL);
    const json_t *cases = json_object_get(expected, "cases"), *golden;
    size_t index;
    ck_assert_uint_ge(json_array_size(cases), 130);
    json_array_foreach(cases, index, golden)
        expect_case(golden, json_object_get(expected, "variables"),
                    (time_t)json_integer_value(json_object_get(expected, "now")));
    json_decref(expected);
}
END_TEST

/* ---- refusals ---- */

static const char *const REFUSALS[][2] = {
    {"a\n  {% include 'x' %}", "line 2, column 6: the tag 'include' is not supported here"},
    {"{{ x | nosuch }}", "line 1, column 8: the filter 'nosuch' is not supported"},
    {"{{ x is nosuch }}", "line 1, column 9: the test 'nosuch' is not supported"},
    {"{{ nosuch(1) }}", "line 1, column 4: the function 'nosuch' is not supported"},
    {"{{ x.append(1) }}", "the method 'append' is not supported"},
    {"{{ x ** 2 }}", "line 1, column 6: ** is not supported"},
    {"{{ 'a%s' % x }}", "formatting with % is not supported"},
    {"{% for x in y recursive %}{% endfor %}", "recursive loops are not supported"},
    {"{% for x in y %}{% macro m() %}{% endmacro %}{% endfor %}", "a macro inside a loop"},
    {"{% macro m() %}{{ caller() }}{% endmacro %}", "the function 'caller' is not supported"},
    {"{{ f(*x) }}", "arguments out of a list"},
    {"{{ (x)(1) }}", "the function 'x' is not supported"},
    {"{{ x[0](1) }}", "calling this is not supported"},
    {"{% break %}", "line 1, column 4: there is no loop around it"},
    {"{% if x %}", "the template ends, expected {% elif %}"},
    {"{% raw %}{% endraw %}", "the tag 'raw' is not supported"},
    {"{{ 'x }}", "line 1, column 4: the string has no end"},
    {"{{ x", "line 1, column 5: the tag has no end"},
    {"{# x", "line 1, column 1: the comment has no end"},
    {"{{ x) }}", "line 1, column 5: a bracket closes that was not opened"},
    {"{{ 1e999999x }}", "a number that is not supported"},
    {"{{ 99999999999999999999 }}", "a number that is not supported"},
    {"{{ '\\ud800' }}", "an escape that is not supported"},
    {"{{ x ? y }}", "line 1, column 6: a character that is not known here"},
    {"{{ }}", "line 1, column 4: expected a value"},
    {"{{ x y }}", "line 1, column 6: expected the end of the tag, }}"},
    {"{% set x.y.z = 1 %}", "expected"},
    {"{{ x[1:2:3:4] }}", "a slice has at most three parts"},
    {"\xFF", "a template is UTF-8"},
};

START_TEST(refuses_with_line_and_column)
{
    struct error err = ERROR_INIT;
    struct guarded copy = guarded_text(REFUSALS[_i][0]);
    ck_assert_ptr_null(chat_template_new(copy.text, copy.length, &err));
    ck_assert_msg(strstr(err.text, REFUSALS[_i][1]) != NULL, "'%s': %s", REFUSALS[_i][0], err.text);
    guarded_free(&copy);
}
END_TEST

static void expect_failure(const char *source, const char *message)
{
    struct error err = ERROR_INIT;
    struct buffer text;
    buffer_init(&text, 1 << 16);
    json_t *variables = json_pack("{s:[i,i,i]}", "list", 1, 2, 3);
    ck_assert_int_eq(render(source, strlen(source), variables, 0, &text, &err), -1);
    ck_assert_msg(strstr(err.text, message) != NULL, "'%.60s': '%s' is not in: %s", source, message,
                  err.text);
    json_decref(variables);
    buffer_close(&text);
}

/* The least whole number has no opposite. */
START_TEST(divides_by_minus_one)
{
    static const char source[] = "{% set least = -9223372036854775807 - 1 %}{{ least % -1 }} "
                                 "{{ 7 % -1 }} {{ 7 // -1 }}";
    struct error err = ERROR_INIT;
    struct buffer text;
    buffer_init(&text, 1 << 16);
    json_t *variables = json_object();
    ck_assert_msg(render(source, strlen(source), variables, 0, &text, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(text.length, strlen("0 0 -7"));
    ck_assert_mem_eq(text.data, "0 0 -7", text.length);
    json_decref(variables);
    buffer_close(&text);
    expect_failure("{{ (-9223372036854775807 - 1) // -1 }}", "a number is too large");
    expect_failure("{{ 7 % 0 }}", "division by zero");
}
END_TEST

START_TEST(says_where_it_failed)
{
    expect_failure("a\n{{ nobody.name }}", "line 2, column 11: 'nobody' is undefined");
    expect_failure("{{ list.x.y }}", "'list object' has no attribute 'x'");
    expect_failure("{{ raise_exception('No system role.') }}", "No system role.");
    expect_failure("{% for a, b in [list] %}{% endfor %}", "3 values for other than 2 names");
    expect_failure("{{ {1: 2} }}", "a key that is a int is not supported");
}
END_TEST

START_TEST(bounds_what_it_takes)
{
    expect_failure("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
                   "takes too m"); /* memory or steps, whichever comes first */
    expect_failure("{{ 'ab' * 1000000000 }}", "takes too much memory");
    expect_failure("{{ '' * 9223372036854775807 ~ 'x' * -1 ~ x() }}", "x");
    expect_failure("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "goes too deep");
    expect_failure("{% set n = namespace(x='ab') %}{% for a in range(99) %}"
                   "{% set n.x = n.x + n.x %}{% endfor %}",
                   "takes too much memory");
    expect_failure("{% set n = namespace(x=[1]) %}{% for a in range(9999) %}"
                   "{% set n.x = [n.x] %}{% endfor %}{{ n.x }}",
                   "goes too deep");
    expect_failure("{% set n = namespace(x=[1]) %}{% for a in range(9999) %}"
                   "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
                   "goes too deep");
    expect_failure("{% for a in range(99999) %}0123456789{% endfor %}", "the text is too long");
    expect_failure("{{ 'x' * 999999999 }}", "takes too m");
    expect_failure("{{ range(99999999) }}", "more than 100000 numbers");
}
END_TEST

/* Work on long texts counts, also where nothing is made of them. */
START_TEST(reading_text_costs)
{
    static const char *const expressions[] = {
        "s | length < 0",
        "s == t",
        "s < t",
        "s != t",
        "'b' in s",
        "s.find('b') > 0",
        "s.rfind('b') > 0",
        "s.count('b') > 0",
        "s.startswith(t)",
        "s.endswith(('b', t))",
        "s.isdigit()",
        "s.strip(t) == 'b'",
        "s[0] == 'b'",
        "s.strip('a')",
        "w.strip()",
        "s in [t, 'b']",
        "s is eq(t)",
        "(w | trim) == 'b'",
    };
    for (size_t i = 0; i < sizeof expressions / sizeof *expressions; i++) {
        char source[512];
        snprintf(source, sizeof source,
                 "{%% set s = ('a' * 5000) * 1000 %%}{%% set t = s ~ '' %%}"
                 "{%% set w = (' ' * 5000) * 1000 %%}{%% for a in range(30000) %%}"
                 "{%% if %s %%}{%% endif %%}{%% endfor %%}",
                 expressions[i]);
        clock_t began = clock();
        expect_failure(source, "takes too many steps");
        ck_assert_msg(clock() - began < 10 * CLOCKS_PER_SEC, "%s took too long", expressions[i]);
    }
}
END_TEST

/* `open` a thousand times. */
static void expect_too_deep(const char *open)
{
    char source[16384] = "{{ ";
    if (open[0] == '{')
        *source = '\0';
    for (size_t i = 0; i < 1000; i++)
        strcat(source, open);
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(chat_template_new(source, strlen(source), &err));
    ck_assert_msg(strstr(err.text, "nested more than 64 deep") != NULL, "%s: %s", open, err.text);
}

START_TEST(bounds_its_nesting)
{
    expect_too_deep("(");
    expect_too_deep("[");
    expect_too_deep("not ");
    expect_too_deep("-");
    expect_too_deep("{% if x %}");
}
END_TEST

/* ---- a model's directory ---- */

static void write_file(const char *directory, const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

static void expect_loaded(const char *directory, const char *expected)
{
    struct error err = ERROR_INIT;
    struct buffer text;
    buffer_init(&text, 1 << 16);
    json_t *variables = json_pack("{s:s}", "x", "X");
    struct chat_template *loaded = chat_template_load(directory, &err);
    ck_assert_msg(loaded != NULL, "%s", err.text);
    ck_assert_int_eq(chat_template_render(loaded, variables, 0, &text, &err), 0);
    ck_assert_msg(text.length == strlen(expected) && memcmp(text.data, expected, text.length) == 0,
                  "'%.*s', expected '%s'", (int)text.length, text.data, expected);
    chat_template_free(loaded);
    json_decref(variables);
    buffer_close(&text);
}

static void expect_not_loaded(const char *directory, enum error_code code, const char *message)
{
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(chat_template_load(directory, &err));
    ck_assert_msg(strstr(err.text, message) != NULL, "'%s' is not in: %s", message, err.text);
    ck_assert_int_eq(err.code, code);
}

START_TEST(loads_what_a_model_has)
{
    char directory[] = "/tmp/moed-template-XXXXXX";
    ck_assert_ptr_nonnull(mkdtemp(directory));
    expect_not_loaded(directory, ERROR_NOT_FOUND,
                      "tokenizer_config.json: cannot open: No such file");
    write_file(directory, "tokenizer_config.json", "{\"bos_token\": \"<s>\"}");
    expect_not_loaded(directory, ERROR_NOT_FOUND, "there is no chat_template");
    write_file(directory, "tokenizer_config.json", "{\"bos_token\": 1,}");
    expect_not_loaded(directory, ERROR_INVALID, "tokenizer_config.json: line 1, column 17");
    write_file(directory, "tokenizer_config.json", "{\"chat_template\": \"{{ x | y }}\"}");
    expect_not_loaded(directory, ERROR_UNSUPPORTED, "chat_template: line 1, column 8: the filter");
    write_file(directory, "tokenizer_config.json",
               "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": \"</s>\","
               "\"chat_template\": \"{{ bos_token }}{{ x }}{{ eos_token }}\"}");
    expect_loaded(directory, "<s>X</s>");
    write_file(directory, "tokenizer_config.json",
               "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"},"
               "{\"name\": \"default\", \"template\": \"several {{ x }}\"}]}");
    expect_loaded(directory, "several X");
    write_file(directory, "chat_template.jinja", "file {{ x }}\n");
    expect_loaded(directory, "file X");
    write_file(directory, "chat_template.jinja", "{{ x");
    expect_not_loaded(directory, ERROR_INVALID, "chat_template.jinja: line 1, column 5");
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", directory);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {agrees_with_jinja2,    says_where_it_failed, divides_by_minus_one,
                                  bounds_what_it_takes,  reading_text_costs,   bounds_its_nesting,
                                  loads_what_a_model_has};
    Suite *suite = suite_create("text_template");
    TCase *tcase = tcase_create("text_template");
    tcase_set_timeout(tcase, TEST_SECONDS);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, refuses_with_line_and_column, 0, sizeof REFUSALS / sizeof *REFUSALS);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
