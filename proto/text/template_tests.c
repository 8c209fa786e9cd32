/* Tests and functions. */
#include <string.h>

#include "proto/text/template_call.h"
#include "proto/text/template_names.h"

/* range() gives a list here; the sandbox of jinja2 has the same bound. */
enum { RANGE_MAX = 100000, TIME_BYTES = 256 };

/* ---- tests ---- */

static struct value test_defined(struct call *call)
{
    return value_bool(call->self.kind != VALUE_UNDEFINED);
}

static struct value test_undefined(struct call *call)
{
    return value_bool(call->self.kind == VALUE_UNDEFINED);
}

static struct value test_none(struct call *call)
{
    return value_bool(call->self.kind == VALUE_NONE);
}

static struct value test_boolean(struct call *call)
{
    return value_bool(call->self.kind == VALUE_BOOL);
}

static struct value test_true(struct call *call)
{
    return value_bool(call->self.kind == VALUE_BOOL && call->self.truth);
}

static struct value test_false(struct call *call)
{
    return value_bool(call->self.kind == VALUE_BOOL && !call->self.truth);
}

static struct value test_string(struct call *call)
{
    return value_bool(call->self.kind == VALUE_TEXT);
}

static struct value test_number(struct call *call)
{
    return value_bool(value_is_number(&call->self));
}

static struct value test_integer(struct call *call)
{
    return value_bool(call->self.kind == VALUE_INTEGER);
}

static struct value test_float(struct call *call)
{
    return value_bool(call->self.kind == VALUE_FLOAT);
}

static struct value test_mapping(struct call *call)
{
    return value_bool(call->self.kind == VALUE_DICT);
}

static struct value test_iterable(struct call *call)
{
    enum value_kind kind = call->self.kind;
    return value_bool(kind == VALUE_UNDEFINED || kind == VALUE_TEXT || kind == VALUE_LIST ||
                      kind == VALUE_DICT || kind == VALUE_LOOP);
}

static struct value test_sequence(struct call *call)
{
    enum value_kind kind = call->self.kind;
    return value_bool(kind == VALUE_UNDEFINED || kind == VALUE_TEXT || kind == VALUE_DICT ||
                      (kind == VALUE_LIST && !call->self.list->generator));
}

static struct value test_callable(struct call *call)
{
    enum value_kind kind = call->self.kind;
    return value_bool(kind == VALUE_MACRO || kind == VALUE_METHOD || kind == VALUE_FUNCTION);
}

/* The other side of a comparison. */
static const struct value *other(struct call *call)
{
    static const struct value none = {.kind = VALUE_NONE};
    if (!call->given[0])
        run_fail(call->run, "the test needs an argument");
    return call->given[0] ? call->given[0] : &none;
}

static struct value test_equal(struct call *call)
{
    return value_bool(value_equal(call->run, &call->self, other(call)));
}

static struct value test_unequal(struct call *call)
{
    return value_bool(!value_equal(call->run, &call->self, other(call)));
}

static struct value test_less(struct call *call)
{
    return value_bool(value_compare(call->run, &call->self, other(call)) < 0);
}

static struct value test_less_equal(struct call *call)
{
    return value_bool(value_compare(call->run, &call->self, other(call)) <= 0);
}

static struct value test_greater(struct call *call)
{
    return value_bool(value_compare(call->run, &call->self, other(call)) > 0);
}

static struct value test_greater_equal(struct call *call)
{
    return value_bool(value_compare(call->run, &call->self, other(call)) >= 0);
}

static struct value test_in(struct call *call)
{
    return value_bool(value_contains(call->run, other(call), &call->self));
}

/* The remainder of a whole number, as Python has it: with the divisor's sign. */
static int64_t remainder_by(struct call *call, int64_t divisor)
{
    if (call->self.kind != VALUE_INTEGER && call->self.kind != VALUE_BOOL) {
        run_fail(call->run, "a %s is no int", value_type(&call->self));
        return 0;
    }
    if (divisor == 0 || divisor == -1) {
        if (divisor == 0)
            run_fail(call->run, "division by zero");
        return 0;
    }
    int64_t left = value_whole(&call->self) % divisor;
    return left != 0 && (left < 0) != (divisor < 0) ? left + divisor : left;
}

