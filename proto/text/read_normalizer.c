/* "normalizer": each kind becomes a few steps. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/text/tokenizer_json.h"

/* Replacements: published ones have one character. */
enum { SHORT_TEXT_BYTES = 256 };

int read_short_text(const struct json_node *node, const char *key, char **text, struct error *err)
{
    const char *value;
    if (node_text(node, key, NULL, &value, err) != 0)
        return -1;
    struct json_node member = node_member(node, key);
    if (strlen(value) > SHORT_TEXT_BYTES)
        return node_error(&member, err, ERROR_TOO_LARGE, "longer than %d bytes", SHORT_TEXT_BYTES);
    *text = xstrdup(value);
    return 0;
}

int read_pattern(const struct json_node *node, char **text, struct pattern **pattern,
                 struct error *err)
{
    struct json_node member = node_member(node, "pattern");
    const char *source;
    if (node_only(&member, "String Regex", err) != 0)
        return -1;
    if (json_object_get(member.json, "String")) {
        if (read_short_text(&member, "String", text, err) != 0)
            return -1;
        return **text ? 0 : node_error(&member, err, ERROR_INVALID, "the empty text");
    }
    if (node_text(&member, "Regex", NULL, &source, err) != 0)
        return -1;
    *pattern = pattern_new(source, err);
    return *pattern ? 0 : node_prefix(&member, err);
}

static struct normalizer_step *add_step(struct normalizer *normalizer, enum normalizer_kind kind,
                                        const struct json_node *node, struct error *err)
{
    if (normalizer->count == NORMALIZER_MAX_STEPS) {
        node_error(node, err, ERROR_TOO_LARGE, "more than %d steps", NORMALIZER_MAX_STEPS);
        return NULL;
    }
    struct normalizer_step *step = &normalizer->steps[normalizer->count++];
    *step = (struct normalizer_step){.kind = kind};
    return step;
}

static int add_form(struct normalizer *normalizer, enum canonical_form form,
                    const struct json_node *node, struct error *err)
{
    struct normalizer_step *step = add_step(normalizer, NORMALIZE_FORM, node, err);
    if (!step)
        return -1;
    step->form = form;
    return 0;
}

/* ---- kinds ---- */

static int read_form(void *target, const struct json_node *node, struct error *err)
{
    static const char *const names[] = {"NFC", "NFD", "NFKC", "NFKD"};
    const char *type = json_string_value(json_object_get(node->json, "type"));
    int form = 0;
    while (strcmp(names[form], type) != 0)
        form++;
    return add_form(target, (enum canonical_form)form, node, err);
}

static int read_lowercase(void *target, const struct json_node *node, struct error *err)
{
    return add_step(target, NORMALIZE_LOWERCASE, node, err) ? 0 : -1;
}

static int read_strip_accents(void *target, const struct json_node *node, struct error *err)
{
    return add_step(target, NORMALIZE_STRIP_ACCENTS, node, err) ? 0 : -1;
}

static int read_byte_level(void *target, const struct json_node *node, struct error *err)
{
    return add_step(target, NORMALIZE_BYTE_LEVEL, node, err) ? 0 : -1;
}

static int read_strip(void *target, const struct json_node *node, struct error *err)
{
    struct normalizer_step *step = add_step(target, NORMALIZE_STRIP, node, err);
    if (!step || node_bool(node, "strip_left", NULL, &step->left, err) != 0)
        return -1;
    return node_bool(node, "strip_right", NULL, &step->right, err);
}

static int read_prepend(void *target, const struct json_node *node, struct error *err)
{
    struct normalizer_step *step = add_step(target, NORMALIZE_PREPEND, node, err);
    return step ? read_short_text(node, "prepend", &step->content, err) : -1;
}

static int read_replace(void *target, const struct json_node *node, struct error *err)
{
    struct normalizer_step *step = add_step(target, NORMALIZE_REPLACE, node, err);
    if (!step || read_pattern(node, &step->find, &step->pattern, err) != 0)
        return -1;
    return read_short_text(node, "content", &step->content, err);
}

static int read_precompiled(void *target, const struct json_node *node, struct error *err)
{
    const char *base64;
    if (node_text(node, "precompiled_charsmap", NULL, &base64, err) != 0)
        return -1;
    struct normalizer_step *step = add_step(target, NORMALIZE_CHARSMAP, node, err);
    if (!step)
        return -1;
    return charsmap_init(&step->charsmap, base64, err) == 0 ? 0 : node_prefix(node, err);
}

static int read_bert(void *target, const struct json_node *node, struct error *err)
{
    bool clean, chinese, lower, accents;
    if (node_bool(node, "clean_text", &(bool){true}, &clean, err) != 0 ||
        node_bool(node, "handle_chinese_chars", &(bool){true}, &chinese, err) != 0 ||
        node_bool(node, "lowercase", &(bool){true}, &lower, err) != 0 ||
        node_bool(node, "strip_accents", &lower, &accents, err) != 0)
        return -1;
    if (clean && !add_step(target, NORMALIZE_CLEAN, node, err))
        return -1;
    if (chinese && !add_step(target, NORMALIZE_CHINESE, node, err))
        return -1;
    if (accents && (add_form(target, FORM_NFD, node, err) != 0 ||
                    !add_step(target, NORMALIZE_STRIP_BERT, node, err)))
        return -1;
    return !lower || add_step(target, NORMALIZE_LOWERCASE, node, err) ? 0 : -1;
}

static int read_sequence(void *target, const struct json_node *node, struct error *err);

static const struct node_kind KINDS[] = {
    {"NFC", "", read_form},
    {"NFD", "", read_form},
    {"NFKC", "", read_form},
    {"NFKD", "", read_form},
    {"Lowercase", "", read_lowercase},
    {"StripAccents", "", read_strip_accents},
    {"Strip", "strip_left strip_right", read_strip},
    {"Prepend", "prepend", read_prepend},
    {"Replace", "pattern content", read_replace},
    {"BertNormalizer", "clean_text handle_chinese_chars strip_accents lowercase", read_bert},
    {"Precompiled", "precompiled_charsmap", read_precompiled},
    {"ByteLevel", "", read_byte_level},
    {"Sequence", "normalizers", read_sequence},
    {NULL, NULL, NULL},
};

static int read_sequence(void *target, const struct json_node *node, struct error *err)
{
    return node_read_each(node, "normalizers", KINDS, target, err);
}

int read_normalizer(struct normalizer *normalizer, const struct json_node *node, struct error *err)
{
    return node->json ? node_read_kind(node, KINDS, normalizer, err) : 0;
}
