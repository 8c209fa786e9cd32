/* str(), repr() and json.dumps() of Python. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "proto/text/template_value.h"
#include "proto/text/unicode.h"

enum { FLOAT_BYTES = 40 };

/* ---- numbers ---- */

/* Python's repr() of a float: the shortest digits that read back, without an exponent from 1e-4 to
 * below 1e16. */
static void print_float(struct buffer *to, double number)
{
    char text[FLOAT_BYTES];
    if (!isfinite(number))
        return buffer_text(to, isnan(number) ? "nan" : number < 0 ? "-inf" : "inf");
    int digits = 0;
    do
        snprintf(text, sizeof text, "%.*e", digits, number);
    while (strtod(text, NULL) != number && ++digits < 17);
    int exponent = atoi(strchr(text, 'e') + 1);
    if (exponent >= -4 && exponent < 16) {
        int decimals = digits > exponent ? digits - exponent : 0;
        return buffer_format(to, "%.*f%s", decimals, number, decimals ? "" : ".0");
    }
    *strchr(text, 'e') = '\0';
    buffer_format(to, "%se%c%02d", text, exponent < 0 ? '-' : '+', abs(exponent));
}

/* ---- repr ---- */

static bool is_printable(uint32_t c)
{
    uint32_t hidden = unicode_class_named("C", 1) | unicode_class_named("Z", 1);
    return c == ' ' || !(unicode_class(c) & hidden);
}

