/* Typed access to config.json: what getters accept, how they report the rest, and that no key is
 * ignored. */
#include <unistd.h>

#include "core/load/config.h"
#include "support.h"

static struct config_node root;
static struct error err;

static void begin(void)
{
    root = (struct config_node){0};
    err = (struct error)ERROR_INIT;
}

static void end(void)
{
    if (root.json)
        config_close(&root);
}

static int try_open(const char *text)
{
    char *directory = new_directory(), path[PATH_MAX];
    snprintf(path, sizeof path, "%s/config.json", directory);
    write_json(directory, "config.json", text);
    int result = config_open(&root, path, &err);
    free(directory);
    return result;
}

static void open_text(const char *text)
{
    ck_assert_msg(try_open(text) == 0, "%s", err.text);
}

static void expect_error(int result, const char *text)
{
    ck_assert_int_eq(result, -1);
    ck_assert_int_eq(err.code, ERROR_INVALID);
    ck_assert_str_eq(err.text, text);
    err = (struct error)ERROR_INIT;
}

START_TEST(only_json_objects_open)
{
    static const struct {
        const char *text, *part;
    } cases[] = {{"[]", "expected a JSON object"},
                 {"", "line 1"},
                 {"{'a':1", "line 1"},
                 {"{'a':1}x", "line 1"},
                 {"{'a':1,'a':2}", "duplicate"},
                 {"{'a':1e999}", "number"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        err = (struct error)ERROR_INIT;
        ck_assert_int_eq(try_open(cases[i].text), -1);
        expect_text(err.text, "config.json: ");
        expect_text(err.text, cases[i].part);
    }
}
END_TEST

START_TEST(a_missing_file_is_named)
{
    ck_assert_int_eq(config_open(&root, "/nowhere/config.json", &err), -1);
    expect_text(err.text, "/nowhere/config.json");
}
END_TEST

START_TEST(only_a_bounded_regular_file_is_read)
{
    char *directory = new_directory(), path[PATH_MAX];
    snprintf(path, sizeof path, "%s/config.json", directory);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(config_open(&root, path, &err), -1);
    expect_text(err.text, "not a regular file");
    unlink(path);
    write_json(directory, "config.json", "{}");
    ck_assert_int_eq(truncate(path, (off_t)1 << 40), 0);
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(config_open(&root, path, &err), -1);
    expect_text(err.text, "larger than");
    free(directory);
}
END_TEST

START_TEST(integers_have_bounds_and_defaults)
{
    int64_t value = -1;
    open_text("{'a':3,'real':3.0,'text':'3'}");
    ck_assert_int_eq(config_integer(&root, "a", CONFIG_REQUIRED, within(3, 3), &value, &err), 0);
    ck_assert_int_eq(value, 3);
    ck_assert_int_eq(config_integer(&root, "none", 7, within(0, 3), &value, &err), 0);
    ck_assert_int_eq(value, 7); /* a default may be out of range */
    expect_error(config_integer(&root, "a", 1, within(4, 9), &value, &err),
                 "config.json: a: expected an integer from 4 to 9");
    expect_error(config_integer(&root, "a", 1, within(-1, 2), &value, &err),
                 "config.json: a: expected an integer from -1 to 2");
    expect_error(config_integer(&root, "real", 1, within(0, 9), &value, &err),
                 "config.json: real: expected an integer from 0 to 9");
    expect_error(config_integer(&root, "text", 1, within(0, 9), &value, &err),
                 "config.json: text: expected an integer from 0 to 9");
    expect_error(config_integer(&root, "none", CONFIG_REQUIRED, within(0, 9), &value, &err),
                 "config.json: none: missing; expected an integer");
}
END_TEST

/* As Python writes them; the nearest real is read where a real is asked for. */
START_TEST(integers_may_be_larger_than_64_bits)
{
    int64_t integer = 0;
    double real = 0;
    open_text("{'unread':1000000000000000019884624838656,'list':[-9223372036854775809],"
              "'most':9223372036854775807,'beyond':9223372036854775808,"
              "'text':'[10000000000000000000000]'}");
    ck_assert_int_eq(config_integer(&root, "most", 0, within(0, INT64_MAX), &integer, &err), 0);
    ck_assert(integer == INT64_MAX);
    ck_assert_int_eq(config_real(&root, "beyond", NULL, &real, &err), 0);
    ck_assert_double_eq(real, 0x1p63);
    ck_assert_int_eq(config_integer(&root, "beyond", 0, within(0, INT64_MAX), &integer, &err), -1);
    expect_text(err.text, "config.json: beyond: expected an integer");
}
END_TEST

START_TEST(reals_are_numbers_that_f32_can_hold)
{
    double value = 0;
    const double half = 0.5;
    open_text("{'int':2,'real':-2.5,'text':'2','huge':1e39,'max':3.4028234e38}");
    ck_assert_int_eq(config_real(&root, "int", NULL, &value, &err), 0);
    ck_assert(value == 2);
    ck_assert_int_eq(config_real(&root, "real", NULL, &value, &err), 0);
    ck_assert(value == -2.5);
    ck_assert_int_eq(config_real(&root, "max", NULL, &value, &err), 0);
    ck_assert_int_eq(config_real(&root, "none", &half, &value, &err), 0);
    ck_assert(value == 0.5);
    expect_error(config_real(&root, "none", NULL, &value, &err),
                 "config.json: none: missing; expected a number");
    expect_error(config_real(&root, "text", NULL, &value, &err),
                 "config.json: text: expected a number that f32 can hold");
    expect_error(config_real(&root, "huge", NULL, &value, &err),
                 "config.json: huge: expected a number that f32 can hold");
}
END_TEST

START_TEST(texts_and_choices)
{
    static const char *const names[] = {"none", "sum", NULL};
    const char *text;
    int choice;
    open_text("{'text':'sum','other':'max','number':1}");
    ck_assert_int_eq(config_text(&root, "text", NULL, &text, &err), 0);
    ck_assert_str_eq(text, "sum");
    ck_assert_int_eq(config_text(&root, "absent", "default", &text, &err), 0);
    ck_assert_str_eq(text, "default");
    ck_assert_int_eq(config_choice(&root, "text", names, 0, &choice, &err), 0);
    ck_assert_int_eq(choice, 1);
    ck_assert_int_eq(config_choice(&root, "absent", names, 0, &choice, &err), 0);
    ck_assert_int_eq(choice, 0);
    expect_error(config_text(&root, "number", "", &text, &err),
                 "config.json: number: expected a string");
    expect_error(config_choice(&root, "other", names, 0, &choice, &err),
                 "config.json: other: 'max' is not one of none, sum");
    expect_error(config_choice(&root, "absent", names, -1, &choice, &err),
                 "config.json: absent: missing; expected a string");
}
END_TEST

START_TEST(shapes_are_one_to_six_sizes)
{
    struct moed_shape shape;
    open_text("{'ok':[1,28,28],'six':[1,1,1,1,1,1],'seven':[1,1,1,1,1,1,1],'none':[],'zero':[1,0],"
              "'real':[1.0],'text':'1'}");
    ck_assert_int_eq(config_shape(&root, "ok", 1, &shape, &err), 0);
    ck_assert_uint_eq(shape.rank, 3);
    ck_assert_uint_eq(shape.dims[1], 28);
    ck_assert_int_eq(config_shape(&root, "six", 1, &shape, &err), 0);
    expect_error(config_shape(&root, "seven", 1, &shape, &err),
                 "config.json: seven: expected a list of 1 to 6 sizes");
    expect_error(config_shape(&root, "none", 1, &shape, &err),
                 "config.json: none: expected a list of 1 to 6 sizes");
    expect_error(config_shape(&root, "text", 1, &shape, &err),
                 "config.json: text: expected a list of 1 to 6 sizes");
    expect_error(config_shape(&root, "absent", 1, &shape, &err),
                 "config.json: absent: expected a list of 1 to 6 sizes");
    expect_error(config_shape(&root, "zero", 1, &shape, &err),
                 "config.json: zero: size 1 must be a positive integer");
    expect_error(config_shape(&root, "real", 1, &shape, &err),
                 "config.json: real: size 0 must be a positive integer");
}
END_TEST

START_TEST(lists_of_numbers_and_texts)
{
    double *reals;
    const char **texts;
    size_t count;
    open_text("{'reals':[1,2.5],'mixed':[1,'2'],'huge':[1,-1e300],'texts':['a','b'],'none':[]}");
    ck_assert_int_eq(config_reals(&root, "reals", &reals, &count, &err), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert(reals[0] == 1 && reals[1] == 2.5);
    free(reals);
    ck_assert_int_eq(config_texts(&root, "texts", &texts, &count, &err), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_str_eq(texts[1], "b");
    free(texts);
    expect_error(config_reals(&root, "mixed", &reals, &count, &err),
                 "config.json: mixed: entry 1 is not a number that f32 can hold");
    expect_error(config_reals(&root, "huge", &reals, &count, &err),
                 "config.json: huge: entry 1 is not a number that f32 can hold");
    expect_error(config_reals(&root, "none", &reals, &count, &err),
                 "config.json: none: expected a list of numbers");
    expect_error(config_texts(&root, "mixed", &texts, &count, &err),
                 "config.json: mixed: entry 0 is not a string");
    expect_error(config_texts(&root, "absent", &texts, &count, &err),
                 "config.json: absent: expected a list of strings");
}
END_TEST

START_TEST(errors_say_where)
{
    struct config_node layer, gate;
    int64_t value;
    size_t count;
    open_text("{'layers':[{},{'gate':{'top_k':'2'}}],'plain':{},'mixed':[{},1]}");
    ck_assert_int_eq(config_list(&root, "layers", &count, &err), 0);
    ck_assert_uint_eq(count, 2);
    ck_assert_int_eq(config_item(&root, "layers", 1, &layer, &err), 0);
    ck_assert_int_eq(config_object(&layer, "gate", &gate, &err), 0);
    expect_error(config_integer(&gate, "top_k", 1, within(1, 4), &value, &err),
                 "config.json: layers[1].gate.top_k: expected an integer from 1 to 4");
    expect_error(config_error(&gate, NULL, &err, "is %s", "odd"),
                 "config.json: layers[1].gate: is odd");
    expect_error(config_error(&root, NULL, &err, "is odd"), "config.json: is odd");
    expect_error(config_object(&layer, "experts", &gate, &err),
                 "config.json: layers[1].experts: missing; expected an object");
    expect_error(config_object(&root, "layers", &gate, &err),
                 "config.json: layers: expected an object");
    expect_error(config_list(&root, "plain", &count, &err),
                 "config.json: plain: expected a list of objects");
    expect_error(config_item(&root, "mixed", 1, &layer, &err),
                 "config.json: mixed[1]: expected an object");
}
END_TEST

START_TEST(every_key_must_be_asked_for)
{
    int64_t value;
    open_text("{'a':1,'b':2}");
    ck_assert_int_eq(config_integer(&root, "a", 0, within(0, 9), &value, &err), 0);
    expect_error(config_done(&root, &err), "config.json: unknown key 'b'");
    ck_assert(config_has(&root, "b"));
    ck_assert(!config_has(&root, "c"));
    ck_assert_int_eq(config_done(&root, &err), 0);
}
END_TEST

START_TEST(keys_are_walked_in_order)
{
    open_text("{'z':1,'a':2,'m':3}");
    const char *key = config_next_key(&root, NULL);
    ck_assert_str_eq(key, "z");
    key = config_next_key(&root, key);
    ck_assert_str_eq(key, "a");
    key = config_next_key(&root, key);
    ck_assert_str_eq(key, "m");
    ck_assert_ptr_null(config_next_key(&root, key));
}
END_TEST

TEST_MAIN_WITH("config", begin, end, only_json_objects_open, a_missing_file_is_named,
               only_a_bounded_regular_file_is_read, integers_have_bounds_and_defaults,
               integers_may_be_larger_than_64_bits, reals_are_numbers_that_f32_can_hold,
               texts_and_choices, shapes_are_one_to_six_sizes, lists_of_numbers_and_texts,
               errors_say_where, every_key_must_be_asked_for, keys_are_walked_in_order)
