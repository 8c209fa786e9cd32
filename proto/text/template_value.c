/* Making, comparing and walking through values, as Python does. */
#include "proto/text/template_value.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "proto/text/unicode.h"

/* Calls, nodes and values inside each other: each takes some hundred bytes of stack. */
enum { RUN_MAX_DEPTH = 500 };

enum { VALUE_MAX_NESTING = 200, MESSAGE_BYTES = 300, STEP_ENTRIES = 16 };

/* ---- failing ---- */

struct value run_fail(struct run *run, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (!run->failed)
        template_error(run->chat_template, run->position, run->err, ERROR_INVALID, "%s", message);
    run->failed = true;
    return (struct value){.kind = VALUE_UNDEFINED};
}

/* Where memory ran out the template is not to blame. */
static void fail_for_memory(struct run *run, bool no_memory)
{
    if (!no_memory)
        run_fail(run, "the template takes too much memory");
    else if (!run->failed)
        error_set(run->err, ERROR_UNAVAILABLE, "no memory for the text of the chat");
    run->failed = true;
}

bool run_step(struct run *run, size_t steps)
{
    if (run->steps_left < steps)
        run_fail(run, "the template takes too many steps");
    else
        run->steps_left -= steps;
    return !run->failed;
}

bool run_enter(struct run *run)
{
    if (run->depth >= RUN_MAX_DEPTH)
        run_fail(run, "the template goes too deep");
    if (run->failed)
        return false;
    run->depth++;
    return true;
}

void *run_take(struct run *run, size_t bytes)
{
    void *memory = run->failed ? NULL : arena_take(&run->arena, bytes);
    if (!memory)
        fail_for_memory(run, run->arena.no_memory);
    return memory;
}

/* ---- making ---- */

struct value value_bool(bool truth)
{
    return (struct value){.kind = VALUE_BOOL, .truth = truth};
}

struct value value_integer(int64_t integer)
{
    return (struct value){.kind = VALUE_INTEGER, .integer = integer};
}

struct value value_text(struct text text)
{
    return (struct value){.kind = VALUE_TEXT, .text = text};
}

struct value value_words(const char *text)
{
    return value_text((struct text){text, strlen(text)});
}

void run_buffer(struct run *run, struct buffer *buffer)
{
    buffer_init(buffer, run->arena.limit + run->arena.left);
}

struct value value_of_buffer(struct run *run, struct buffer *buffer)
{
    char *copy = buffer->failed ? NULL : run_take(run, buffer->length + 1);
    size_t length = buffer->length;
    if (!copy)
        fail_for_memory(run, buffer->no_memory || run->arena.no_memory);
    else if (length > 0)
        memcpy(copy, buffer->data, length);
    buffer_close(buffer);
    return value_text((struct text){copy, copy ? length : 0});
}

struct value value_list(struct run *run)
{
    struct list *list = run_take(run, sizeof *list);
    return list ? (struct value){.kind = VALUE_LIST, .list = list}
                : (struct value){.kind = VALUE_UNDEFINED};
}

struct value value_dict(struct run *run)
{
    struct dict *dict = run_take(run, sizeof *dict);
    return dict ? (struct value){.kind = VALUE_DICT, .dict = dict}
                : (struct value){.kind = VALUE_UNDEFINED};
}

/* Room for one more; the old place stays in the arena. */
static void *grow(struct run *run, void *items, size_t count, size_t *capacity, size_t size)
{
    if (count < *capacity)
        return items;
    size_t wanted = *capacity ? *capacity * 2 : 4;
    void *grown = run_take(run, wanted * size);
    if (!grown)
        return NULL;
    if (count > 0)
        memcpy(grown, items, count * size);
    *capacity = wanted;
    return grown;
}

void list_add(struct run *run, struct value value, struct value item)
{
    if (run->failed)
        return;
    struct list *list = value.list;
    struct value *items = grow(run, list->items, list->count, &list->capacity, sizeof *list->items);
    if (!items)
        return;
    list->items = items;
    list->items[list->count++] = item;
}

void dict_set(struct run *run, struct dict *dict, struct text key, struct value value)
{
    struct value *known = dict_find(run, dict, key);
    if (known) {
        *known = value;
        return;
    }
    struct entry *entries =
        grow(run, dict->entries, dict->count, &dict->capacity, sizeof *dict->entries);
    if (!entries)
        return;
    dict->entries = entries;
    dict->entries[dict->count++] = (struct entry){key, value};
}

