/* Filters; those that jinja2 makes generators are generators here. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/text.h"
#include "proto/text/template_call.h"
#include "proto/text/template_names.h"

static struct value undefined(void)
{
    return (struct value){.kind = VALUE_UNDEFINED, .text = {"", 0}};
}

/* ---- text ---- */

static struct text filtered_text(struct call *call)
{
    return value_str(call->run, &call->self);
}

static struct value filter_string(struct call *call)
{
    return call->self.kind == VALUE_TEXT ? call->self : value_text(filtered_text(call));
}

static struct value filter_upper(struct call *call)
{
    return text_upper(call->run, filtered_text(call));
}

static struct value filter_lower(struct call *call)
{
    return text_lower(call->run, filtered_text(call));
}

static struct value filter_capitalize(struct call *call)
{
    return text_capitalize(call->run, filtered_text(call));
}

static struct value filter_trim(struct call *call)
{
    return value_text(
        text_strip(call->run, filtered_text(call), given_text(call, 0, NULL), true, true));
}

static struct value filter_replace(struct call *call)
{
    return text_replace(call->run, filtered_text(call), given_text(call, 0, ""),
                        given_text(call, 1, ""), given_integer(call, 2, -1));
}

/* Lines behind the first, unless asked for, and those with text, get `width` blanks. */
static struct value filter_indent(struct call *call)
{
    struct text text = filtered_text(call);
    struct buffer buffer;
    run_buffer(call->run, &buffer);
    int64_t width = given_integer(call, 0, 4);
    bool first = given_bool(call, 1, false), blank = given_bool(call, 2, false);
    const char *at = text.bytes, *end = at + text.length;
    if (width < 0 || width > 1000)
        width = 0;
    for (bool begins = true, ends = false; !ends; begins = false) {
        const char *line = at;
        while (at < end && *at != '\n' && *at != '\r')
            at++;
        if (begins ? first : blank || at > line)
            buffer_format(&buffer, "%*s", (int)width, "");
        buffer_append(&buffer, line, (size_t)(at - line));
        ends = at == end;
        if (!ends)
            buffer_text(&buffer, "\n");
        at += !ends;
        if (!ends && at < end && at[-1] == '\r' && *at == '\n')
            at++;
    }
    return value_of_buffer(call->run, &buffer);
}

static struct value filter_safe(struct call *call)
{
    struct value made = value_text(filtered_text(call));
    made.markup = true;
    return made;
}

static struct value filter_escape(struct call *call)
{
    struct buffer buffer;
    run_buffer(call->run, &buffer);
    struct text text = filtered_text(call);
    if (call->self.kind == VALUE_TEXT && call->self.markup)
        buffer_append(&buffer, text.bytes, text.length);
    else
        print_escaped(&buffer, text);
    struct value made = value_of_buffer(call->run, &buffer);
    made.markup = true;
    return made;
}

/* ---- JSON ---- */

static struct text indent_text(struct call *call)
{
    static const char blanks[] = "                                ";
    const struct value *indent = call->given[1];
    if (!indent || indent->kind == VALUE_NONE || indent->kind == VALUE_TEXT)
        return given_text(call, 1, "");
    int64_t width = given_integer(call, 1, 0);
    if (width > (int64_t)sizeof blanks - 1)
        run_fail(call->run, "tojson: at most %zu blanks", sizeof blanks - 1);
    return (struct text){blanks, width < 0 ? 0 : (size_t)width % sizeof blanks};
}

static struct value filter_tojson(struct call *call)
{
    struct json_style style = {.ascii = given_bool(call, 0, false),
                               .indented = call->given[1] && call->given[1]->kind != VALUE_NONE,
                               .indent = indent_text(call),
                               .sort = given_bool(call, 3, false)};
    style.comma = style.indented ? (struct text){",", 1} : (struct text){", ", 2};
    style.colon = (struct text){": ", 2};
    const struct value *pair = call->given[2];
    if (pair && pair->kind == VALUE_LIST && pair->list->count == 2) {
        style.comma = value_str(call->run, &pair->list->items[0]);
        style.colon = value_str(call->run, &pair->list->items[1]);
    }
    struct buffer buffer;
    run_buffer(call->run, &buffer);
    value_print_json(call->run, &buffer, &call->self, &style);
    return value_of_buffer(call->run, &buffer);
}

/* ---- numbers ---- */

static struct value filter_length(struct call *call)
{
    return value_integer(value_length(call->run, &call->self));
}

/* int(text): digits with a sign and blanks around them, else what float(text) gives; `otherwise`
 * when it is no number. */
