/* Filters that put items in order, or add them up. */
#include <stdlib.h>
#include <string.h>

#include "proto/text/template_call.h"
#include "proto/text/template_names.h"

struct value value_generator(struct run *run)
{
    struct value list = value_list(run);
    if (!run->failed)
        list.list->generator = true;
    return list;
}

/* a.b of an item; the path may have dots. `otherwise` (NULL: none) stands in for what is missing.
 */
struct value attribute_or(struct run *run, const struct value *item, struct text path,
                          const struct value *otherwise)
{
    struct value value = *item;
    while (path.length > 0 && !run->failed) {
        const char *dot = memchr(path.bytes, '.', path.length);
        size_t length = dot ? (size_t)(dot - path.bytes) : path.length;
        value = value_member(run, &value, (struct text){path.bytes, length}, false);
        path.bytes += length + (dot != NULL);
        path.length -= length + (dot != NULL);
        if (otherwise && value.kind == VALUE_UNDEFINED)
            value = *otherwise;
    }
    return value;
}

struct value filter_items(struct call *call)
{
    if (call->self.kind == VALUE_UNDEFINED)
        return value_generator(call->run);
    if (call->self.kind != VALUE_DICT)
        return run_fail(call->run, "items: a %s has no pairs", value_type(&call->self));
    struct call method = {.run = call->run, .self = call->self, .all = call->all};
    struct value list = TEMPLATE_METHODS[template_method((struct text){"items", 5})].call(&method);
    if (!call->run->failed)
        list.list->generator = true;
    return list;
}

/* What items are ordered by. */
struct keyed {
    struct value key, item;
    size_t place;
};

struct ordering {
    struct run *run;
    bool reverse;
};

static int compare_keyed(const void *a, const void *b, void *context)
{
    const struct keyed *x = a, *y = b;
    const struct ordering *ordering = context;
    int order = ordering->run->failed ? 0 : value_compare(ordering->run, &x->key, &y->key);
    if (order == 0)
        return x->place < y->place ? -1 : 1;
    return ordering->reverse ? -order : order;
}

/* Text in lower case unless case counts. */
static struct value sort_key(struct run *run, struct value key, bool with_case)
{
    return key.kind == VALUE_TEXT && !with_case ? text_lower(run, key.text) : key;
}

static struct value sorted(struct run *run, struct value list, struct keyed *keys, bool reverse)
{
    struct ordering ordering = {run, reverse};
    size_t count = list.list->count;
    if (run_step(run, count * 8) && count > 0)
        qsort_r(keys, count, sizeof *keys, compare_keyed, &ordering);
    for (size_t i = 0; i < count && !run->failed; i++)
        list.list->items[i] = keys[i].item;
    return list;
}

struct value filter_sort(struct call *call)
{
    struct run *run = call->run;
    struct value list = value_walk(run, &call->self);
    struct text attribute = given_text(call, 2, "");
    struct keyed *keys = run->failed ? NULL : run_take(run, (list.list->count + 1) * sizeof *keys);
    for (size_t i = 0; keys && i < list.list->count; i++) {
        struct value key = attribute_or(run, &list.list->items[i], attribute, NULL);
        keys[i] =
            (struct keyed){sort_key(run, key, given_bool(call, 1, false)), list.list->items[i], i};
    }
    return keys ? sorted(run, list, keys, given_bool(call, 0, false))
                : (struct value){.kind = VALUE_UNDEFINED};
}

struct value filter_dictsort(struct call *call)
{
    struct run *run = call->run;
    struct text by = given_text(call, 1, "key");
    struct value list = filter_items(call);
    struct keyed *keys = run->failed ? NULL : run_take(run, (list.list->count + 1) * sizeof *keys);
    for (size_t i = 0; keys && i < list.list->count; i++) {
        struct value pair = list.list->items[i];
        struct value key = pair.list->items[text_is(by, "value") ? 1 : 0];
        keys[i] = (struct keyed){sort_key(run, key, given_bool(call, 0, false)), pair, i};
    }
    if (!keys)
        return (struct value){.kind = VALUE_UNDEFINED};
    list.list->generator = false;
    return sorted(run, list, keys, given_bool(call, 2, false));
}

struct value filter_unique(struct call *call)
{
    struct run *run = call->run;
    struct value list = value_walk(run, &call->self), kept = value_generator(run),
                 keys = value_list(run);
    for (size_t i = 0; !run->failed && i < list.list->count; i++) {
        struct value key = sort_key(run, list.list->items[i], given_bool(call, 0, false));
        if (value_contains(run, &keys, &key) || run->failed)
            continue;
        list_add(run, keys, key);
        list_add(run, kept, list.list->items[i]);
    }
    return kept;
}

struct value filter_sum(struct call *call)
{
    struct run *run = call->run;
    struct value list = value_walk(run, &call->self);
    double sum = 0;
    int64_t whole = 0;
    bool real = false;
    for (size_t i = 0; !run->failed && i < list.list->count; i++) {
        struct value item = attribute_or(run, &list.list->items[i], given_text(call, 0, ""), NULL);
        if (!value_is_number(&item))
            return run_fail(run, "sum: item %zu is a %s", i, value_type(&item));
        real = real || item.kind == VALUE_FLOAT;
        sum += value_number(&item);
        whole += item.kind == VALUE_FLOAT ? 0 : (int32_t)value_whole(&item);
        if (item.kind != VALUE_FLOAT && value_whole(&item) != (int32_t)value_whole(&item))
            return run_fail(run, "sum: a number is too large");
    }
    return real ? (struct value){.kind = VALUE_FLOAT, .number = sum} : value_integer(whole);
}

static struct value extreme(struct call *call, int sign)
{
    struct run *run = call->run;
    struct value list = value_walk(run, &call->self), best = {.kind = VALUE_UNDEFINED};
    for (size_t i = 0; !run->failed && i < list.list->count; i++)
        if (i == 0 || value_compare(run, &list.list->items[i], &best) * sign > 0)
            best = list.list->items[i];
    return best;
}

struct value filter_max(struct call *call)
{
    return extreme(call, 1);
}

struct value filter_min(struct call *call)
{
    return extreme(call, -1);
}
