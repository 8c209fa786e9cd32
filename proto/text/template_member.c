/* What is inside a value: attributes, items, slices, methods. */
#include <string.h>

#include "proto/text/template_call.h"
#include "proto/text/template_names.h"
#include "proto/text/template_run.h"
#include "proto/text/unicode.h"

struct value undefined_because(struct run *run, const char *format, const char *type,
                               struct text name)
{
    struct buffer buffer;
    run_buffer(run, &buffer);
    if (type)
        buffer_format(&buffer, format, type, (int)name.length, name.bytes);
    else
        buffer_format(&buffer, "'%.*s' is undefined", (int)name.length, name.bytes);
    struct value why = value_of_buffer(run, &buffer);
    why.kind = VALUE_UNDEFINED;
    return why;
}

/* What an operation cannot take. */
struct value refuse_undefined(struct run *run, const struct value *value)
{
    return run_fail(run, "%.*s", (int)value->text.length,
                    value->text.length ? value->text.bytes : "a value is undefined");
}

/* ---- members ---- */

static struct value loop_member(struct run *run, const struct loop *loop, struct text name)
{
    size_t index = loop->index, count = loop->items->count;
    if (text_is(name, "index") || text_is(name, "index0"))
        return value_integer((int64_t)index + text_is(name, "index"));
    if (text_is(name, "revindex") || text_is(name, "revindex0"))
        return value_integer((int64_t)(count - index) - text_is(name, "revindex0"));
    if (text_is(name, "first"))
        return value_bool(index == 0);
    if (text_is(name, "last"))
        return value_bool(index + 1 == count);
    if (text_is(name, "length"))
        return value_integer((int64_t)count);
    if (text_is(name, "depth") || text_is(name, "depth0"))
        return value_integer(text_is(name, "depth"));
    if (text_is(name, "previtem") && index > 0)
        return loop->items->items[index - 1];
    if (text_is(name, "nextitem") && index + 1 < count)
        return loop->items->items[index + 1];
    return undefined_because(run, "there is no %s '%.*s'", "item for loop.", name);
}

static bool is_dict_method(struct text name)
{
    return text_is(name, "items") || text_is(name, "keys") || text_is(name, "values") ||
           text_is(name, "get");
}

/* A method as a value; undefined where the type has none of that name. */
static struct value method_of(struct run *run, const struct value *value, struct text name)
{
    int index = template_method(name);
    bool has = (value->kind == VALUE_DICT && is_dict_method(name)) ||
               (value->kind == VALUE_TEXT && !is_dict_method(name)) ||
               (value->kind == VALUE_LIST && text_is(name, "count"));
    struct method *method = index >= 0 && has ? run_take(run, sizeof *method) : NULL;
    if (!method)
        return (struct value){.kind = VALUE_UNDEFINED};
    *method = (struct method){*value, index};
    return (struct value){.kind = VALUE_METHOD, .method = method};
}