static struct value filter_int(struct call *call)
{
    int64_t otherwise = given_integer(call, 0, 0);
    double number = 0;
    if (value_is_number(&call->self) && call->self.kind != VALUE_FLOAT)
        return value_integer(value_whole(&call->self));
    if (call->self.kind == VALUE_FLOAT)
        number = call->self.number;
    else if (call->self.kind != VALUE_TEXT)
        return value_integer(otherwise);
    else {
        char copy[64], *end;
        struct text text = text_strip(call->run, self_text(call), (struct text){0}, true, true);
        if (text.length == 0 || text.length >= sizeof copy)
            return value_integer(otherwise);
        memcpy(copy, text.bytes, text.length);
        copy[text.length] = '\0';
        errno = 0;
        long long whole = strtoll(copy, &end, 10);
        if (!*end && errno == 0)
            return value_integer(whole);
        number = strtod(copy, &end);
        if (*end || strspn(copy, "+-0123456789.eE") != text.length)
            return value_integer(otherwise);
    }
    return fabs(number) < 9e18 ? value_integer((int64_t)number) : value_integer(otherwise);
}

static struct value filter_float(struct call *call)
{
    double otherwise =
        call->given[0] && value_is_number(call->given[0]) ? value_number(call->given[0]) : 0.0;
    double number = otherwise;
    if (value_is_number(&call->self))
        number = value_number(&call->self);
    if (call->self.kind == VALUE_TEXT) {
        char copy[64], *end;
        struct text text = text_strip(call->run, self_text(call), (struct text){0}, true, true);
        bool fits = text.length > 0 && text.length < sizeof copy;
        memcpy(copy, fits ? text.bytes : "", fits ? text.length : 0);
        copy[fits ? text.length : 0] = '\0';
        double read = strtod(copy, &end);
        number = fits && !*end && strspn(copy, "+-0123456789.eE") == text.length ? read : otherwise;
    }
    return (struct value){.kind = VALUE_FLOAT, .number = number};
}

static struct value filter_abs(struct call *call)
{
    if (!value_is_number(&call->self))
        return run_fail(call->run, "abs: a %s is no number", value_type(&call->self));
    if (call->self.kind == VALUE_FLOAT)
        return (struct value){.kind = VALUE_FLOAT, .number = fabs(call->self.number)};
    int64_t whole = value_whole(&call->self);
    return value_integer(whole < 0 && whole != INT64_MIN ? -whole : whole);
}

/* ---- lists ---- */

static struct value filter_list(struct call *call)
{
    return value_walk(call->run, &call->self);
}

static struct value filter_first(struct call *call)
{
    struct value list = value_walk(call->run, &call->self);
    return !call->run->failed && list.list->count > 0 ? list.list->items[0] : undefined();
}

static struct value filter_last(struct call *call)
{
    if (call->self.kind == VALUE_LIST && call->self.list->generator)
        return run_fail(call->run, "last: a generator; put | list before it");
    struct value list = value_walk(call->run, &call->self);
    return !call->run->failed && list.list->count > 0 ? list.list->items[list.list->count - 1]
                                                      : undefined();
}

static struct value filter_reverse(struct call *call)
{
    struct run *run = call->run;
    struct value list = value_walk(run, &call->self), turned = value_generator(run);
    for (size_t i = run->failed ? 0 : list.list->count; i > 0; i--)
        list_add(run, turned, list.list->items[i - 1]);
    if (call->self.kind != VALUE_TEXT || run->failed)
        return turned;
    return text_join(run, (struct text){"", 0}, turned);
}

static struct value attribute_of(struct run *run, const struct value *item, struct text path)
{
    return attribute_or(run, item, path, NULL);
}

static struct value filter_join(struct call *call)
{
    struct run *run = call->run;
    struct text separator = given_text(call, 0, ""), attribute = given_text(call, 1, NULL);
    struct value list = value_walk(run, &call->self);
    for (size_t i = 0; attribute.bytes && !run->failed && i < list.list->count; i++)
        list.list->items[i] = attribute_of(run, &list.list->items[i], attribute);
    return run->failed ? list : text_join(run, separator, list);
}

/* ---- filters that take the names of others ---- */

/* The arguments from place `from` on. */
static struct arguments rest(const struct arguments *all, size_t from)
{
    struct arguments arguments = {.count = 0};
    for (size_t i = from; i < all->count; i++) {
        arguments.names[arguments.count] = all->names[i];
        arguments.items[arguments.count++] = all->items[i];
    }
    return arguments;
}

/* None, 0 and the like have no items for these. */
static struct value walk_if_true(struct call *call)
{
    return value_is_true(&call->self) ? value_walk(call->run, &call->self) : value_list(call->run);
}

