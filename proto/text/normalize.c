/* Each step writes a new text; two buffers take turns. */
#include "proto/text/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "proto/text/byte_level.h"
#include "proto/text/unicode.h"

void normalizer_close(struct normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->count; i++) {
        struct normalizer_step *step = &normalizer->steps[i];
        free(step->find);
        free(step->content);
        pattern_free(step->pattern);
        charsmap_close(&step->charsmap);
    }
    normalizer->count = 0;
}

/* ---- character by character ---- */

static void append_lower(struct buffer *to, uint32_t c)
{
    if (c == 0x130) { /* the one letter whose lower case is two */
        buffer_text(to, "i\xCC\x87");
        return;
    }
    unicode_append(to, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
}

static void append_clean(struct buffer *to, uint32_t c)
{
    bool blank = c == '\t' || c == '\n' || c == '\r' || unicode_is_space(c);
    uint32_t controls = CLASS_CC | CLASS_CF | CLASS_CO;
    bool line = c == '\t' || c == '\n' || c == '\r';
    if (c == 0 || c == 0xFFFD || (!line && (unicode_class(c) & controls)))
        return;
    unicode_append(to, blank ? ' ' : c);
}

static bool is_ideograph(uint32_t c)
{
    /* BERT's list. */
    static const uint32_t ranges[][2] = {{0x4E00, 0x9FFF},   {0x3400, 0x4DBF},   {0x20000, 0x2A6DF},
                                         {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F}, {0x2B920, 0x2CEAF},
                                         {0xF900, 0xFAFF},   {0x2F800, 0x2FA1F}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    return false;
}

static void append_spaced(struct buffer *to, uint32_t c)
{
    bool spaced = is_ideograph(c);
    if (spaced)
        buffer_text(to, " ");
    unicode_append(to, c);
    if (spaced)
        buffer_text(to, " ");
}

static void append_without_marks(struct buffer *to, uint32_t c)
{
    if (!(unicode_class(c) & CLASS_M))
        unicode_append(to, c);
}

static void append_without_nonspacing(struct buffer *to, uint32_t c)
{
    if (!(unicode_class(c) & CLASS_MN))
        unicode_append(to, c);
}

static void each_character(struct buffer *to, const char *text, size_t length,
                           void (*append)(struct buffer *to, uint32_t c))
{
    for (const char *end = text + length; text < end;)
        append(to, unicode_next(&text));
}

/* ---- the rest ---- */

static void strip(const struct normalizer_step *step, struct buffer *to, const char *text,
                  size_t length)
{
    const char *end = text + length;
    for (const char *next = text; step->left && text < end; text = next)
        if (!unicode_is_space(unicode_next(&next)))
            break;
    while (step->right && end > text) {
        const char *last = unicode_previous(end), *c = last;
        if (!unicode_is_space(unicode_next(&c)))
            break;
        end = last;
    }
    buffer_append(to, text, (size_t)(end - text));
}

void replace_text(struct buffer *to, const char *text, size_t length, const char *find,
                  const char *content)
{
    const char *end = text + length, *found;
    size_t find_length = strlen(find);
    while (!to->failed && (found = memmem(text, (size_t)(end - text), find, find_length)) != NULL) {
        buffer_append(to, text, (size_t)(found - text));
        buffer_text(to, content);
        text = found + find_length;
    }
    buffer_append(to, text, (size_t)(end - text));
}

static void replace_pattern(const struct normalizer_step *step, struct buffer *to, const char *text,
                            size_t length, uint64_t *steps_left)
{
    struct pattern_search search = pattern_begin(step->pattern, text, length, steps_left);
    const char *start = text, *stop;
    while (pattern_find(&search, &start, &stop)) {
        buffer_append(to, text, (size_t)(start - text));
        buffer_text(to, step->content);
        text = start = stop;
    }
    if (*steps_left == 0)
        to->failed = true;
    buffer_append(to, text, (size_t)(search.end - text));
}

static void run_step(const struct normalizer_step *step, struct buffer *to, const char *text,
                     size_t length, uint64_t *steps_left)
{
    switch (step->kind) {
    case NORMALIZE_FORM:
        return canonical_append(to, step->form, text, length);
    case NORMALIZE_LOWERCASE:
        return each_character(to, text, length, append_lower);
    case NORMALIZE_STRIP_ACCENTS:
        return each_character(to, text, length, append_without_marks);
    case NORMALIZE_STRIP_BERT:
        return each_character(to, text, length, append_without_nonspacing);
    case NORMALIZE_CLEAN:
        return each_character(to, text, length, append_clean);
    case NORMALIZE_CHINESE:
        return each_character(to, text, length, append_spaced);
    case NORMALIZE_STRIP:
        return strip(step, to, text, length);
    case NORMALIZE_REPLACE:
        if (step->pattern)
            return replace_pattern(step, to, text, length, steps_left);
        return replace_text(to, text, length, step->find, step->content);
    case NORMALIZE_PREPEND:
        if (length > 0)
            buffer_text(to, step->content);
        return buffer_append(to, text, length);
    case NORMALIZE_CHARSMAP:
        return charsmap_append(&step->charsmap, to, text, length);
    case NORMALIZE_BYTE_LEVEL:
        return byte_level_append(to, text, length);
    }
}

void normalizer_run(const struct normalizer *normalizer, const char *text, size_t length,
                    uint64_t *steps_left, struct buffer *to)
{
    struct buffer other;
    buffer_init(&other, to->limit);
    to->length = 0;
    if (normalizer->count == 0)
        buffer_append(to, text, length);
    for (size_t i = 0; i < normalizer->count; i++) {
        struct buffer last = other;
        other = *to;
        *to = last;
        to->length = 0;
        run_step(&normalizer->steps[i], to, i ? other.data : text, i ? other.length : length,
                 steps_left);
        buffer_fail_with(to, &other);
    }
    buffer_close(&other);
}
