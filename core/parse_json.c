/* The cost of a tree is estimated from the bytes that make jansson allocate: brackets, commas,
 * colons and strings. The grammar is left to jansson. */
#include "core/parse_json.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

/* Bytes of heap that jansson 2.14 takes with glibc's allocator on a 64-bit machine, measured and
 * rounded up: a container with its first table; a list's slot with its number; an object's pair; a
 * string or key, without its text. */
enum { OBJECT_COST = 240, LIST_COST = 144, ENTRY_COST = 48, PAIR_COST = 96, STRING_COST = 96 };

static const unsigned char COST_OF[256] = {
    ['{'] = OBJECT_COST, ['['] = LIST_COST,   [','] = ENTRY_COST,
    [':'] = PAIR_COST,   ['"'] = STRING_COST,
};

static json_t *refuse(struct json_fault *fault, enum json_fault_kind kind, size_t position,
                      const char *reason)
{
    *fault = (struct json_fault){.kind = kind, .position = position};
    snprintf(fault->reason, sizeof fault->reason, "%s", reason);
    return NULL;
}

const char *json_string_end(const char *quote, const char *end)
{
    const char *c = quote + 1;
    while (c < end && *c != '"')
        c += *c == '\\' && c + 1 < end ? 2 : 1;
    return c < end ? c + 1 : end;
}

/* `string`: bytes of the string at that position, with its quotes; 0: something else is there. */
static void refuse_excess(struct json_fault *fault, size_t position, size_t string, size_t max_heap)
{
    char reason[JSON_ERROR_TEXT_LENGTH];
    snprintf(reason, sizeof reason, "a string of %zu bytes would take too much memory", string - 2);
    refuse(fault, JSON_FAULT_TOO_LARGE, position,
           string > max_heap / 4 ? reason
                                 : "too many values: what follows would take too much memory");
}

/* False with a fault where the tree's cost exceeds `max_heap`, or lists and objects are nested more
 * deeply than jansson follows them. */
static bool is_bounded(const char *text, const char *end, size_t max_heap, size_t *whole,
                       struct json_fault *fault)
{
    size_t cost = 0;
    ptrdiff_t depth = 0;
    for (const char *c = text; c < end;) {
        const char *next = *c == '"' ? json_string_end(c, end) : c + 1;
        const size_t position = (size_t)(c - text), string = *c == '"' ? (size_t)(next - c) : 0;
        cost += COST_OF[(unsigned char)*c] + 2 * string; /* the token and its decoded text */
        depth += (*c == '[' || *c == '{') - (*c == ']' || *c == '}');
        if (depth > JSON_PARSER_MAX_DEPTH) {
            refuse(fault, JSON_FAULT_MALFORMED, position,
                   "lists and objects are nested to too great a depth");
            return false;
        }
        if (cost > max_heap) {
            refuse_excess(fault, position, string, max_heap);
            return false;
        }
        c = next;
    }
    *whole = cost;
    return true;
}

/* ---- jansson's memory ---- */

/* Of less it is not asked whether it is there: core/memory.h. */
enum { LARGE_BYTES = 32 << 10 };
/* While jansson reads a string it has it in a buffer that doubles, and then in a copy. */
enum { STRING_SHARE = 4 };

static void use_xmalloc(void)
{
    json_set_alloc_funcs(xmalloc, free);
}

static bool has_room(size_t cost, size_t length)
{
    size_t bytes = cost + STRING_SHARE * length;
    void *room = bytes < LARGE_BYTES ? NULL : malloc(bytes);
    free(room);
    return bytes < LARGE_BYTES || room;
}

/* ---- reading ---- */

/* jansson counts the bytes it has read, so the last byte of the offending token is one before. */
static size_t offset_of(const json_error_t *error)
{
    bool at_end = json_error_code(error) == json_error_premature_end_of_input;
    size_t read = error->position > 0 ? (size_t)error->position : 0;
    return read > 0 && !at_end ? read - 1 : read;
}

static json_t *explain(struct json_fault *fault, const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);
    size_t offset = offset_of(error);
    /* jansson's messages about NUL name one of its flags. */
    if (code == json_error_null_character || code == json_error_null_byte_in_key)
        return refuse(fault, JSON_FAULT_MALFORMED, offset, "a string holds \\u0000, a NUL");
    return refuse(fault, JSON_FAULT_MALFORMED, offset, error->text);
}

json_t *parse_json(const char *text, size_t length, size_t flags, size_t max_heap,
                   struct json_fault *fault)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    json_error_t error = {0};
    size_t cost;
    const char *nul = length ? memchr(text, '\0', length) : NULL;
    if (nul)
        return refuse(fault, JSON_FAULT_MALFORMED, (size_t)(nul - text), "a NUL byte");
    if (length >= 3 && memcmp(text, "\xEF\xBB\xBF", 3) == 0)
        return refuse(fault, JSON_FAULT_MALFORMED, 0,
                      "a byte-order mark (EF BB BF), which JSON must not begin with");
    if (!is_bounded(text, text + length, max_heap, &cost, fault))
        return NULL;
    if (!has_room(cost, length))
        return refuse(fault, JSON_FAULT_NO_MEMORY, 0, "no memory for the parsed text");
    pthread_once(&once, use_xmalloc);
    json_t *tree = json_loadb(text, length, flags | JSON_REJECT_DUPLICATES, &error);
    return tree ? tree : explain(fault, &error);
}

static bool is_beyond_64_bits(const char *digits, size_t count)
{
    static const char most[] = "9223372036854775807";
    const size_t length = sizeof most - 1;
    return count > length || (count == length && memcmp(digits, most, length) > 0);
}

void json_shorten_integers(char *text, size_t length)
{
    char *end = text + length;
    for (char *c = text; c < end;) {
        if (*c == '"') {
            c += json_string_end(c, end) - c;
            continue;
        }
        char *first = c + (*c == '-');
        const size_t digits = strspn(first, "0123456789"), number = strspn(c, "+-.0123456789Ee");
        if (first + digits == c + number && is_beyond_64_bits(first, digits))
            memcpy(first + digits - 2, "e2", 2); /* for the last two digits */
        c += number > 0 ? number : 1;
    }
}

enum error_code json_fault_code(const struct json_fault *fault)
{
    return fault->kind == JSON_FAULT_NO_MEMORY ? ERROR_UNAVAILABLE : ERROR_INVALID;
}

void json_line_and_column(const char *text, size_t position, size_t *line, size_t *column)
{
    size_t line_start = 0;
    *line = 1;
    for (size_t i = 0; i < position; i++) {
        if (text[i] == '\n') {
            ++*line;
            line_start = i + 1;
        }
    }
    *column = position - line_start + 1;
}
