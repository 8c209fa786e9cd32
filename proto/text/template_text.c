/* What is done to strings, as Python's str does it. */
#include <string.h>
#include <utf8proc.h>

#include "proto/text/template_call.h"
#include "proto/text/unicode.h"

/* str.isspace() */
static bool is_blank(uint32_t c)
{
    return unicode_is_space(c) || (c >= 0x1C && c <= 0x1F);
}

static bool is_cut(uint32_t c, struct text chars)
{
    if (!chars.bytes)
        return is_blank(c);
    for (const char *at = chars.bytes, *end = at + chars.length; at < end;)
        if (unicode_next(&at) == c)
            return true;
    return false;
}

struct text text_strip(struct run *run, struct text text, struct text chars, bool left, bool right)
{
    size_t steps = 1 + chars.length / STEP_BYTES; /* for each character */
    const char *start = text.bytes, *end = start + text.length;
    for (const char *next = start; left && start < end; start = next)
        if (!run_step(run, steps) || !is_cut(unicode_next(&next), chars))
            break;
    while (right && end > start) {
        const char *last = unicode_previous(end), *c = last;
        if (!run_step(run, steps) || !is_cut(unicode_next(&c), chars))
            break;
        end = last;
    }
    return (struct text){start, (size_t)(end - start)};
}

/* ---- case ---- */

enum letter_case { LOWER, UPPER, TITLE };

static void append_case(struct buffer *to, uint32_t c, enum letter_case wanted)
{
    if (wanted != LOWER && c == 0xDF)
        buffer_text(to, wanted == UPPER ? "SS" : "Ss");
    else if (wanted == LOWER && c == 0x130)
        buffer_text(to, "i\xCC\x87");
    else
        unicode_append(to, (uint32_t)(wanted == UPPER   ? utf8proc_toupper((int32_t)c)
                                      : wanted == LOWER ? utf8proc_tolower((int32_t)c)
                                                        : utf8proc_totitle((int32_t)c)));
}

/* The first character in one case, the others in another. */
static struct value change_case(struct run *run, struct text text, enum letter_case first,
                                enum letter_case others)
{
    struct buffer buffer;
    run_buffer(run, &buffer);
    const char *at = text.bytes, *end = at + text.length;
    for (bool begins = true; at < end; begins = false)
        append_case(&buffer, unicode_next(&at), begins ? first : others);
    run_step(run, text.length / STEP_BYTES);
    return value_of_buffer(run, &buffer);
}

struct value text_upper(struct run *run, struct text text)
{
    return change_case(run, text, UPPER, UPPER);
}

struct value text_lower(struct run *run, struct text text)
{
    return change_case(run, text, LOWER, LOWER);
}

struct value text_capitalize(struct run *run, struct text text)
{
    return change_case(run, text, TITLE, LOWER);
}

/* ---- parts ---- */

static const char *find(const char *at, const char *end, struct text what)
{
    return memmem(at, (size_t)(end - at), what.bytes, what.length);
}

struct value text_replace(struct run *run, struct text text, struct text from, struct text to,
                          int64_t most)
{
    struct buffer buffer;
    run_buffer(run, &buffer);
    const char *at = text.bytes, *end = at + text.length;
    if (from.length == 0)
        return run_fail(run, "replace: the empty text is not supported");
    for (const char *found; most != 0 && (found = find(at, end, from)) != NULL; most--) {
        buffer_append(&buffer, at, (size_t)(found - at));
        buffer_append(&buffer, to.bytes, to.length);
        at = found + from.length;
    }
    buffer_append(&buffer, at, (size_t)(end - at));
    run_step(run, text.length / STEP_BYTES);
    return value_of_buffer(run, &buffer);
}

struct value text_join(struct run *run, struct text separator, struct value list)
{
    struct buffer buffer;
    run_buffer(run, &buffer);
    for (size_t i = 0; !run->failed && i < list.list->count; i++) {
        if (i > 0)
            buffer_append(&buffer, separator.bytes, separator.length);
        value_print(run, &buffer, &list.list->items[i]);
    }
    return value_of_buffer(run, &buffer);
}

static void add_part(struct run *run, struct value list, const char *start, const char *end)
{
    if (run_step(run, 1))
        list_add(run, list, value_text((struct text){start, (size_t)(end - start)}));
}

/* split() without a separator: runs of white space part words. */
static struct value split_words(struct call *call, struct text text, int64_t most)
{
    struct value list = value_list(call->run);
    const char *at = text.bytes, *end = at + text.length;
    while (!call->run->failed) {
        struct text rest = text_strip(call->run, (struct text){at, (size_t)(end - at)},
                                      (struct text){0}, true, false);
        if (rest.length == 0)
            break;
        const char *word = rest.bytes, *stop = word;
        if (most-- == 0) {
            add_part(call->run, list, word, end);
            break;
        }
        for (const char *next = stop; stop < end; stop = next)
            if (is_blank(unicode_next(&next)))
                break;
        add_part(call->run, list, word, stop);
        at = stop;
    }
    return list;
}

