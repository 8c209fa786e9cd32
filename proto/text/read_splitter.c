/* "pre_tokenizer": most kinds are a split at some pattern. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/text/tokenizer_json.h"

/* ByteLevel's own, GPT-2's. */
#define GPT2_PATTERN                                                                               \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* Whitespace's: \w as the regex crate has it. */
#define WORD                                                                                       \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\xE2\x93\x86-\xE2\x93\xA9\xF0\x9F\x84\xB0-\xF0\x9F\x85\x89"  \
    "\xF0\x9F\x85\x90-\xF0\x9F\x85\xA9\xF0\x9F\x85\xB0-\xF0\x9F\x86\x89\xE2\x80\x8C\xE2\x80\x8D"
#define PUNCTUATION_PATTERN "[\\p{P}$+<=>\\^`|~]"

static struct stage *add_stage(struct splitter *splitter, enum stage_kind kind,
                               const struct json_node *node, struct error *err)
{
    if (splitter->count == SPLITTER_MAX_STAGES) {
        node_error(node, err, ERROR_TOO_LARGE, "more than %d stages", SPLITTER_MAX_STAGES);
        return NULL;
    }
    struct stage *stage = &splitter->stages[splitter->count++];
    *stage = (struct stage){.kind = kind};
    return stage;
}

static int add_split(struct splitter *splitter, const char *pattern, enum split_behavior behavior,
                     const struct json_node *node, struct error *err)
{
    struct stage *stage = add_stage(splitter, STAGE_SPLIT, node, err);
    if (!stage)
        return -1;
    stage->behavior = behavior;
    stage->pattern = pattern_new(pattern, err);
    return stage->pattern ? 0 : -1;
}

static int read_behavior(const struct json_node *node, const char *otherwise,
                         enum split_behavior *behavior, struct error *err)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious",
                                        "MergedWithNext", "Contiguous"};
    const char *name;
    if (node_text(node, "behavior", otherwise, &name, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            *behavior = (enum split_behavior)i;
            return 0;
        }
    }
    struct json_node member = node_member(node, "behavior");
    return node_error(&member, err, ERROR_UNSUPPORTED, "'%.60s' is not supported", name);
}

/* ---- kinds ---- */

static int read_split(void *target, const struct json_node *node, struct error *err)
{
    struct stage *stage = add_stage(target, STAGE_SPLIT, node, err);
    if (!stage || read_pattern(node, &stage->text, &stage->pattern, err) != 0 ||
        read_behavior(node, NULL, &stage->behavior, err) != 0)
        return -1;
    return node_bool(node, "invert", &(bool){false}, &stage->invert, err);
}

static int read_byte_level(void *target, const struct json_node *node, struct error *err)
{
    bool space, splits;
    if (node_bool(node, "add_prefix_space", NULL, &space, err) != 0 ||
        node_bool(node, "use_regex", &(bool){true}, &splits, err) != 0)
        return -1;
    if (space && !add_stage(target, STAGE_SPACE, node, err))
        return -1;
    if (splits && add_split(target, GPT2_PATTERN, SPLIT_ISOLATED, node, err) != 0)
        return -1;
    return add_stage(target, STAGE_BYTES, node, err) ? 0 : -1;
}

static int read_digits(void *target, const struct json_node *node, struct error *err)
{
    bool each;
    if (node_bool(node, "individual_digits", &(bool){false}, &each, err) != 0)
        return -1;
    return add_split(target, each ? "\\p{N}" : "\\p{N}+", SPLIT_ISOLATED, node, err);
}

static int read_whitespace(void *target, const struct json_node *node, struct error *err)
{
    if (add_split(target, "[" WORD "]+|[^" WORD "\\s]+", SPLIT_REMOVED, node, err) != 0)
        return -1;
    struct splitter *splitter = target;
    splitter->stages[splitter->count - 1].invert = true;
    return 0;
}

static int read_whitespace_split(void *target, const struct json_node *node, struct error *err)
{
    return add_split(target, "\\s", SPLIT_REMOVED, node, err);
}

static int read_bert(void *target, const struct json_node *node, struct error *err)
{
    if (read_whitespace_split(target, node, err) != 0)
        return -1;
    return add_split(target, PUNCTUATION_PATTERN, SPLIT_ISOLATED, node, err);
}

static int read_punctuation(void *target, const struct json_node *node, struct error *err)
{
    enum split_behavior behavior = SPLIT_ISOLATED;
    if (read_behavior(node, "Isolated", &behavior, err) != 0)
        return -1;
    return add_split(target, PUNCTUATION_PATTERN, behavior, node, err);
}

static int read_delimiter(void *target, const struct json_node *node, struct error *err)
{
    struct stage *stage = add_stage(target, STAGE_SPLIT, node, err);
    if (!stage || read_short_text(node, "delimiter", &stage->text, err) != 0)
        return -1;
    stage->behavior = SPLIT_REMOVED;
    return *stage->text ? 0 : node_error(node, err, ERROR_INVALID, "the delimiter is empty");
}

/* Newer files have prepend_scheme, older ones add_prefix_space. */
static int read_prepend_scheme(const struct json_node *node, enum prepend_scheme *scheme,
                               struct error *err)
{
    static const char *const names[] = {"always", "first", "never"};
    bool space;
    const char *name;
    if (node_bool(node, "add_prefix_space", &(bool){true}, &space, err) != 0 ||
        node_text(node, "prepend_scheme", space ? "always" : "never", &name, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(names[i], name) == 0) {
            *scheme = (enum prepend_scheme)i;
            return 0;
        }
    }
    return node_error(node, err, ERROR_UNSUPPORTED, "prepend_scheme '%.60s' is not supported",
                      name);
}

static int read_metaspace(void *target, const struct json_node *node, struct error *err)
{
    struct stage *stage = add_stage(target, STAGE_METASPACE, node, err);
    bool splits;
    if (!stage || read_short_text(node, "replacement", &stage->text, err) != 0 ||
        read_prepend_scheme(node, &stage->prepend, err) != 0 ||
        node_bool(node, "split", &(bool){true}, &splits, err) != 0)
        return -1;
    if (!*stage->text)
        return node_error(node, err, ERROR_INVALID, "the replacement is empty");
    struct stage *split = splits ? add_stage(target, STAGE_SPLIT, node, err) : stage;
    if (!split || !splits)
        return split ? 0 : -1;
    split->behavior = SPLIT_MERGED_WITH_NEXT;
    split->text = xstrdup(stage->text);
    return 0;
}

static int read_sequence(void *target, const struct json_node *node, struct error *err);

static const struct node_kind KINDS[] = {
    {"Split", "pattern behavior invert", read_split},
    {"ByteLevel", "add_prefix_space trim_offsets use_regex", read_byte_level},
    {"Digits", "individual_digits", read_digits},
    {"Metaspace", "replacement prepend_scheme add_prefix_space str_rep split", read_metaspace},
    {"Whitespace", "", read_whitespace},
    {"WhitespaceSplit", "", read_whitespace_split},
    {"BertPreTokenizer", "", read_bert},
    {"Punctuation", "behavior", read_punctuation},
    {"CharDelimiterSplit", "delimiter", read_delimiter},
    {"Sequence", "pretokenizers", read_sequence},
    {NULL, NULL, NULL},
};

static int read_sequence(void *target, const struct json_node *node, struct error *err)
{
    return node_read_each(node, "pretokenizers", KINDS, target, err);
}

int read_splitter(struct splitter *splitter, const struct json_node *node, struct error *err)
{
    return node->json ? node_read_kind(node, KINDS, splitter, err) : 0;
}