static struct value dict_of_json(struct run *run, const json_t *json, int depth)
{
    struct value made = value_dict(run);
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)json, key, value) {
        if (run->failed)
            break;
        struct value item = value_of_json(run, value, depth + 1);
        struct dict *dict = made.dict; /* keys differ already: not looked for */
        struct entry *entries =
            grow(run, dict->entries, dict->count, &dict->capacity, sizeof *dict->entries);
        if (!entries)
            break;
        dict->entries = entries;
        dict->entries[dict->count++] = (struct entry){{key, strlen(key)}, item};
    }
    return made;
}

struct value value_of_json(struct run *run, const json_t *json, int depth)
{
    if (depth > VALUE_MAX_NESTING)
        return run_fail(run, "what the template is given is nested too deep");
    if (json_is_string(json))
        return value_text((struct text){json_string_value(json), json_string_length(json)});
    if (json_is_integer(json))
        return value_integer(json_integer_value(json));
    if (json_is_real(json))
        return (struct value){.kind = VALUE_FLOAT, .number = json_real_value(json)};
    if (json_is_boolean(json))
        return value_bool(json_is_true(json));
    if (json_is_object(json))
        return dict_of_json(run, json, depth);
    if (!json_is_array(json))
        return (struct value){.kind = VALUE_NONE};
    struct value made = value_list(run);
    for (size_t i = 0; i < json_array_size(json) && !run->failed; i++)
        list_add(run, made, value_of_json(run, json_array_get(json, i), depth + 1));
    return made;
}

/* ---- asking ---- */

bool text_equal(struct text a, struct text b)
{
    return a.length == b.length && (a.length == 0 || memcmp(a.bytes, b.bytes, a.length) == 0);
}

struct value *dict_find(struct run *run, const struct dict *dict, struct text key)
{
    for (size_t i = 0; i < dict->count; i++) {
        if (i % STEP_ENTRIES == 0 && !run_step(run, 1))
            return NULL;
        struct text other = dict->entries[i].key;
        if (other.length == key.length && run_step(run, key.length / STEP_BYTES) &&
            text_equal(other, key))
            return &dict->entries[i].value;
    }
    return NULL;
}

const char *value_type(const struct value *value)
{
    static const char *const names[] = {"Undefined", "NoneType", "bool",    "int",       "float",
                                        "str",       "list",     "dict",    "Namespace", "loop",
                                        "macro",     "method",   "function"};
    return names[value->kind];
}

bool value_is_number(const struct value *value)
{
    return value->kind == VALUE_BOOL || value->kind == VALUE_INTEGER || value->kind == VALUE_FLOAT;
}

double value_number(const struct value *value)
{
    return value->kind == VALUE_FLOAT ? value->number : (double)value_whole(value);
}

int64_t value_whole(const struct value *value)
{
    return value->kind == VALUE_BOOL ? value->truth : value->integer;
}

bool value_is_true(const struct value *value)
{
    switch (value->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return false;
    case VALUE_BOOL:
        return value->truth;
    case VALUE_INTEGER:
        return value->integer != 0;
    case VALUE_FLOAT:
        return value->number != 0;
    case VALUE_TEXT:
        return value->text.length > 0;
    case VALUE_LIST:
        return value->list->generator || value->list->count > 0;
    case VALUE_DICT:
        return value->dict->count > 0;
    default:
        return true;
    }
}

static bool list_equal(struct run *run, const struct list *a, const struct list *b)
{
    bool same = a->count == b->count && a->tuple == b->tuple && !a->generator && !b->generator;
    for (size_t i = 0; same && i < a->count; i++)
        same = value_equal(run, &a->items[i], &b->items[i]);
    return same || a == b;
}

static bool dict_equal(struct run *run, const struct dict *a, const struct dict *b)
{
    bool same = a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++) {
        const struct value *other = dict_find(run, b, a->entries[i].key);
        same = other && value_equal(run, &a->entries[i].value, other);
    }
    return same;
}