static struct value method_split(struct call *call)
{
    struct text text = self_text(call), separator = given_text(call, 0, NULL);
    int64_t most = given_integer(call, 1, -1);
    if (!separator.bytes)
        return split_words(call, text, most);
    if (separator.length == 0)
        return run_fail(call->run, "split: the separator is empty");
    struct value list = value_list(call->run);
    const char *at = text.bytes, *end = at + text.length, *found;
    while (!call->run->failed && most-- != 0 && (found = find(at, end, separator)) != NULL) {
        add_part(call->run, list, at, found);
        at = found + separator.length;
    }
    add_part(call->run, list, at, end);
    return list;
}

/* The last place of `what` before `end`; NULL: none. */
static const char *find_last(struct run *run, const char *start, const char *end, struct text what)
{
    size_t steps = 1 + what.length / STEP_BYTES;
    for (const char *at = end; (size_t)(at - start) >= what.length && run_step(run, steps); at--)
        if (memcmp(at - what.length, what.bytes, what.length) == 0)
            return at - what.length;
    return NULL;
}

static struct value method_rsplit(struct call *call)
{
    struct run *run = call->run;
    struct text text = self_text(call), separator = given_text(call, 0, NULL);
    int64_t most = given_integer(call, 1, -1);
    if (most < 0 && separator.bytes)
        return method_split(call);
    if (separator.length == 0)
        return run_fail(run, "rsplit: only with a separator");
    struct value list = value_list(run), turned = value_list(run);
    const char *end = text.bytes + text.length, *found;
    while (!run->failed && most-- > 0 &&
           (found = find_last(run, text.bytes, end, separator)) != NULL) {
        add_part(run, turned, found + separator.length, end);
        end = found;
    }
    add_part(run, list, text.bytes, end);
    for (size_t i = run->failed ? 0 : turned.list->count; i > 0; i--)
        list_add(run, list, turned.list->items[i - 1]);
    return list;
}

static struct value method_splitlines(struct call *call)
{
    struct text text = self_text(call);
    struct value list = value_list(call->run);
    const char *at = text.bytes, *end = at + text.length;
    while (at < end && !call->run->failed) {
        const char *stop = at;
        while (stop < end && *stop != '\n' && *stop != '\r')
            stop++;
        add_part(call->run, list, at, stop);
        at = stop + (stop < end);
        if (at < end && *stop == '\r' && *at == '\n')
            at++;
    }
    return list;
}

/* ---- methods ---- */

static struct value method_strip(struct call *call)
{
    return value_text(
        text_strip(call->run, self_text(call), given_text(call, 0, NULL), true, true));
}

static struct value method_lstrip(struct call *call)
{
    return value_text(
        text_strip(call->run, self_text(call), given_text(call, 0, NULL), true, false));
}

static struct value method_rstrip(struct call *call)
{
    return value_text(
        text_strip(call->run, self_text(call), given_text(call, 0, NULL), false, true));
}

static bool has_end(struct text text, struct text end, bool start)
{
    if (end.length > text.length)
        return false;
    return end.length == 0 ||
           memcmp(text.bytes + (start ? 0 : text.length - end.length), end.bytes, end.length) == 0;
}

/* One text, or a tuple of several. */
static struct value has_ends(struct call *call, bool start)
{
    struct text text = self_text(call);
    const struct value *ends = call->given[0];
    if (!ends || ends->kind != VALUE_LIST)
        return value_bool(has_end(text, given_text(call, 0, ""), start));
    bool has = false;
    for (size_t i = 0; i < ends->list->count && run_step(call->run, 1 + text.length / STEP_BYTES);
         i++)
        has = has || (ends->list->items[i].kind == VALUE_TEXT &&
                      has_end(text, ends->list->items[i].text, start));
    return value_bool(has);
}

static struct value method_startswith(struct call *call)
{
    return has_ends(call, true);
}

static struct value method_endswith(struct call *call)
{
    return has_ends(call, false);
}

static struct value method_replace(struct call *call)
{
    return text_replace(call->run, self_text(call), given_text(call, 0, ""),
                        given_text(call, 1, ""), given_integer(call, 2, -1));
}

static struct value method_removeprefix(struct call *call)
{
    struct text text = self_text(call), part = given_text(call, 0, "");
    size_t cut = has_end(text, part, true) ? part.length : 0;
    return value_text((struct text){text.bytes + cut, text.length - cut});
}

static struct value method_removesuffix(struct call *call)
{
    struct text text = self_text(call), part = given_text(call, 0, "");
    return value_text(
        (struct text){text.bytes, text.length - (has_end(text, part, false) ? part.length : 0)});
}

static struct value method_upper(struct call *call)
{
    return text_upper(call->run, self_text(call));
}

static struct value method_lower(struct call *call)
{
    return text_lower(call->run, self_text(call));
}

static struct value method_capitalize(struct call *call)
{
    return text_capitalize(call->run, self_text(call));
}

/* A capital behind whatever is no letter. */
static struct value method_title(struct call *call)
{
    struct text text = self_text(call);
    struct buffer buffer;
    run_buffer(call->run, &buffer);
    bool inside = false;
    for (const char *at = text.bytes, *end = at + text.length; at < end;) {
        uint32_t c = unicode_next(&at);
        append_case(&buffer, c, inside ? LOWER : TITLE);
        inside = unicode_class(c) & unicode_class_named("L", 1);
    }
    return value_of_buffer(call->run, &buffer);
}

