/* Finding by name, and putting arguments in their places. */
#include "proto/text/template_call.h"

#include <string.h>

#include "proto/text/template_names.h"

static int find(const struct callable *table, struct text name)
{
    for (int i = 0; table[i].name; i++)
        if (text_is(name, table[i].name))
            return i;
    return -1;
}

int template_filter(struct text name)
{
    return find(TEMPLATE_FILTERS, name);
}

int template_test(struct text name)
{
    return find(TEMPLATE_TESTS, name);
}

int template_function(struct text name)
{
    return find(TEMPLATE_FUNCTIONS, name);
}

int template_method(struct text name)
{
    return find(TEMPLATE_METHODS, name);
}

/* The place of a name in "a b c"; -1: none. */
static int place_of(const char *parameters, struct text name)
{
    for (int place = 0; *parameters; place++) {
        size_t length = strcspn(parameters, " ");
        if (length == name.length && memcmp(parameters, name.bytes, length) == 0)
            return place;
        parameters += length + (parameters[length] == ' ');
    }
    return -1;
}

static int count_of(const char *parameters)
{
    int count = *parameters ? 1 : 0;
    for (; *parameters; parameters++)
        count += *parameters == ' ';
    return count;
}

struct value call_bound(struct run *run, const struct callable *callable, struct value self,
                        const struct arguments *arguments)
{
    struct call call = {.run = run, .self = self, .all = arguments};
    bool any = strcmp(callable->parameters, "*") == 0;
    for (size_t i = 0; i < arguments->count && !any; i++) {
        struct text name = arguments->names[i];
        int place = name.bytes ? place_of(callable->parameters, name) : (int)i;
        if (place < 0 || place >= count_of(callable->parameters) || call.given[place])
            return run_fail(run, "%s: argument %zu is not supported; supported are: %s",
                            callable->name, i + 1,
                            *callable->parameters ? callable->parameters : "none");
        call.given[place] = &arguments->items[i];
    }
    return run->failed ? (struct value){.kind = VALUE_UNDEFINED} : callable->call(&call);
}

/* ---- parameters ---- */

struct text given_text(const struct call *call, size_t place, const char *otherwise)
{
    const struct value *value = call->given[place];
    if (!value || value->kind == VALUE_NONE) {
        if (!otherwise)
            return (struct text){NULL, 0};
        return (struct text){otherwise, strlen(otherwise)};
    }
    if (value->kind != VALUE_TEXT) {
        run_fail(call->run, "expected a str as argument %zu, it is a %s", place + 1,
                 value_type(value));
        return (struct text){"", 0};
    }
    return value->text.bytes ? value->text : (struct text){"", 0};
}

int64_t given_integer(const struct call *call, size_t place, int64_t otherwise)
{
    const struct value *value = call->given[place];
    if (!value || value->kind == VALUE_NONE)
        return otherwise;
    if (value->kind != VALUE_INTEGER && value->kind != VALUE_BOOL)
        run_fail(call->run, "expected an int as argument %zu, it is a %s", place + 1,
                 value_type(value));
    return value_whole(value);
}

bool given_bool(const struct call *call, size_t place, bool otherwise)
{
    return call->given[place] ? value_is_true(call->given[place]) : otherwise;
}

struct text self_text(const struct call *call)
{
    if (call->self.kind == VALUE_TEXT) {
        run_step(call->run, call->self.text.length / STEP_BYTES);
        return call->self.text.bytes ? call->self.text : (struct text){"", 0};
    }
    run_fail(call->run, "a %s has no such method", value_type(&call->self));
    return (struct text){"", 0};
}
