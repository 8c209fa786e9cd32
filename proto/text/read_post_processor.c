/* "post_processor": only the ids around a single text; pairs are not encoded here. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/text/tokenizer_json.h"

/* [CLS] and [SEP], [gMASK]<sop>: published ones have at most a few. */
enum { MAX_AROUND = 64 };

static int insert(struct around *around, bool in_front, const int32_t *ids, size_t count,
                  const struct json_node *node, struct error *err)
{
    if (around->count + count > MAX_AROUND)
        return node_error(node, err, ERROR_TOO_LARGE, "more than %d tokens on one side",
                          MAX_AROUND);
    int32_t *all = xmalloc((around->count + count) * sizeof *all);
    size_t shift = in_front ? count : 0;
    if (around->count > 0)
        memcpy(all + shift, around->ids, around->count * sizeof *all);
    if (count > 0)
        memcpy(all + (in_front ? 0 : around->count), ids, count * sizeof *all);
    free(around->ids);
    *around = (struct around){all, around->count + count};
    return 0;
}

/* ---- kinds ---- */

static int read_byte_level(void *target, const struct json_node *node, struct error *err)
{
    (void)target, (void)node, (void)err; /* it moves offsets only */
    return 0;
}

/* ["[SEP]", 102] */
static int read_pair(const struct json_node *node, const char *key, int32_t *id, struct error *err)
{
    struct json_node pair = node_member(node, key);
    const json_t *value = json_array_get(pair.json, 1);
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= VOCABULARY_MAX_TOKENS)
        return node_error(&pair, err, ERROR_INVALID, "expected a token and its id");
    *id = (int32_t)json_integer_value(value);
    return 0;
}

static int read_bert(void *target, const struct json_node *node, struct error *err)
{
    struct tokenizer *tokenizer = target;
    int32_t sep = 0, cls = 0;
    if (read_pair(node, "sep", &sep, err) != 0 || read_pair(node, "cls", &cls, err) != 0 ||
        insert(&tokenizer->before, true, &cls, 1, node, err) != 0)
        return -1;
    return insert(&tokenizer->after, false, &sep, 1, node, err);
}

/* The ids that "special_tokens" gives for a name. */
static int special_ids(const struct json_node *template, const char *name, int32_t ids[MAX_AROUND],
                       size_t *count, struct error *err)
{
    struct json_node specials = node_member(template, "special_tokens");
    struct json_node special = node_member(&specials, name);
    struct json_node list = node_member(&special, "ids");
    if (node_list(&list, count, err) != 0)
        return -1;
    if (*count > MAX_AROUND)
        return node_error(&list, err, ERROR_TOO_LARGE, "more than %d ids", MAX_AROUND);
    for (size_t i = 0; i < *count; i++) {
        json_int_t id = json_integer_value(json_array_get(list.json, i));
        if (!json_is_integer(json_array_get(list.json, i)) || id < 0 || id >= VOCABULARY_MAX_TOKENS)
            return node_error(&list, err, ERROR_INVALID, "[%zu]: expected a token id", i);
        ids[i] = (int32_t)id;
    }
    return 0;
}

/* {"SpecialToken": {"id": "<s>", "type_id": 0}} or {"Sequence": {"id": "A", "type_id": 0}} */
static int read_part(struct tokenizer *tokenizer, const struct json_node *template,
                     const struct json_node *part, bool *seen, struct around *front,
                     struct error *err)
{
    struct json_node sequence = node_member(part, "Sequence");
    struct json_node special = node_member(part, "SpecialToken");
    const char *name;
    int32_t ids[MAX_AROUND];
    size_t count;
    if (node_only(part, "Sequence SpecialToken", err) != 0 ||
        node_text(sequence.json ? &sequence : &special, "id", NULL, &name, err) != 0)
        return -1;
    if (sequence.json) {
        if (*seen || strcmp(name, "A") != 0)
            return node_error(part, err, ERROR_UNSUPPORTED, "the text 'A' once, and no other");
        *seen = true;
        return 0;
    }
    if (special_ids(template, name, ids, &count, err) != 0)
        return -1;
    return insert(*seen ? &tokenizer->after : front, false, ids, count, part, err);
}

static int read_template(void *target, const struct json_node *node, struct error *err)
{
    struct tokenizer *tokenizer = target;
    struct json_node parts = node_member(node, "single");
    struct around front = {0};
    size_t count;
    bool seen = false;
    int result = node_list(&parts, &count, err);
    for (size_t i = 0; result == 0 && i < count; i++) {
        struct json_node part = node_item(&parts, i);
        result = read_part(tokenizer, node, &part, &seen, &front, err);
    }
    if (result == 0 && !seen)
        result = node_error(&parts, err, ERROR_INVALID, "the text 'A' is not in it");
    if (result == 0)
        result = insert(&tokenizer->before, true, front.ids, front.count, node, err);
    free(front.ids);
    return result;
}

static int read_sequence(void *target, const struct json_node *node, struct error *err);

static const struct node_kind KINDS[] = {
    {"ByteLevel", "add_prefix_space trim_offsets use_regex", read_byte_level},
    {"BertProcessing", "sep cls", read_bert},
    {"RobertaProcessing", "sep cls trim_offsets add_prefix_space", read_bert},
    {"TemplateProcessing", "single pair special_tokens", read_template},
    {"Sequence", "processors", read_sequence},
    {NULL, NULL, NULL},
};

static int read_sequence(void *target, const struct json_node *node, struct error *err)
{
    return node_read_each(node, "processors", KINDS, target, err);
}

int read_post_processor(struct tokenizer *tokenizer, const struct json_node *node,
                        struct error *err)
{
    return node->json ? node_read_kind(node, KINDS, tokenizer, err) : 0;
}