/* Methods of Python's dict that would be found before a key of that name. */
static bool hides_key(struct text name)
{
    static const char *const names[] = {"copy",       "pop",     "update",  "clear",
                                        "setdefault", "popitem", "fromkeys"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (text_is(name, names[i]))
            return true;
    return false;
}

struct value value_member(struct run *run, const struct value *value, struct text name,
                          bool attribute)
{
    if (value->kind == VALUE_UNDEFINED)
        return refuse_undefined(run, value);
    if (value->kind == VALUE_LOOP)
        return loop_member(run, value->loop, name);
    struct value method = method_of(run, value, name);
    if (attribute && method.kind == VALUE_METHOD)
        return method;
    bool keyed = value->kind == VALUE_DICT || value->kind == VALUE_NAMESPACE;
    if (attribute && value->kind == VALUE_DICT && hides_key(name))
        return run_fail(run, "'%.*s' is a method of dict, which is not supported", (int)name.length,
                        name.bytes);
    const struct value *found = keyed ? dict_find(run, value->dict, name) : NULL;
    if (found)
        return *found;
    if (method.kind == VALUE_METHOD)
        return method;
    return undefined_because(run, "'%s object' has no attribute '%.*s'", value_type(value), name);
}

static struct value character_at(struct run *run, struct text text, int64_t index)
{
    const char *at = text.bytes, *end = at + text.length;
    run_step(run, text.length / STEP_BYTES);
    while (at < end && index-- > 0)
        unicode_next(&at);
    const char *next = at;
    if (at == end)
        return undefined_because(run, "the %s has no character '%.*s'", "str",
                                 (struct text){"", 0});
    unicode_next(&next);
    return value_text((struct text){at, (size_t)(next - at)});
}

struct value value_item(struct run *run, const struct value *value, const struct value *key)
{
    if (key->kind == VALUE_TEXT && value->kind != VALUE_UNDEFINED)
        return value_member(run, value, key->text, false);
    if (value->kind == VALUE_UNDEFINED)
        return refuse_undefined(run, value);
    bool counted =
        value->kind == VALUE_TEXT || (value->kind == VALUE_LIST && !value->list->generator);
    struct text none = {"", 0};
    if ((key->kind != VALUE_INTEGER && key->kind != VALUE_BOOL) || !counted)
        return undefined_because(run, "a %s has no such item%.*s", value_type(value), none);
    int64_t index = value_whole(key), length = value_length(run, value);
    index = index < 0 ? index + length : index;
    if (index < 0 || index >= length)
        return undefined_because(run, "the %s has no item of that index%.*s", value_type(value),
                                 none);
    return value->kind == VALUE_LIST ? value->list->items[index]
                                     : character_at(run, value->text, index);
}

/* ---- slices ---- */

struct slice {
    int64_t start, stop, step;
};

/* As Python's slice.indices(). */
static int64_t slice_end(const struct value *value, int64_t length, bool back, bool start)
{
    if (value->kind == VALUE_NONE)
        return start == back ? (back ? length - 1 : length) : back ? -1 : 0;
    int64_t end = value_whole(value);
    end = end < 0 ? end + length : end;
    int64_t least = back ? -1 : 0, most = back ? length - 1 : length;
    return end < least ? least : end > most ? most : end;
}

struct value run_slice(struct run *run, const struct template_node *node)
{
    const struct template_node *parts[] = {node->b, node->c, node->otherwise};
    struct value whole = run_evaluate(run, node->a), ends[3];
    for (size_t i = 0; i < 3; i++) {
        ends[i] = parts[i] ? run_evaluate(run, parts[i]) : (struct value){.kind = VALUE_NONE};
        if (ends[i].kind != VALUE_NONE && ends[i].kind != VALUE_INTEGER)
            return run_fail(run, "a slice from or to a %s", value_type(&ends[i]));
    }
    if (whole.kind == VALUE_UNDEFINED)
        return refuse_undefined(run, &whole);
    if (whole.kind != VALUE_TEXT && (whole.kind != VALUE_LIST || whole.list->generator))
        return run_fail(run, "a slice of a %s", value_type(&whole));
    struct value items = value_walk(run, &whole), made = value_list(run);
    int64_t step = ends[2].kind == VALUE_NONE ? 1 : ends[2].integer;
    if (step == 0 || run->failed)
        return run_fail(run, "a slice whose step is 0");
    int64_t length = (int64_t)items.list->count;
    int64_t start = slice_end(&ends[0], length, step < 0, true);
    int64_t stop = slice_end(&ends[1], length, step < 0, false);
    for (int64_t i = start; step > 0 ? i < stop : i > stop;) {
        list_add(run, made, items.list->items[i]);
        if (__builtin_add_overflow(i, step, &i) || run->failed)
            break;
    }
    return whole.kind == VALUE_TEXT && !run->failed ? text_join(run, (struct text){"", 0}, made)
                                                    : made;
}
