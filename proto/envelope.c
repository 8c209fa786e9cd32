/* One pass over the body, linear in its length and bounded in depth and memory. It skips strings
 * whole, so brackets inside them mean nothing. */
#include "proto/envelope.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/parse_json.h"
#include "core/text.h"
#include "proto/block.h"
#include "proto/infer.h"

/* The lists and objects that are open at a position of the body. Bit i is set if level i is an
 * object. */
struct nesting {
    uint64_t objects;
    size_t depth;
};

_Static_assert(INFER_MAX_JSON_DEPTH <= 64, "one bit per level");

/* What can change the nesting or hide a bracket. Commas matter only where entries are counted. */
enum byte_class { ORDINARY, QUOTE, OPEN_LIST, OPEN_OBJECT, CLOSE, COMMA };

static const unsigned char CLASS_OF[256] = {
    ['"'] = QUOTE, ['['] = OPEN_LIST, ['{'] = OPEN_OBJECT,
    [']'] = CLOSE, ['}'] = CLOSE,     [','] = COMMA,
};

static enum byte_class classify(char c)
{
    return CLASS_OF[(unsigned char)c];
}

static int malformed(const struct envelope *envelope, const char *at, const char *what,
                     struct error *err)
{
    size_t line, column, offset = (size_t)(at - envelope->body);
    json_line_and_column(envelope->body, offset, &line, &column);
    return error_set(err, ERROR_INVALID, "malformed JSON at byte %zu (line %zu, column %zu): %s",
                     offset, line, column, what);
}

static int refuse(const struct envelope *envelope, const char *at, const struct json_fault *fault,
                  struct error *err)
{
    switch (fault->kind) {
    case JSON_FAULT_NO_MEMORY:
        return error_set(err, ERROR_UNAVAILABLE, "%s", fault->reason);
    case JSON_FAULT_TOO_LARGE:
        return error_set(err, ERROR_TOO_LARGE, "byte %zu: %s", (size_t)(at - envelope->body),
                         fault->reason);
    case JSON_FAULT_MALFORMED:
        break;
    }
    return malformed(envelope, at, fault->reason, err);
}

static int nest(struct envelope *envelope, struct nesting *nesting, const char *at,
                struct error *err)
{
    bool object = *at == '{' || *at == '}';
    if (*at == '{' || *at == '[') {
        if (nesting->depth == INFER_MAX_JSON_DEPTH)
            return malformed(envelope, at, "lists and objects are nested too deeply", err);
        uint64_t bit = UINT64_C(1) << nesting->depth++;
        nesting->objects = object ? nesting->objects | bit : nesting->objects & ~bit;
        return 0;
    }
    if (nesting->depth == 0)
        return malformed(envelope, at, "this bracket closes nothing", err);
    if ((nesting->objects >> --nesting->depth & 1) != object)
        return malformed(envelope, at, "this bracket does not match the one it closes", err);
    return 0;
}

/* Whether the first element of the list at `list`, after any number of brackets, begins like a
 * number, a string or null. `*plain_until` receives where that element begins: every list that
 * opens before it has the same answer. */
static bool begins_with_value(const char *list, const char *end, const char **plain_until)
{
    const char *c = list;
    while (c < end && (*c == '[' || text_is_space(*c)))
        c++;
    *plain_until = c;
    return c < end && (*c == '-' || *c == '"' || *c == 'n' || (*c >= '0' && *c <= '9'));
}

/* Whether the list at `list` is the value of the body's member `key`, and holds objects. */
static bool holds_objects(const struct envelope *envelope, const struct nesting *nesting,
                          const char *list, const char *key)
{
    const char *end = envelope->body + envelope->length, *first = list + 1, *c = list;
    size_t length = key ? strlen(key) : 0;
    while (first < end && text_is_space(*first))
        first++;
    if (!key || nesting->depth != 1 || first == end || *first != '{')
        return false;
    while (c > envelope->body && text_is_space(c[-1]))
        c--;
    if (c == envelope->body || *--c != ':')
        return false;
    while (c > envelope->body && text_is_space(c[-1]))
        c--;
    return (size_t)(c - envelope->body) > length + 2 && c[-1] == '"' &&
           memcmp(c - 1 - length, key, length) == 0 && c[-2 - (ptrdiff_t)length] == '"';
}

