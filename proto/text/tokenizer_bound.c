/* What the length of a text alone says of how many tokens it has. Where a tokenizer may leave
 * something out, or make one token of any number of characters, it says nothing. */
#include <string.h>

#include "proto/text/byte_level.h"
#include "proto/text/tokenizer.h"
#include "proto/text/tokenizer_private.h"

/* By how much each step may shorten what is not ASCII, of which a byte stays one at least: 1 not at
 * all, 0 there is no bound. Three bytes may become one (U+1FEF, U+212A), with a compatibility form
 * four; and what is composed is up to a third of its parts (Hangul). */
static size_t shrinks_by(const struct normalizer_step *step)
{
    static const size_t FORMS[] = {
        [FORM_NFD] = 3, [FORM_NFKD] = 4, [FORM_NFC] = 3 * 3, [FORM_NFKC] = 4 * 3};
    switch (step->kind) {
    case NORMALIZE_FORM:
        return FORMS[step->form];
    case NORMALIZE_LOWERCASE:
        return 3;
    case NORMALIZE_REPLACE:
        return !step->pattern && strlen(step->content) >= strlen(step->find);
    case NORMALIZE_PREPEND:
    case NORMALIZE_CHINESE:
    case NORMALIZE_BYTE_LEVEL:
        return 1;
    default:
        return 0;
    }
}

/* Two steps that shorten could shorten what the first has composed of ASCII. */
static size_t normalizer_shrinks_by(const struct normalizer *normalizer)
{
    size_t most = 1;
    for (size_t i = 0; i < normalizer->count; i++) {
        const size_t by = shrinks_by(&normalizer->steps[i]);
        if (by == 0 || (by > 1 && most > 1))
            return 0;
        most *= by;
    }
    return most;
}

static bool removes_nothing(const struct splitter *splitter)
{
    for (size_t i = 0; i < splitter->count; i++)
        if (splitter->stages[i].kind == STAGE_SPLIT &&
            splitter->stages[i].behavior == SPLIT_REMOVED)
            return false;
    return true;
}

/* The white space around such a token has no end. */
static bool strips_nothing(const struct tokenizer *tokenizer)
{
    for (size_t i = 0; i < tokenizer->added_count; i++)
        if (tokenizer->added[i].left_strip || tokenizer->added[i].right_strip)
            return false;
    return true;
}

static bool has_all(const int32_t byte_ids[256])
{
    for (size_t i = 0; i < 256; i++)
        if (byte_ids[i] < 0)
            return false;
    return true;
}

/* Every byte has a character, which the model knows. */
static bool has_alphabet(const struct tokenizer *tokenizer)
{
    const struct normalizer *normalizer = &tokenizer->normalizer;
    bool mapped = normalizer->count > 0 &&
                  normalizer->steps[normalizer->count - 1].kind == NORMALIZE_BYTE_LEVEL;
    for (size_t i = 0; i < tokenizer->splitter.count; i++)
        mapped |= tokenizer->splitter.stages[i].kind == STAGE_BYTES;
    for (uint32_t c = 0; mapped && c < BPE_TABLE_CHARACTERS; c++)
        mapped = byte_level_byte(c) < 0 || tokenizer->model.bpe.character_ids[c] >= 0;
    return mapped;
}

/* Characters that no token has become at least a token each. */
static bool leaves_nothing_out(const struct tokenizer *tokenizer)
{
    const struct model *model = &tokenizer->model;
    if (model->kind == MODEL_BPE)
        return has_all(model->bpe.byte_ids) || has_alphabet(tokenizer) ||
               (model->bpe.unknown >= 0 && !model->bpe.fuse_unknown);
    return model->kind == MODEL_UNIGRAM && has_all(model->unigram.byte_ids);
}

static size_t longest_of(const struct added_set *set, size_t longest)
{
    for (size_t i = 0; i < set->lexicon.count; i++)
        if (set->lexicon.words[i].length > longest)
            longest = set->lexicon.words[i].length;
    return longest;
}

void tokenizer_find_bound(struct tokenizer *tokenizer)
{
    const size_t character = 4;
    const size_t longest = longest_of(&tokenizer->raw, tokenizer->vocabulary.longest);
    tokenizer->shrinks_by = normalizer_shrinks_by(&tokenizer->normalizer);
    if (!removes_nothing(&tokenizer->splitter) || !strips_nothing(tokenizer) ||
        !leaves_nothing_out(tokenizer))
        tokenizer->shrinks_by = 0;
    tokenizer->longest = longest_of(&tokenizer->normalized, longest);
    if (tokenizer->longest < character)
        tokenizer->longest = character;
}

size_t tokenizer_fewest(const struct tokenizer *tokenizer, const char *text, size_t length)
{
    size_t ascii = 0;
    if (tokenizer->shrinks_by == 0)
        return 0;
    for (size_t i = 0; i < length; i++)
        ascii += (unsigned char)text[i] < 0x80;
    return (ascii + (length - ascii) / tokenizer->shrinks_by) / tokenizer->longest;
}
