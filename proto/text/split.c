/* A stage reads the list of pieces and writes the next; only stages that change text copy it. */
#include "proto/text/split.h"

#include <stdlib.h>
#include <string.h>

#include "proto/text/byte_level.h"
#include "proto/text/normalize.h"

void splitter_close(struct splitter *splitter)
{
    for (size_t i = 0; i < splitter->count; i++) {
        pattern_free(splitter->stages[i].pattern);
        free(splitter->stages[i].text);
    }
    splitter->count = 0;
}

void pieces_init(struct pieces *pieces, size_t text_limit, size_t list_limit)
{
    buffer_init(&pieces->text, text_limit);
    buffer_init(&pieces->list, list_limit);
}

void pieces_close(struct pieces *pieces)
{
    buffer_close(&pieces->text);
    buffer_close(&pieces->list);
}

/* ---- cutting ---- */

/* Parts of one piece, as they come: what is written last may still grow. */
struct cutting {
    const struct stage *stage;
    struct buffer *list;
    struct piece whole;
    struct piece pending; /* length 0: none */
    bool pending_match;
};

static void flush(struct cutting *cutting)
{
    if (cutting->pending.length > 0)
        buffer_append(cutting->list, &cutting->pending, sizeof cutting->pending);
    cutting->pending.length = 0;
}

/* Whether a part joins the one before it. */
static bool joins(const struct cutting *cutting, bool match)
{
    if (cutting->pending.length == 0)
        return false;
    switch (cutting->stage->behavior) {
    case SPLIT_MERGED_WITH_PREVIOUS:
        return match && !cutting->pending_match;
    case SPLIT_MERGED_WITH_NEXT:
        return cutting->pending_match && !match;
    case SPLIT_CONTIGUOUS:
        return match == cutting->pending_match;
    default:
        return false;
    }
}

static void add_part(struct cutting *cutting, size_t from, size_t to, bool match)
{
    match = match != cutting->stage->invert;
    if (from == to)
        return;
    if (cutting->stage->behavior == SPLIT_REMOVED && match)
        return flush(cutting);
    if (joins(cutting, match)) {
        cutting->pending.length += to - from;
    } else {
        flush(cutting);
        bool first = cutting->whole.first && from == 0;
        cutting->pending = (struct piece){cutting->whole.start + from, to - from, first};
    }
    cutting->pending_match = match;
}

static bool find_text(const char *find, const char **start, const char **stop, const char *end)
{
    size_t length = strlen(find);
    const char *found = memmem(*start, (size_t)(end - *start), find, length);
    if (!found)
        return false;
    *start = found;
    *stop = found + length;
    return true;
}

static int cut(struct cutting *cutting, const char *text, uint64_t *steps_left, struct error *err)
{
    const struct stage *stage = cutting->stage;
    const char *end = text + cutting->whole.length, *start = text, *stop = text, *last = text;
    struct pattern_search search = {0};
    if (stage->pattern)
        search = pattern_begin(stage->pattern, text, cutting->whole.length, steps_left);
    while (stage->pattern ? pattern_find(&search, &start, &stop)
                          : find_text(stage->text, &start, &stop, end)) {
        add_part(cutting, (size_t)(last - text), (size_t)(start - text), false);
        add_part(cutting, (size_t)(start - text), (size_t)(stop - text), true);
        last = start = stop;
    }
    if (*steps_left == 0)
        return error_set(err, ERROR_INVALID,
                         "the tokenizer's pattern takes too many steps for this text");
    add_part(cutting, (size_t)(last - text), cutting->whole.length, false);
    flush(cutting);
    return 0;
}

/* ---- changing text ---- */

static void change(const struct stage *stage, struct buffer *to, const char *text,
                   const struct piece *piece)
{
    const char *from = text + piece->start;
    if (stage->kind == STAGE_BYTES)
        return byte_level_append(to, from, piece->length);
    if (stage->kind == STAGE_SPACE) {
        if (*from != ' ')
            buffer_text(to, " ");
        return buffer_append(to, from, piece->length);
    }
    size_t mark = strlen(stage->text);
    bool marked = *from == ' ' || (piece->length >= mark && memcmp(from, stage->text, mark) == 0);
    bool wanted =
        stage->prepend == PREPEND_ALWAYS || (stage->prepend == PREPEND_FIRST && piece->first);
    if (wanted && !marked)
        buffer_text(to, stage->text);
    replace_text(to, from, piece->length, " ", stage->text);
}

static void change_all(const struct stage *stage, const struct pieces *pieces, struct pieces *out)
{
    size_t count;
    const struct piece *list = pieces_list(pieces, &count);
    for (size_t i = 0; i < count; i++) {
        size_t start = out->text.length;
        change(stage, &out->text, pieces->text.data, &list[i]);
        struct piece changed = {start, out->text.length - start, list[i].first};
        buffer_append(&out->list, &changed, sizeof changed);
    }
}

static int cut_all(const struct stage *stage, const struct pieces *pieces, struct pieces *out,
                   uint64_t *steps_left, struct error *err)
{
    size_t count;
    const struct piece *list = pieces_list(pieces, &count);
    for (size_t i = 0; i < count; i++) {
        struct cutting cutting = {.stage = stage, .list = &out->list, .whole = list[i]};
        if (cut(&cutting, pieces->text.data + list[i].start, steps_left, err) != 0)
            return -1;
    }
    return 0;
}

/* ---- all stages ---- */

static void swap(struct buffer *a, struct buffer *b)
{
    struct buffer kept = *a;
    *a = *b;
    *b = kept;
}

int splitter_run(const struct splitter *splitter, struct pieces *pieces, bool first,
                 uint64_t *steps_left, struct error *err)
{
    struct pieces next;
    pieces_init(&next, pieces->text.limit, pieces->list.limit);
    pieces->list.length = 0;
    struct piece whole = {0, pieces->text.length, first};
    if (whole.length > 0)
        buffer_append(&pieces->list, &whole, sizeof whole);
    int result = 0;
    if (pieces->list.failed)
        result = buffer_error(&pieces->list, "the list of words", "send shorter text", err);
    for (size_t i = 0; i < splitter->count && result == 0; i++) {
        const struct stage *stage = &splitter->stages[i];
        next.text.length = next.list.length = 0;
        if (stage->kind == STAGE_SPLIT) {
            result = cut_all(stage, pieces, &next, steps_left, err);
        } else {
            change_all(stage, pieces, &next);
            swap(&pieces->text, &next.text);
        }
        swap(&pieces->list, &next.list);
        if (pieces->list.failed)
            result = buffer_error(&pieces->list, "the list of words", "send shorter text", err);
        else if (pieces->text.failed)
            result = buffer_error(&pieces->text, "the text", "send shorter text", err);
    }
    pieces_close(&next);
    return result;
}