static struct value place_of(struct call *call, const char *found)
{
    struct text text = self_text(call);
    if (!found)
        return value_integer(-1);
    struct value before = value_text((struct text){text.bytes, (size_t)(found - text.bytes)});
    return value_integer(value_length(call->run, &before));
}

static struct value method_find(struct call *call)
{
    struct text text = self_text(call), part = given_text(call, 0, "");
    return place_of(call, find(text.bytes, text.bytes + text.length, part));
}

static struct value method_rfind(struct call *call)
{
    struct text text = self_text(call), part = given_text(call, 0, "");
    return place_of(call, find_last(call->run, text.bytes, text.bytes + text.length, part));
}

static struct value method_count(struct call *call)
{
    int64_t count = 0;
    if (call->self.kind == VALUE_LIST) {
        for (size_t i = 0; call->given[0] && i < call->self.list->count; i++)
            count += value_equal(call->run, &call->self.list->items[i], call->given[0]);
        return value_integer(count);
    }
    struct text text = self_text(call), part = given_text(call, 0, "");
    const char *at = text.bytes, *end = at + text.length;
    if (part.length == 0)
        return run_fail(call->run, "count: the empty text is not supported");
    for (; (at = find(at, end, part)) != NULL; at += part.length)
        count++;
    return value_integer(count);
}

static struct value method_join(struct call *call)
{
    struct text separator = self_text(call);
    struct value list = call->given[0] ? value_walk(call->run, call->given[0])
                                       : run_fail(call->run, "join: expected a list");
    for (size_t i = 0; !call->run->failed && i < list.list->count; i++)
        if (list.list->items[i].kind != VALUE_TEXT)
            return run_fail(call->run, "join: item %zu is a %s, expected a str", i,
                            value_type(&list.list->items[i]));
    return call->run->failed ? list : text_join(call->run, separator, list);
}

/* Of every character, and there is one. */
static struct value all_are(struct call *call, uint32_t classes)
{
    struct text text = self_text(call);
    bool all = text.length > 0;
    for (const char *at = text.bytes, *end = at + text.length; all && at < end;)
        all = unicode_class(unicode_next(&at)) & classes;
    return value_bool(all);
}

static struct value method_isdigit(struct call *call)
{
    return all_are(call, CLASS_ND);
}

static struct value method_isspace(struct call *call)
{
    return all_are(call, CLASS_SPACE);
}

/* ---- objects ---- */

static struct value pairs_of(struct call *call, bool keys, bool values)
{
    struct run *run = call->run;
    struct value list = value_list(run);
    if (call->self.kind != VALUE_DICT)
        return run_fail(run, "a %s has no such method", value_type(&call->self));
    for (size_t i = 0; i < call->self.dict->count && run_step(run, 1); i++) {
        struct entry *entry = &call->self.dict->entries[i];
        struct value item = values ? entry->value : value_text(entry->key);
        if (keys && values) {
            item = value_list(run);
            list_add(run, item, value_text(entry->key));
            list_add(run, item, entry->value);
            if (!run->failed)
                item.list->tuple = true;
        }
        list_add(run, list, item);
    }
    return list;
}

static struct value method_items(struct call *call)
{
    return pairs_of(call, true, true);
}

static struct value method_keys(struct call *call)
{
    return pairs_of(call, true, false);
}

static struct value method_values(struct call *call)
{
    return pairs_of(call, false, true);
}

static struct value method_get(struct call *call)
{
    if (call->self.kind != VALUE_DICT)
        return run_fail(call->run, "a %s has no such method", value_type(&call->self));
    const struct value *found = dict_find(call->run, call->self.dict, given_text(call, 0, ""));
    if (found)
        return *found;
    return call->given[1] ? *call->given[1] : (struct value){.kind = VALUE_NONE};
}

const struct callable TEMPLATE_METHODS[] = {
    {"split", "sep maxsplit", method_split},
    {"rsplit", "sep maxsplit", method_rsplit},
    {"splitlines", "", method_splitlines},
    {"strip", "chars", method_strip},
    {"lstrip", "chars", method_lstrip},
    {"rstrip", "chars", method_rstrip},
    {"startswith", "prefix", method_startswith},
    {"endswith", "suffix", method_endswith},
    {"replace", "old new count", method_replace},
    {"removeprefix", "prefix", method_removeprefix},
    {"removesuffix", "suffix", method_removesuffix},
    {"upper", "", method_upper},
    {"lower", "", method_lower},
    {"capitalize", "", method_capitalize},
    {"title", "", method_title},
    {"find", "sub", method_find},
    {"rfind", "sub", method_rfind},
    {"count", "sub", method_count},
    {"join", "iterable", method_join},
    {"isdigit", "", method_isdigit},
    {"isspace", "", method_isspace},
    {"items", "", method_items},
    {"keys", "", method_keys},
    {"values", "", method_values},
    {"get", "key default", method_get},
    {NULL, NULL, NULL},
};
