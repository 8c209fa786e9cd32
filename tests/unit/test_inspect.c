/* `moed inspect`: the same facts for people and for programs. */
#include <jansson.h>

#include "server/inspect.h"
#include "support.h"

#define MODEL                                                                                      \
    "'input':{'name':'x','shape':[4]},'layers':[{'op':'moe','name':'m',"                           \
    "'gate':{'layers':[{'op':'linear','name':'g'}],'top_k':1},"                                    \
    "'experts':{'count':3,'layers':[{'op':'linear','name':'fc'},{'op':'relu'}]}},"                 \
    "{'op':'residual','layers':[{'op':'tanh'}]}],'output':{'name':'y'}"

static const float zeros[12];
static const struct stored tensors[] = {
    {"m.gate.g.weight", 2, {3, 4}, zeros, NULL},
    {"m.experts.0.fc.weight", 2, {2, 4}, zeros, NULL},
    {"m.experts.1.fc.weight", 2, {2, 4}, zeros, NULL},
    {"m.experts.2.fc.weight", 2, {2, 4}, zeros, NULL},
};

/* As the command line has it. */
static int run_inspect_with(const char *directory, bool json, bool check, FILE *out,
                            struct error *err)
{
    char *arguments[] = {"--models", (char *)directory};
    struct options options;
    ck_assert_int_eq(options_init(&options, 2, arguments, err), 0);
    int result = inspect(directory, &(struct inspect_options){&options, json, check}, out, err);
    options_close(&options);
    return result;
}

static int run_inspect(const char *directory, bool json, FILE *out, struct error *err)
{
    return run_inspect_with(directory, json, false, out, err);
}

/* The printed text; the caller frees it. */
static char *print(const char *config, bool json)
{
    char *directory = new_directory(), *text;
    size_t length;
    struct error err = ERROR_INIT;
    write_checkpoint(directory, config, tensors, 4);
    FILE *out = open_memstream(&text, &length);
    int result = run_inspect(directory, json, out, &err);
    fclose(out);
    ck_assert_msg(result == 0, "%s", err.text);
    free(directory);
    return text;
}

static const char *with_description(char *config, size_t size, const char *description)
{
    snprintf(config, size, "{'model_type':'moed','format_version':1,'description':'%s'," MODEL "}",
             description);
    return config;
}

START_TEST(text_names_what_there_is)
{
    char config[1024], *text = print(with_description(config, sizeof config, "a test"), false);
    static const char *const parts[] = {
        "  a test\n",
        "input   x [4]\n",
        "output  y [2]\n",
        "moe m",
        "3 experts, 1 serves a row",
        "gate\n",
        "experts (each)\n",
        "linear fc",
        "residual",
        "Parameters  36 in all, 20 active for one row (22 multiply-adds)\n",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        expect_text(text, parts[i]);
    free(text);
}
END_TEST

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    ck_assert_msg(text != NULL, "no text %s", key);
    return text;
}

static json_int_t number_of(const json_t *object, const char *key)
{
    ck_assert_msg(json_is_integer(json_object_get(object, key)), "no number %s", key);
    return json_integer_value(json_object_get(object, key));
}

START_TEST(json_holds_the_same)
{
    char config[1024], *text = print(with_description(config, sizeof config, "a test"), true);
    json_error_t bad;
    json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, &bad);
    ck_assert_msg(root != NULL, "%s: %s", bad.text, text);
    ck_assert_str_eq(text_of(root, "description"), "a test");
    ck_assert_int_eq(number_of(root, "parameters"), 36);
    ck_assert_int_eq(number_of(root, "active_parameters"), 20);
    ck_assert_int_eq(number_of(root, "macs_per_row"), 22);
    ck_assert_int_ge(number_of(root, "weight_bytes"), 36 * 4);
    ck_assert_int_gt(number_of(root, "scratch_bytes_per_row"), 0);
    const json_t *input = json_array_get(json_object_get(root, "inputs"), 0);
    ck_assert_str_eq(text_of(input, "name"), "x");
    const json_t *layers = json_object_get(root, "layers");
    ck_assert_uint_eq(json_array_size(layers), 6);
    const json_t *moe = json_array_get(layers, 0), *fc = json_array_get(layers, 2);
    ck_assert_str_eq(text_of(moe, "op"), "moe");
    ck_assert_int_eq(number_of(moe, "experts"), 3);
    ck_assert_int_eq(number_of(moe, "top_k"), 1);
    ck_assert_str_eq(text_of(fc, "role"), "experts");
    ck_assert_str_eq(text_of(fc, "name"), "fc");
    ck_assert_int_eq(number_of(fc, "depth"), 1);
    ck_assert_int_eq(number_of(fc, "parameters"), 8);
    json_decref(root);
    free(text);
}
END_TEST

