/* "decoder": rules for one token; what needs other tokens is refused, but for what all files have.
 */
#include <stdlib.h>
#include <string.h>

#include "proto/text/tokenizer_json.h"

static bool has(const struct decoder *decoder, enum decoder_rule_kind kind)
{
    for (size_t i = 0; i < decoder->count; i++)
        if (decoder->rules[i].kind == kind)
            return true;
    return false;
}

/* A stream of tokens is decoded one by one: bytes join neighbours, so rules behind them are for
 * text that is not there yet. Only characters may then be stripped from the start. */
static bool may_follow(const struct decoder *decoder, enum decoder_rule_kind kind)
{
    bool fused = has(decoder, DECODE_FUSE);
    if (has(decoder, DECODE_BYTE_LEVEL) || (fused && has(decoder, DECODE_STRIP)))
        return false;
    if (fused)
        return kind == DECODE_STRIP && decoder->rules[decoder->count - 1].kind == DECODE_FUSE;
    if (has(decoder, DECODE_BYTE_FALLBACK))
        return kind == DECODE_FUSE;
    return kind != DECODE_BYTE_LEVEL || decoder->count == 0;
}

static struct decoder_rule *add_rule(struct decoder *decoder, enum decoder_rule_kind kind,
                                     const struct json_node *node, struct error *err)
{
    if (decoder->count == DECODER_MAX_RULES || !may_follow(decoder, kind)) {
        node_error(node, err, ERROR_UNSUPPORTED,
                   "this decoder is not supported behind those before it");
        return NULL;
    }
    struct decoder_rule *rule = &decoder->rules[decoder->count++];
    *rule = (struct decoder_rule){.kind = kind};
    return rule;
}

/* ---- kinds ---- */

static int read_byte_level(void *target, const struct json_node *node, struct error *err)
{
    return add_rule(target, DECODE_BYTE_LEVEL, node, err) ? 0 : -1;
}

static int read_byte_fallback(void *target, const struct json_node *node, struct error *err)
{
    return add_rule(target, DECODE_BYTE_FALLBACK, node, err) ? 0 : -1;
}

static int read_fuse(void *target, const struct json_node *node, struct error *err)
{
    return add_rule(target, DECODE_FUSE, node, err) ? 0 : -1;
}

static int read_metaspace(void *target, const struct json_node *node, struct error *err)
{
    struct decoder_rule *rule = add_rule(target, DECODE_METASPACE, node, err);
    bool space;
    const char *scheme;
    if (!rule || read_short_text(node, "replacement", &rule->find, err) != 0 ||
        node_bool(node, "add_prefix_space", &(bool){true}, &space, err) != 0 ||
        node_text(node, "prepend_scheme", space ? "always" : "never", &scheme, err) != 0)
        return -1;
    rule->prepended = strcmp(scheme, "never") != 0;
    return *rule->find ? 0 : node_error(node, err, ERROR_INVALID, "the replacement is empty");
}

static int read_wordpiece(void *target, const struct json_node *node, struct error *err)
{
    struct decoder_rule *rule = add_rule(target, DECODE_WORDPIECE, node, err);
    if (!rule || read_short_text(node, "prefix", &rule->find, err) != 0)
        return -1;
    return node_bool(node, "cleanup", &(bool){true}, &rule->cleanup, err);
}

static int read_replace(void *target, const struct json_node *node, struct error *err)
{
    struct decoder_rule *rule = add_rule(target, DECODE_REPLACE, node, err);
    struct pattern *pattern = NULL;
    if (!rule || read_pattern(node, &rule->find, &pattern, err) != 0)
        return -1;
    pattern_free(pattern);
    if (pattern)
        return node_error(node, err, ERROR_UNSUPPORTED, "a decoder replaces texts, no patterns");
    return read_short_text(node, "content", &rule->content, err);
}

static int read_strip(void *target, const struct json_node *node, struct error *err)
{
    struct decoder_rule *rule = add_rule(target, DECODE_STRIP, node, err);
    int64_t start, stop;
    if (!rule || read_short_text(node, "content", &rule->find, err) != 0 ||
        node_integer(node, "start", 0, INT32_MAX, &start, err) != 0 ||
        node_integer(node, "stop", 0, INT32_MAX, &stop, err) != 0)
        return -1;
    rule->start = (size_t)start;
    rule->stop = (size_t)stop;
    if (!*rule->find || (stop > 0 && has(target, DECODE_FUSE)))
        return node_error(node, err, ERROR_UNSUPPORTED,
                          "stripping nothing, or the end of the whole text");
    return 0;
}

static int read_sequence(void *target, const struct json_node *node, struct error *err);

static const struct node_kind KINDS[] = {
    {"ByteLevel", "add_prefix_space trim_offsets use_regex", read_byte_level},
    {"ByteFallback", "", read_byte_fallback},
    {"Fuse", "", read_fuse},
    {"Metaspace", "replacement prepend_scheme add_prefix_space str_rep split", read_metaspace},
    {"WordPiece", "prefix cleanup", read_wordpiece},
    {"Replace", "pattern content", read_replace},
    {"Strip", "content start stop", read_strip},
    {"Sequence", "decoders", read_sequence},
    {NULL, NULL, NULL},
};

static int read_sequence(void *target, const struct json_node *node, struct error *err)
{
    return node_read_each(node, "decoders", KINDS, target, err);
}

int read_decoder(struct decoder *decoder, const struct json_node *node, struct error *err)
{
    decoder->joins = node->json != NULL;
    return node->json ? node_read_kind(node, KINDS, decoder, err) : 0;
}