static bool equal_things(struct run *run, const struct value *a, const struct value *b)
{
    if (value_is_number(a) && value_is_number(b)) {
        if (a->kind != VALUE_FLOAT && b->kind != VALUE_FLOAT)
            return value_whole(a) == value_whole(b);
        return value_number(a) == value_number(b);
    }
    if (a->kind != b->kind)
        return false;
    switch (a->kind) {
    case VALUE_UNDEFINED:
    case VALUE_NONE:
        return true;
    case VALUE_TEXT:
        return a->text.length == b->text.length && run_step(run, a->text.length / STEP_BYTES) &&
               text_equal(a->text, b->text);
    case VALUE_LIST:
        return list_equal(run, a->list, b->list);
    case VALUE_DICT:
        return dict_equal(run, a->dict, b->dict);
    default:
        return a->dict == b->dict;
    }
}

bool value_equal(struct run *run, const struct value *a, const struct value *b)
{
    if (!run_step(run, 1) || !run_enter(run))
        return false;
    bool same = equal_things(run, a, b);
    run_leave(run);
    return same;
}

int value_compare(struct run *run, const struct value *a, const struct value *b)
{
    if (value_is_number(a) && value_is_number(b)) {
        if (a->kind != VALUE_FLOAT && b->kind != VALUE_FLOAT)
            return value_whole(a) < value_whole(b) ? -1 : value_whole(a) > value_whole(b);
        return value_number(a) < value_number(b) ? -1 : value_number(a) > value_number(b);
    }
    if (a->kind == VALUE_TEXT && b->kind == VALUE_TEXT) {
        size_t common = a->text.length < b->text.length ? a->text.length : b->text.length;
        bool paid = run_step(run, common / STEP_BYTES);
        int order = common && paid ? memcmp(a->text.bytes, b->text.bytes, common) : 0;
        if (order != 0)
            return order;
        return a->text.length < b->text.length ? -1 : a->text.length > b->text.length;
    }
    run_fail(run, "a %s and a %s have no order", value_type(a), value_type(b));
    return 0;
}

bool value_contains(struct run *run, const struct value *whole, const struct value *part)
{
    if (whole->kind == VALUE_UNDEFINED)
        return false;
    if (whole->kind == VALUE_TEXT && part->kind == VALUE_TEXT)
        return part->text.length == 0 || (run_step(run, whole->text.length / STEP_BYTES) &&
                                          memmem(whole->text.bytes, whole->text.length,
                                                 part->text.bytes, part->text.length) != NULL);
    if (whole->kind == VALUE_DICT)
        return part->kind == VALUE_TEXT && dict_find(run, whole->dict, part->text);
    if (whole->kind != VALUE_LIST) {
        run_fail(run, "'in' for a %s in a %s", value_type(part), value_type(whole));
        return false;
    }
    for (size_t i = 0; i < whole->list->count; i++)
        if (value_equal(run, &whole->list->items[i], part))
            return true;
    return false;
}

int64_t value_length(struct run *run, const struct value *value)
{
    if (value->kind == VALUE_TEXT)
        return run_step(run, value->text.length / STEP_BYTES)
                   ? (int64_t)unicode_count(value->text.bytes, value->text.length)
                   : 0;
    if (value->kind == VALUE_LIST && !value->list->generator)
        return (int64_t)value->list->count;
    if (value->kind == VALUE_DICT)
        return (int64_t)value->dict->count;
    if (value->kind != VALUE_UNDEFINED)
        run_fail(run, "a %s has no length", value_type(value));
    return 0;
}

static void walk_text(struct run *run, struct value made, struct text text)
{
    const char *at = text.bytes, *end = at + text.length;
    while (at < end && run_step(run, 1)) {
        const char *start = at;
        unicode_next(&at);
        list_add(run, made, value_text((struct text){start, (size_t)(at - start)}));
    }
}

struct value value_walk(struct run *run, const struct value *value)
{
    struct value made = value_list(run);
    if (run->failed)
        return made;
    if (value->kind == VALUE_TEXT) {
        walk_text(run, made, value->text);
    } else if (value->kind == VALUE_LIST) {
        for (size_t i = 0; i < value->list->count && run_step(run, 1); i++)
            list_add(run, made, value->list->items[i]);
        if (value->list->generator)
            value->list->count = 0;
    } else if (value->kind == VALUE_DICT) {
        for (size_t i = 0; i < value->dict->count && run_step(run, 1); i++)
            list_add(run, made, value_text(value->dict->entries[i].key));
    } else if (value->kind != VALUE_UNDEFINED) {
        run_fail(run, "a %s cannot be walked through", value_type(value));
    }
    return made;
}