START_TEST(json_stays_json_whatever_the_names)
{
    static const char *const descriptions[] = {"", "\\\\ \\n \\t \\u0001 \\u20ac", "</script>",
                                               "a\\/b"};
    for (size_t i = 0; i < sizeof descriptions / sizeof *descriptions; i++) {
        char config[1024];
        char *text = print(with_description(config, sizeof config, descriptions[i]), true);
        json_error_t bad;
        json_t *root = json_loads(text, 0, &bad);
        ck_assert_msg(root != NULL, "%s: %s", bad.text, text);
        json_decref(root);
        free(text);
    }
}
END_TEST

START_TEST(a_bad_checkpoint_prints_nothing)
{
    char *directory = new_directory(), *text;
    size_t length;
    struct error err = ERROR_INIT;
    FILE *out = open_memstream(&text, &length);
    ck_assert_int_eq(run_inspect(directory, false, out, &err), -1);
    fclose(out);
    ck_assert_uint_eq(length, 0);
    expect_text(err.text, directory);
    free(text);
    free(directory);
}
END_TEST

/* Wherever in it the fault is. */
START_TEST(a_path_is_told_once)
{
    static const char *const FILES[] = {"config.json", "model.safetensors",
                                        "model.safetensors.index.json"};
    char config[1024], path[PATH_MAX];
    with_description(config, sizeof config, "");
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        struct error err = ERROR_INIT;
        char *directory = new_directory();
        write_checkpoint(directory, config, tensors, 4);
        snprintf(path, sizeof path, "%s/model.safetensors", directory);
        ck_assert_int_eq(remove(path), 0);
        snprintf(path, sizeof path, "%s/%s", directory, FILES[i]);
        FILE *file = fopen(path, "w");
        fputs("{", file);
        fclose(file);
        ck_assert_int_eq(run_inspect(directory, false, stdout, &err), -1);
        const char *first = strstr(err.text, directory);
        ck_assert_msg(first && !strstr(first + 1, directory), "%s", err.text);
        free(directory);
    }
}
END_TEST

/* A checkpoint is not sound if a server refuses the name of its directory. */
START_TEST(the_directory_has_a_name_that_can_be_served)
{
    char config[1024], path[PATH_MAX], *directory = new_directory();
    static const char *const names[] = {"a+b", ".hidden", "a b", "stats"};
    with_description(config, sizeof config, "");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct error err = ERROR_INIT;
        snprintf(path, sizeof path, "%s/%s", directory, names[i]);
        write_checkpoint(path, config, tensors, 4);
        ck_assert_int_eq(run_inspect(path, false, stdout, &err), -1);
        expect_text(err.text, "cannot be served under its name");
    }
    free(directory);
}
END_TEST

START_TEST(weights_are_read_only_to_check_them)
{
    const float bad[] = {NAN, 0, 0, 0, 0, 0, 0, 0};
    struct stored damaged[] = {tensors[0], tensors[1], tensors[2], tensors[3]};
    char config[1024], *directory = new_directory();
    struct error err = ERROR_INIT;
    FILE *out = fopen("/dev/null", "w");
    damaged[2].values = bad;
    write_checkpoint(directory, with_description(config, sizeof config, ""), damaged, 4);
    ck_assert_int_eq(run_inspect_with(directory, false, false, out, &err), 0);
    ck_assert_int_eq(run_inspect_with(directory, false, true, out, &err), -1);
    expect_text(err.text, "NaN");
    fclose(out);
    free(directory);
}
END_TEST

TEST_MAIN("inspect", weights_are_read_only_to_check_them,
          the_directory_has_a_name_that_can_be_served, text_names_what_there_is,
          json_holds_the_same, json_stays_json_whatever_the_names, a_bad_checkpoint_prints_nothing,
          a_path_is_told_once)