/* Without the instruction for it, which not every x86-64 has. */
static size_t count_bits(uint64_t bits)
{
    bits -= bits >> 1 & UINT64_C(0x5555555555555555);
    bits = (bits & UINT64_C(0x3333333333333333)) + (bits >> 2 & UINT64_C(0x3333333333333333));
    bits = (bits + (bits >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    return (size_t)(bits * UINT64_C(0x0101010101010101) >> 56);
}

/* Counts the commas of a window before its first stop. */
static size_t count_commas(const char *window, uint64_t stops)
{
    uint64_t commas = 0;
    for (int i = 0; i < BLOCK_WINDOW / BLOCK_BYTES; i++)
        commas |= block_bits((block)(block_load(window + i * BLOCK_BYTES) == ','))
                  << i * BLOCK_BYTES;
    return count_bits(commas & ((stops & -stops) - 1));
}

/* Skips to the next bracket or quote, adding the commas before it to `*commas` unless that is NULL.
 * A body is mostly tensors, and tensors are mostly digits: going a window at a time costs a tenth
 * of scanning the numbers. */
static const char *skip_numbers(const char *c, const char *end, size_t *commas)
{
    for (; end - c >= BLOCK_WINDOW; c += BLOCK_WINDOW) {
        uint64_t stops = 0;
        for (int i = 0; i < BLOCK_WINDOW / BLOCK_BYTES; i++) {
            block bytes = block_load(c + i * BLOCK_BYTES);
            block folded = bytes | 0x20; /* '[' becomes '{', ']' becomes '}' */
            block stop = (block)((folded == '{') | (folded == '}') | (bytes == '"'));
            stops |= block_bits(stop) << i * BLOCK_BYTES;
        }
        if (commas)
            *commas += count_commas(c, stops);
        if (stops)
            return c + __builtin_ctzll(stops);
    }
    for (; c < end; c++) {
        enum byte_class class = classify(*c);
        if (class != ORDINARY && class != COMMA)
            break;
        if (commas)
            *commas += class == COMMA;
    }
    return c;
}

/* Finds the end of the list at `list`, counting the entries of its outermost level. */
static int measure_list(struct envelope *envelope, const char *list, struct nesting *nesting,
                        struct envelope_literal *literal, struct error *err)
{
    const char *end = envelope->body + envelope->length;
    size_t outside = nesting->depth;
    *literal = (struct envelope_literal){.text = list, .entries = 1};
    for (const char *c = list; c < end;) {
        if (*c == '"') {
            c = json_string_end(c, end);
        } else {
            if (nest(envelope, nesting, c++, err) != 0)
                return -1;
            if (nesting->depth == outside) {
                literal->length = (size_t)(c - list);
                return 0;
            }
        }
        c = skip_numbers(c, end, nesting->depth == outside + 1 ? &literal->entries : NULL);
    }
    return malformed(envelope, list, "the body ends inside the list that begins here", err);
}

size_t envelope_list_entries(const char *list, const char *end)
{
    const char *first = list + 1;
    while (first < end && text_is_space(*first))
        first++;
    if (first == end || *first == ']')
        return 0;
    size_t depth = 0, entries = 1;
    for (const char *c = first; c < end;) {
        enum byte_class class = classify(*c);
        if (class == CLOSE && depth-- == 0)
            break;
        depth += class == OPEN_LIST || class == OPEN_OBJECT;
        entries += class == COMMA && depth == 0;
        c = class == QUOTE ? json_string_end(c, end) : c + 1;
    }
    return entries;
}

static int add_literal(struct envelope *envelope, const struct envelope_literal *literal,
                       struct error *err)
{
    if (envelope->literal_count == ENVELOPE_MAX_LITERALS)
        return error_set(err, ERROR_INVALID,
                         "more than %d separate lists: put all rows into one list",
                         ENVELOPE_MAX_LITERALS);
    if (envelope->literal_count == envelope->literal_capacity) {
        envelope->literal_capacity =
            envelope->literal_capacity ? 2 * envelope->literal_capacity : 8;
        envelope->literals =
            xrealloc(envelope->literals, envelope->literal_capacity * sizeof *envelope->literals);
    }
    envelope->literals[envelope->literal_count++] = *literal;
    return 0;
}

/* Cuts the literal at `list`: records it and writes its stand-in. Returns the byte after it. */
static const char *cut(struct envelope *envelope, const char *list, struct nesting *nesting,
                       struct buffer *text, struct error *err)
{
    struct envelope_literal literal;
    if (measure_list(envelope, list, nesting, &literal, err) != 0)
        return NULL;
    buffer_format(text, "[%zu]", envelope->literal_count);
    literal.envelope_after = text->length;
    if (add_literal(envelope, &literal, err) != 0)
        return NULL;
    return list + literal.length;
}

/* The one pass: copies the body to `text`, with the literals cut out. */
static int cut_literals(struct envelope *envelope, const char *rows, struct buffer *text,
                        struct error *err)
{
    const char *end = envelope->body + envelope->length;
    const char *copied = envelope->body; /* everything before is in `text` or cut */
    const char *plain_until = envelope->body;
    struct nesting nesting = {0};
    for (const char *c = envelope->body; c < end;) {
        enum byte_class class = classify(*c);
        if (class == OPEN_LIST && c >= plain_until &&
            (begins_with_value(c, end, &plain_until) ||
             holds_objects(envelope, &nesting, c, rows))) {
            buffer_append(text, copied, (size_t)(c - copied));
            c = copied = cut(envelope, c, &nesting, text, err);
            if (!c)
                return -1;
            continue;
        }
        if (class == QUOTE) {
            c = json_string_end(c, end);
            continue;
        }
        if (class != ORDINARY && class != COMMA && nest(envelope, &nesting, c, err) != 0)
            return -1;
        c++;
    }
    buffer_append(text, copied, (size_t)(end - copied));
    if (text->failed)
        return buffer_error(text, "the JSON beside the numbers",
                            "only lists of values may be longer", err);
    return 0;
}

/* Maps a byte position of the envelope to the position of the body that it was copied from. */
static const char *place_in_body(const struct envelope *envelope, size_t position)
{
    const char *body_after = envelope->body;
    size_t envelope_after = 0;
    for (size_t i = 0; i < envelope->literal_count; i++) {
        const struct envelope_literal *literal = &envelope->literals[i];
        if (literal->envelope_after > position)
            break;
        body_after = literal->text + literal->length;
        envelope_after = literal->envelope_after;
    }
    const char *place = body_after + (position - envelope_after);
    const char *end = envelope->body + envelope->length;
    return place < end ? place : end;
}

static json_t *parse_part(const char *text, size_t length, struct json_fault *fault)
{
    return parse_json(text, length, JSON_DECODE_INT_AS_REAL, ENVELOPE_MAX_HEAP, fault);
}

static int parse(struct envelope *envelope, const struct buffer *text, struct error *err)
{
    struct json_fault fault;
    envelope->root = parse_part(text->data, text->length, &fault);
    if (!envelope->root)
        return refuse(envelope, place_in_body(envelope, fault.position), &fault, err);
    if (!json_is_object(envelope->root))
        return error_set(err, ERROR_INVALID, "the body is a list, expected a JSON object");
    return 0;
}

int envelope_init(struct envelope *envelope, const char *body, size_t length, struct error *err)
{
    return envelope_init_with_rows(envelope, body, length, NULL, err);
}

int envelope_init_with_rows(struct envelope *envelope, const char *body, size_t length,
                            const char *rows, struct error *err)
{
    *envelope = (struct envelope){.body = body, .length = length};
    if (length == 0)
        return error_set(err, ERROR_INVALID, "the body is empty, expected a JSON object");
    struct buffer text;
    buffer_init(&text, ENVELOPE_MAX_BYTES);
    int result = cut_literals(envelope, rows, &text, err);
    if (result == 0)
        result = parse(envelope, &text, err);
    buffer_close(&text);
    if (result != 0)
        envelope_close(envelope);
    return result;
}

void envelope_close(struct envelope *envelope)
{
    json_decref(envelope->root);
    free(envelope->literals);
    *envelope = (struct envelope){0};
}

const struct envelope_literal *envelope_claim(struct envelope *envelope, const json_t *value)
{
    const json_t *stand_in = json_array_get(value, 0);
    if (!json_is_number(stand_in))
        return NULL;
    size_t index = (size_t)json_number_value(stand_in);
    assert(index < envelope->literal_count);
    struct envelope_literal *literal = &envelope->literals[index];
    literal->claimed = true;
    return literal;
}

json_t *envelope_list(struct envelope *envelope, json_t *list, struct error *err)
{
    const struct envelope_literal *literal = envelope_claim(envelope, list);
    if (!literal)
        return json_incref(list);
    struct json_fault fault;
    json_t *parsed = parse_part(literal->text, literal->length, &fault);
    if (!parsed)
        (void)refuse(envelope, literal->text + fault.position, &fault, err);
    return parsed;
}

int envelope_check_rest(struct envelope *envelope, struct error *err)
{
    size_t allowed = ENVELOPE_MAX_BYTES; /* these numbers do go through the parser */
    for (size_t i = 0; i < envelope->literal_count; i++) {
        const struct envelope_literal *literal = &envelope->literals[i];
        if (literal->claimed)
            continue;
        if (literal->length > allowed)
            return error_set(err, ERROR_TOO_LARGE,
                             "the list at byte %zu belongs to no input and is too long to ignore",
                             (size_t)(literal->text - envelope->body));
        allowed -= literal->length;
        struct json_fault fault;
        json_t *parsed = parse_part(literal->text, literal->length, &fault);
        if (!parsed)
            return refuse(envelope, literal->text + fault.position, &fault, err);
        json_decref(parsed);
    }
    return 0;
}