/* map(attribute="a", default=d) or map("filter", ...) */
static struct value filter_map(struct call *call)
{
    struct run *run = call->run;
    const struct arguments *all = call->all;
    bool named = all->count > 0 && all->names[0].bytes;
    bool has_default = named && all->count == 2 && text_is(all->names[1], "default");
    struct value list = walk_if_true(call), made = value_generator(run);
    if (all->count == 0 || all->items[0].kind != VALUE_TEXT ||
        (named && (!text_is(all->names[0], "attribute") || all->count != (has_default ? 2 : 1))))
        return run_fail(run, "map: expected the name of a filter, or attribute=");
    int filter = named ? -1 : template_filter(all->items[0].text);
    if (!named && filter < 0)
        return run_fail(run, "map: the filter '%.*s' is not supported",
                        (int)all->items[0].text.length, all->items[0].text.bytes);
    struct arguments others = rest(all, 1);
    for (size_t i = 0; !run->failed && i < list.list->count && run_step(run, 1); i++) {
        struct value item = list.list->items[i];
        item = named ? attribute_or(run, &item, all->items[0].text,
                                    has_default ? &all->items[1] : NULL)
                     : call_bound(run, &TEMPLATE_FILTERS[filter], item, &others);
        list_add(run, made, item);
    }
    return made;
}

/* select, reject: items for which a test holds, or which are true; with `attribute`, one of theirs.
 */
static struct value choose(struct call *call, bool attribute, bool wanted)
{
    struct run *run = call->run;
    const struct arguments *all = call->all;
    size_t first = attribute ? 1 : 0;
    struct value list = walk_if_true(call), made = value_generator(run);
    for (size_t i = 0; i < all->count && i <= first; i++)
        if (all->items[i].kind != VALUE_TEXT)
            return run_fail(run, "select: expected names of an attribute and a test");
    if (attribute && all->count == 0)
        return run_fail(run, "selectattr: expected the name of an attribute");
    int test = all->count > first ? template_test(all->items[first].text) : 0;
    if (test < 0)
        return run_fail(run, "select: the test '%.*s' is not supported",
                        (int)all->items[first].text.length, all->items[first].text.bytes);
    struct arguments others = rest(all, first + 1);
    for (size_t i = 0; !run->failed && i < list.list->count && run_step(run, 1); i++) {
        struct value item = list.list->items[i];
        if (attribute)
            item = attribute_of(run, &item, all->items[0].text);
        if (all->count > first)
            item = call_bound(run, &TEMPLATE_TESTS[test], item, &others);
        if (value_is_true(&item) == wanted)
            list_add(run, made, list.list->items[i]);
    }
    return made;
}

static struct value filter_select(struct call *call)
{
    return choose(call, false, true);
}

static struct value filter_reject(struct call *call)
{
    return choose(call, false, false);
}

static struct value filter_selectattr(struct call *call)
{
    return choose(call, true, true);
}

static struct value filter_rejectattr(struct call *call)
{
    return choose(call, true, false);
}

static struct value filter_default(struct call *call)
{
    bool missing = call->self.kind == VALUE_UNDEFINED ||
                   (given_bool(call, 1, false) && !value_is_true(&call->self));
    if (!missing)
        return call->self;
    return call->given[0] ? *call->given[0] : value_words("");
}

const struct callable TEMPLATE_FILTERS[] = {
    {"tojson", "ensure_ascii indent separators sort_keys", filter_tojson},
    {"length", "", filter_length},
    {"count", "", filter_length},
    {"string", "", filter_string},
    {"safe", "", filter_safe},
    {"trim", "chars", filter_trim},
    {"upper", "", filter_upper},
    {"lower", "", filter_lower},
    {"capitalize", "", filter_capitalize},
    {"replace", "old new count", filter_replace},
    {"indent", "width first blank", filter_indent},
    {"escape", "", filter_escape},
    {"e", "", filter_escape},
    {"default", "default_value boolean", filter_default},
    {"d", "default_value boolean", filter_default},
    {"int", "default", filter_int},
    {"float", "default", filter_float},
    {"abs", "", filter_abs},
    {"list", "", filter_list},
    {"first", "", filter_first},
    {"last", "", filter_last},
    {"reverse", "", filter_reverse},
    {"join", "d attribute", filter_join},
    {"items", "", filter_items},
    {"sort", "reverse case_sensitive attribute", filter_sort},
    {"dictsort", "case_sensitive by reverse", filter_dictsort},
    {"unique", "case_sensitive", filter_unique},
    {"sum", "attribute", filter_sum},
    {"max", "", filter_max},
    {"min", "", filter_min},
    {"map", "*", filter_map},
    {"select", "*", filter_select},
    {"reject", "*", filter_reject},
    {"selectattr", "*", filter_selectattr},
    {"rejectattr", "*", filter_rejectattr},
    {NULL, NULL, NULL},
};
