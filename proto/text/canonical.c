/* utf8proc decomposes and composes; its sort of combining marks, which takes quadratic time on a
 * hostile run of them, is replaced by ours. */
#include "proto/text/canonical.h"

#include <stdlib.h>
#include <utf8proc.h>

#include "proto/text/unicode.h"

/* U+FDFA, the longest, becomes 18. */
enum { LONGEST_DECOMPOSITION = 32 };

struct form_rule {
    unsigned options;
    unsigned char changes_from; /* text of smaller bytes is in this form already */
};

/* 0xCC begins U+0300, the first character that NFC may change or move. */
static const struct form_rule FORMS[] = {
    [FORM_NFC] = {UTF8PROC_STABLE | UTF8PROC_COMPOSE, 0xCC},
    [FORM_NFD] = {UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, 0x80},
    [FORM_NFKC] = {UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT, 0x80},
    [FORM_NFKD] = {UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT, 0x80},
};

static bool is_in_form(const struct form_rule *rule, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] >= rule->changes_from)
            return false;
    return true;
}

static void decompose(struct buffer *points, unsigned options, const char *text, const char *end)
{
    while (text < end) {
        int32_t parts[LONGEST_DECOMPOSITION];
        int ignored = 0;
        int32_t c = (int32_t)unicode_next(&text);
        utf8proc_ssize_t count = utf8proc_decompose_char(c, parts, LONGEST_DECOMPOSITION,
                                                         (utf8proc_option_t)options, &ignored);
        buffer_append(points, parts, (size_t)count * sizeof *parts);
    }
}

static unsigned combining_class(int32_t c)
{
    return c < 0x300 ? 0 : (unsigned)utf8proc_get_property(c)->combining_class;
}

/* ---- canonical order ---- */

static int compare_marks(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* By class, equal ones as they came: both are in the key, above the character's 21 bits. */
static void sort_marks(int32_t *marks, size_t count, struct buffer *keys)
{
    keys->length = 0;
    for (size_t i = 0; i < count; i++) {
        uint64_t key = (uint64_t)combining_class(marks[i]) << 53 | (uint64_t)i << 21 |
                       (uint64_t)(uint32_t)marks[i];
        buffer_append(keys, &key, sizeof key);
    }
    if (keys->failed)
        return;
    const uint64_t *sorted = (const uint64_t *)(const void *)keys->data;
    qsort(keys->data, count, sizeof *sorted, compare_marks);
    for (size_t i = 0; i < count; i++)
        marks[i] = (int32_t)(sorted[i] & 0x1FFFFF);
}

static void order_marks(int32_t *points, size_t count, struct buffer *keys)
{
    for (size_t i = 0, end; i < count; i = end + 1) {
        bool ordered = true;
        unsigned last = 0, next;
        for (end = i; end < count && (next = combining_class(points[end])) > 0; end++) {
            ordered = ordered && next >= last;
            last = next;
        }
        if (!ordered)
            sort_marks(points + i, end - i, keys);
    }
}

void canonical_append(struct buffer *to, enum canonical_form form, const char *text, size_t length)
{
    const struct form_rule *rule = &FORMS[form];
    if (is_in_form(rule, text, length)) {
        buffer_append(to, text, length);
        return;
    }
    struct buffer points, keys;
    buffer_init(&points, to->limit);
    buffer_init(&keys, to->limit);
    decompose(&points, rule->options, text, text + length);
    int32_t *c = (int32_t *)(void *)points.data;
    size_t count = points.length / sizeof *c;
    if (!points.failed)
        order_marks(c, count, &keys);
    if (points.failed || keys.failed) {
        to->failed = true;
        to->no_memory = points.no_memory || keys.no_memory;
    } else {
        utf8proc_ssize_t left =
            utf8proc_normalize_utf32(c, (utf8proc_ssize_t)count, (utf8proc_option_t)rule->options);
        for (utf8proc_ssize_t i = 0; i < left; i++)
            unicode_append(to, (uint32_t)c[i]);
    }
    buffer_close(&points);
    buffer_close(&keys);
}