static struct value test_odd(struct call *call)
{
    return value_bool(remainder_by(call, 2) == 1);
}

static struct value test_even(struct call *call)
{
    return value_bool(remainder_by(call, 2) == 0);
}

static struct value test_divisible(struct call *call)
{
    return value_bool(remainder_by(call, given_integer(call, 0, 0)) == 0);
}

const struct callable TEMPLATE_TESTS[] = {
    {"defined", "", test_defined},
    {"undefined", "", test_undefined},
    {"none", "", test_none},
    {"boolean", "", test_boolean},
    {"true", "", test_true},
    {"false", "", test_false},
    {"string", "", test_string},
    {"number", "", test_number},
    {"integer", "", test_integer},
    {"float", "", test_float},
    {"mapping", "", test_mapping},
    {"iterable", "", test_iterable},
    {"sequence", "", test_sequence},
    {"callable", "", test_callable},
    {"equalto", "other", test_equal},
    {"eq", "other", test_equal},
    {"ne", "other", test_unequal},
    {"lt", "other", test_less},
    {"lessthan", "other", test_less},
    {"le", "other", test_less_equal},
    {"gt", "other", test_greater},
    {"greaterthan", "other", test_greater},
    {"ge", "other", test_greater_equal},
    {"in", "seq", test_in},
    {"odd", "", test_odd},
    {"even", "", test_even},
    {"divisibleby", "num", test_divisible},
    {NULL, NULL, NULL},
};

/* ---- functions ---- */

static struct value named_arguments(struct call *call)
{
    struct value made = value_dict(call->run);
    for (size_t i = 0; i < call->all->count && !call->run->failed; i++) {
        if (!call->all->names[i].bytes)
            return run_fail(call->run, "expected arguments with names");
        dict_set(call->run, made.dict, call->all->names[i], call->all->items[i]);
    }
    return made;
}

static struct value function_namespace(struct call *call)
{
    struct value made = named_arguments(call);
    if (!call->run->failed)
        made.kind = VALUE_NAMESPACE;
    return made;
}

static struct value function_range(struct call *call)
{
    struct run *run = call->run;
    bool one = !call->given[1];
    int64_t start = one ? 0 : given_integer(call, 0, 0);
    int64_t stop = given_integer(call, one ? 0 : 1, 0), step = given_integer(call, 2, 1);
    struct value list = value_list(run);
    if (step == 0 || !call->given[0] || start < -INT32_MAX || start > INT32_MAX ||
        stop < -INT32_MAX || stop > INT32_MAX || step < -INT32_MAX || step > INT32_MAX)
        return run_fail(run, "range: expected start, stop and a step that is not 0");
    for (int64_t i = start; (step > 0 ? i < stop : i > stop) && run_step(run, NODE_STEPS);
         i += step) {
        if (list.list->count == RANGE_MAX)
            return run_fail(run, "range: more than %d numbers", RANGE_MAX);
        list_add(run, list, value_integer(i));
    }
    return list;
}

static struct value function_raise(struct call *call)
{
    struct text message =
        call->given[0] ? value_str(call->run, call->given[0]) : (struct text){"", 0};
    return run_fail(call->run, "%.*s", (int)message.length, message.bytes ? message.bytes : "");
}

static struct value function_strftime(struct call *call)
{
    struct text format = given_text(call, 0, "");
    char wanted[TIME_BYTES], text[TIME_BYTES] = "";
    struct tm local;
    if (format.length >= sizeof wanted || !localtime_r(&call->run->now, &local))
        return run_fail(call->run, "strftime_now: the format is too long");
    memcpy(wanted, format.bytes, format.length);
    wanted[format.length] = '\0';
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t length = strftime(text, sizeof text, wanted, &local);
#pragma GCC diagnostic pop
    struct buffer buffer;
    run_buffer(call->run, &buffer);
    buffer_append(&buffer, text, length);
    return value_of_buffer(call->run, &buffer);
}

const struct callable TEMPLATE_FUNCTIONS[] = {
    {"namespace", "*", function_namespace},        {"dict", "*", named_arguments},
    {"range", "start stop step", function_range},  {"raise_exception", "message", function_raise},
    {"strftime_now", "format", function_strftime}, {NULL, NULL, NULL},
};