static void print_quoted(struct buffer *to, struct text text)
{
    bool single = memchr(text.bytes ? text.bytes : "", '\'', text.length) != NULL;
    bool twice = memchr(text.bytes ? text.bytes : "", '"', text.length) != NULL;
    char quote = single && !twice ? '"' : '\'';
    buffer_append(to, &quote, 1);
    for (const char *at = text.bytes, *end = at + text.length; at < end;) {
        uint32_t c = unicode_next(&at);
        if (c == (unsigned char)quote || c == '\\')
            buffer_format(to, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            buffer_text(to, c == '\n' ? "\\n" : c == '\r' ? "\\r" : "\\t");
        else if (is_printable(c))
            unicode_append(to, c);
        else
            buffer_format(to, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", c);
    }
    buffer_append(to, &quote, 1);
}

static void print_repr(struct run *run, struct buffer *to, const struct value *value)
{
    if (to->failed || !run_enter(run))
        return;
    if (value->kind == VALUE_TEXT)
        print_quoted(to, value->text);
    else if (value->kind == VALUE_UNDEFINED)
        buffer_text(to, "Undefined");
    else
        value_print(run, to, value);
    run_leave(run);
}

static void print_list(struct run *run, struct buffer *to, const struct list *list)
{
    buffer_text(to, list->tuple ? "(" : "[");
    for (size_t i = 0; i < list->count && run_step(run, 1); i++) {
        buffer_text(to, i ? ", " : "");
        print_repr(run, to, &list->items[i]);
    }
    buffer_text(to, !list->tuple ? "]" : list->count == 1 ? ",)" : ")");
}

static void print_dict(struct run *run, struct buffer *to, const struct dict *dict)
{
    buffer_text(to, "{");
    for (size_t i = 0; i < dict->count && run_step(run, 1); i++) {
        buffer_text(to, i ? ", " : "");
        print_quoted(to, dict->entries[i].key);
        buffer_text(to, ": ");
        print_repr(run, to, &dict->entries[i].value);
    }
    buffer_text(to, "}");
}

void value_print(struct run *run, struct buffer *to, const struct value *value)
{
    switch (value->kind) {
    case VALUE_UNDEFINED:
        return;
    case VALUE_NONE:
        return buffer_text(to, "None");
    case VALUE_BOOL:
        return buffer_text(to, value->truth ? "True" : "False");
    case VALUE_INTEGER:
        return buffer_format(to, "%lld", (long long)value->integer);
    case VALUE_FLOAT:
        return print_float(to, value->number);
    case VALUE_TEXT:
        run_step(run, value->text.length / STEP_BYTES);
        return buffer_append(to, value->text.bytes, value->text.length);
    case VALUE_LIST:
        if (value->list->generator)
            run_fail(run, "a generator is printed; put | list or | join behind it");
        return print_list(run, to, value->list);
    case VALUE_DICT:
        return print_dict(run, to, value->dict);
    default:
        run_fail(run, "a %s is printed", value_type(value));
    }
}

void print_escaped(struct buffer *to, struct text text)
{
    static const char special[] = "&<>'\"";
    static const char *const names[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
    for (size_t i = 0; i < text.length; i++) {
        const char *place = text.bytes[i] ? strchr(special, text.bytes[i]) : NULL;
        if (place)
            buffer_text(to, names[place - special]);
        else
            buffer_append(to, &text.bytes[i], 1);
    }
}

struct text value_str(struct run *run, const struct value *value)
{
    if (value->kind == VALUE_TEXT)
        return value->text;
    struct buffer buffer;
    run_buffer(run, &buffer);
    value_print(run, &buffer, value);
    return value_of_buffer(run, &buffer).text;
}

/* ---- JSON ---- */

static void print_json_character(struct buffer *to, uint32_t c, bool ascii)
{
    static const char plain[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (const char *pair = plain; *pair; pair += 2)
        if ((unsigned char)pair[0] == c)
            return buffer_append(to, (char[]){'\\', pair[1]}, 2);
    if (c < 0x20 || (ascii && c >= 0x7F && c < 0x10000 && c != 0x7F))
        return buffer_format(to, "\\u%04x", c);
    if (ascii && c >= 0x10000)
        return buffer_format(to, "\\u%04x\\u%04x", 0xD800 + ((c - 0x10000) >> 10),
                             0xDC00 + ((c - 0x10000) & 0x3FF));
    unicode_append(to, c);
}

static void print_json_text(struct buffer *to, struct text text, bool ascii)
{
    buffer_text(to, "\"");
    for (const char *at = text.bytes, *end = at + text.length; at < end;)
        print_json_character(to, unicode_next(&at), ascii);
    buffer_text(to, "\"");
}

static void new_line(struct buffer *to, const struct json_style *style, int depth)
{
    if (!style->indented)
        return;
    buffer_text(to, "\n");
    for (int i = 0; i < depth; i++)
        buffer_append(to, style->indent.bytes, style->indent.length);
}

static void print_json(struct run *run, struct buffer *to, const struct value *value,
                       const struct json_style *style, int depth);

static void print_json_list(struct run *run, struct buffer *to, const struct list *list,
                            const struct json_style *style, int depth)
{
    buffer_text(to, "[");
    for (size_t i = 0; i < list->count && !run->failed; i++) {
        if (i > 0)
            buffer_append(to, style->comma.bytes, style->comma.length);
        new_line(to, style, depth + 1);
        print_json(run, to, &list->items[i], style, depth + 1);
    }
    if (list->count > 0)
        new_line(to, style, depth);
    buffer_text(to, "]");
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    size_t common = x->key.length < y->key.length ? x->key.length : y->key.length;
    int order = common ? memcmp(x->key.bytes, y->key.bytes, common) : 0;
    return order ? order : (x->key.length > y->key.length) - (x->key.length < y->key.length);
}

static void print_json_dict(struct run *run, struct buffer *to, const struct dict *dict,
                            const struct json_style *style, int depth)
{
    struct entry *entries = dict->entries;
    if (style->sort && dict->count > 0) {
        entries = run_take(run, dict->count * sizeof *entries);
        if (!entries)
            return;
        memcpy(entries, dict->entries, dict->count * sizeof *entries);
        qsort(entries, dict->count, sizeof *entries, compare_entries);
    }
    buffer_text(to, "{");
    for (size_t i = 0; i < dict->count && !run->failed; i++) {
        if (i > 0)
            buffer_append(to, style->comma.bytes, style->comma.length);
        new_line(to, style, depth + 1);
        print_json_text(to, entries[i].key, style->ascii);
        buffer_append(to, style->colon.bytes, style->colon.length);
        print_json(run, to, &entries[i].value, style, depth + 1);
    }
    if (dict->count > 0)
        new_line(to, style, depth);
    buffer_text(to, "}");
}

static void print_json(struct run *run, struct buffer *to, const struct value *value,
                       const struct json_style *style, int depth)
{
    if (to->failed || !run_step(run, 1) || !run_enter(run))
        return;
    if (value->kind == VALUE_TEXT)
        print_json_text(to, value->text, style->ascii);
    else if (value->kind == VALUE_LIST && !value->list->generator)
        print_json_list(run, to, value->list, style, depth);
    else if (value->kind == VALUE_DICT)
        print_json_dict(run, to, value->dict, style, depth);
    else if (value->kind == VALUE_NONE)
        buffer_text(to, "null");
    else if (value->kind == VALUE_BOOL)
        buffer_text(to, value->truth ? "true" : "false");
    else if (value->kind == VALUE_FLOAT && !isfinite(value->number))
        buffer_text(to, isnan(value->number) ? "NaN"
                        : value->number < 0  ? "-Infinity"
                                             : "Infinity");
    else if (value_is_number(value))
        value_print(run, to, value);
    else
        run_fail(run, "tojson: a %s is no JSON", value_type(value));
    run_leave(run);
}

void value_print_json(struct run *run, struct buffer *to, const struct value *value,
                      const struct json_style *style)
{
    print_json(run, to, value, style, 0);
}
