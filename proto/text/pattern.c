/* A recursive-descent reader that links each node to what comes after it as it goes. */
#include "proto/text/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/text/pattern_private.h"
#include "proto/text/unicode.h"

struct parser {
    const char *source, *at;
    struct pattern *pattern;
    bool fold; /* inside (?i: ) */
    bool failed;
    struct error *err;
};

static void refuse(struct parser *parser, const char *what)
{
    if (!parser->failed)
        error_set(parser->err, ERROR_UNSUPPORTED, "the pattern '%.200s': at byte %zu ('%.12s'): %s",
                  parser->source, (size_t)(parser->at - parser->source), parser->at, what);
    parser->failed = true;
}

static bool skip(struct parser *parser, const char *text)
{
    size_t length = strlen(text);
    if (strncmp(parser->at, text, length) != 0)
        return false;
    parser->at += length;
    return true;
}

/* ---- sets ---- */

static void add_ascii(struct set *set, uint32_t c)
{
    set->ascii[c / 64] |= UINT64_C(1) << c % 64;
}

static bool has_ascii(const struct set *set, uint32_t c)
{
    return set->ascii[c / 64] >> c % 64 & 1;
}

static void add_range(struct parser *parser, struct set *set, uint32_t from, uint32_t to)
{
    for (; from < 128 && from <= to; from++)
        add_ascii(set, from);
    if (from > to)
        return;
    if (set->range_count == PATTERN_MAX_RANGES)
        return refuse(parser, "a class has too many ranges");
    set->ranges[set->range_count++] = (struct range){from, to};
}

/* All but the mask's: every code point has one category, and CLASS_SPACE is no category. */
static void add_others(struct parser *parser, struct set *set, uint32_t mask)
{
    if (mask == CLASS_SPACE) { /* gaps between the white space */
        uint32_t from = 0;
        for (uint32_t c = 0; c <= 0x3000; c++) {
            if (!unicode_is_space(c))
                continue;
            if (c > from)
                add_range(parser, set, from, c - 1);
            from = c + 1;
        }
        return add_range(parser, set, from, 0x10FFFF);
    }
    set->mask |= ~mask & ~CLASS_SPACE;
}

/* Behind "\p" or "\P". */
static void add_property(struct parser *parser, struct set *set, bool others)
{
    const char *name = parser->at + 1, *end = strchr(parser->at, '}');
    if (*parser->at != '{' || !end)
        return refuse(parser, "\\p is not followed by {name}");
    if (*name == '^') {
        others = !others;
        name++;
    }
    uint32_t mask = unicode_class_named(name, (size_t)(end - name));
    if (!mask)
        return refuse(parser, "no such general category");
    parser->at = end + 1;
    if (others)
        add_others(parser, set, mask);
    else
        set->mask |= mask;
}

/* \w as Oniguruma has it, whose Latin-1 is that of older days. */
static void add_word_characters(struct parser *parser, struct set *set)
{
    static const struct range others[] = {{0xB2, 0xB3},      {0xB9, 0xB9},       {0xBC, 0xBE},
                                          {0x24B6, 0x24E9},  {0x1F130, 0x1F149}, {0x1F150, 0x1F169},
                                          {0x1F170, 0x1F189}};
    set->mask |= CLASS_L | CLASS_M | CLASS_ND | CLASS_NL | CLASS_PC;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        add_range(parser, set, others[i].from, others[i].to);
}

/* The character that an escape stands for; 0: it stands for none, or for a class. */
static uint32_t escaped_character(char c)
{
    static const char controls[] = "r\rn\nt\tf\fv\v";
    for (const char *pair = controls; *pair; pair += 2)
        if (pair[0] == c)
            return (uint32_t)pair[1];
    return c && strchr("\\^$.|?*+()[]{}-/'\"#&~!@%=<>:,;` _", c) ? (uint32_t)c : 0;
}

/* Behind a backslash: a class is added and 0 returned, or the character is. */
static uint32_t read_escape(struct parser *parser, struct set *set)
{
    char c = *parser->at;
    uint32_t character = escaped_character(c);
    if (!character && (!c || !strchr("pPsSdDw", c))) {
        refuse(parser, "an escape that is not known here");
        return 0;
    }
    parser->at++;
    if (c == 'p' || c == 'P')
        add_property(parser, set, c == 'P');
    else if (c == 'S' || c == 'D')
        add_others(parser, set, c == 'S' ? CLASS_SPACE : CLASS_ND);
    else if (!character && c == 'w')
        add_word_characters(parser, set);
    else if (!character)
        set->mask |= c == 's' ? CLASS_SPACE : CLASS_ND;
    return character;
}

static uint32_t read_class_character(struct parser *parser, struct set *set)
{
    if (!*parser->at) {
        refuse(parser, "the class has no end");
        return 0;
    }
    if (skip(parser, "\\"))
        return read_escape(parser, set);
    if (*parser->at == '[' || strncmp(parser->at, "&&", 2) == 0) {
        refuse(parser, "a class inside a class, or an intersection of classes");
        return 0;
    }
    return unicode_next(&parser->at);
}

/* Behind "[". */
static void read_class(struct parser *parser, struct set *set)
{
    set->negated = skip(parser, "^");
    bool first = true;
    for (; !parser->failed && (*parser->at != ']' || first); first = false) {
        if (!*parser->at)
            return refuse(parser, "the class has no end");
        uint32_t from = read_class_character(parser, set), to = from;
        if (!from)
            continue;
        if (parser->at[0] == '-' && parser->at[1] != ']') {
            parser->at++;
            to = read_class_character(parser, set);
            if (to < from)
                return refuse(parser, "a range whose end is not a character behind its start");
        }
        add_range(parser, set, from, to);
    }
    parser->at++;
}

/* What differs only in case: of letters beyond ASCII, those that fold to an ASCII letter. */
static void fold_set(struct parser *parser, struct set *set)
{
    if (set->range_count > 0)
        return refuse(parser, "(?i: ) with a letter beyond ASCII");
    for (uint32_t c = 'a'; c <= 'z'; c++) {
        if (!has_ascii(set, c) && !has_ascii(set, c ^ 0x20))
            continue;
        add_ascii(set, c);
        add_ascii(set, c ^ 0x20);
        if (c == 's' || c == 'k')
            add_range(parser, set, c == 's' ? 0x17F : 0x212A, c == 's' ? 0x17F : 0x212A);
    }
}

static void finish_set(struct parser *parser, struct set *set)
{
    if (parser->fold)
        fold_set(parser, set);
    for (uint32_t c = 0; c < 128; c++)
        if (set->mask & unicode_class(c))
            add_ascii(set, c);
    for (size_t i = 0; i < 2 && set->negated; i++)
        set->ascii[i] = ~set->ascii[i];
}

/* One character, escape or class. */
static void read_set(struct parser *parser, struct set *set)
{
    if (!*parser->at || strchr("^$.?*+{}", *parser->at))
        return refuse(parser, "this is not known here");
    if (skip(parser, "[")) {
        read_class(parser, set);
    } else {
        uint32_t c = skip(parser, "\\") ? read_escape(parser, set) : unicode_next(&parser->at);
        if (c)
            add_range(parser, set, c, c);
    }
    if (!parser->failed)
        finish_set(parser, set);
}

/* ---- nodes ---- */

static int new_node(struct parser *parser, enum node_kind kind)
{
    if (parser->pattern->count == PATTERN_MAX_NODES) {
        refuse(parser, "the pattern is too long");
        return NODE_ACCEPT;
    }
    int index = (int)parser->pattern->count++;
    parser->pattern->nodes[index] = (struct node){.kind = kind, .min = 1, .max = 1};
    return index;
}

static uint32_t read_number(struct parser *parser)
{
    uint32_t value = 0;
    if (*parser->at < '0' || *parser->at > '9')
        refuse(parser, "a number is missing");
    while (*parser->at >= '0' && *parser->at <= '9' && value < 1000)
        value = value * 10 + (uint32_t)(*parser->at++ - '0');
    return value;
}

static void read_quantifier(struct parser *parser, struct node *node)
{
    bool braces = false;
    if (skip(parser, "?")) {
        node->min = 0;
    } else if (skip(parser, "*")) {
        node->min = 0;
        node->max = UINT32_MAX;
    } else if (skip(parser, "+")) {
        node->max = UINT32_MAX;
    } else if (skip(parser, "{")) {
        braces = true;
        node->min = node->max = read_number(parser);
        if (skip(parser, ","))
            node->max = *parser->at == '}' ? UINT32_MAX : read_number(parser);
        if (!skip(parser, "}") || node->max < node->min)
            return refuse(parser, "a quantifier is {m}, {m,} or {m,n}");
    } else {
        return;
    }
    if (!braces)
        node->possessive = skip(parser, "+");
    if (*parser->at && strchr("?+*{", *parser->at))
        refuse(parser, "a quantifier of a quantifier");
}

static int read_alternatives(struct parser *parser, int next);
static int read_sequence(struct parser *parser, int next);

/* Behind "(?=" or "(?!". */
static int read_ahead(struct parser *parser, bool negative, int next)
{
    int index = new_node(parser, NODE_AHEAD);
    if (parser->failed)
        return index;
    struct node *node = &parser->pattern->nodes[index];
    node->negative = negative;
    read_set(parser, &node->set);
    if (!parser->failed && !skip(parser, ")"))
        refuse(parser, "a look ahead is of one character or class");
    node->next = parser->failed ? NODE_ACCEPT : read_sequence(parser, next);
    return index;
}

/* Behind "(": its alternatives meet in a node that takes no character. */
static int read_group(struct parser *parser, int next)
{
    if (skip(parser, "?=") || skip(parser, "?!"))
        return read_ahead(parser, parser->at[-1] == '!', next);
    bool folded = parser->fold;
    if (skip(parser, "?i:"))
        parser->fold = true;
    else if (!skip(parser, "?:") && *parser->at == '?')
        refuse(parser, "this kind of group is not known here");
    int meet = new_node(parser, NODE_SET);
    int first = parser->failed ? meet : read_alternatives(parser, meet);
    if (parser->failed || !skip(parser, ")")) {
        refuse(parser, "the group has no end");
        return meet;
    }
    parser->fold = folded;
    parser->pattern->nodes[meet].min = parser->pattern->nodes[meet].max = 0;
    if (skip(parser, "?")) {
        int choice = new_node(parser, NODE_CHOICE);
        parser->pattern->nodes[choice < 0 ? meet : choice].first = first;
        parser->pattern->nodes[choice < 0 ? meet : choice].other = meet;
        first = choice;
    }
    if (*parser->at && strchr("?+*{", *parser->at))
        refuse(parser, "a group that repeats");
    parser->pattern->nodes[meet].next = parser->failed ? NODE_ACCEPT : read_sequence(parser, next);
    return first;
}

static int read_sequence(struct parser *parser, int next)
{
    if (parser->failed || !*parser->at || *parser->at == '|' || *parser->at == ')')
        return next;
    if (skip(parser, "("))
        return read_group(parser, next);
    int index = new_node(parser, NODE_SET);
    if (parser->failed)
        return next;
    struct node *node = &parser->pattern->nodes[index];
    read_set(parser, &node->set);
    if (!parser->failed)
        read_quantifier(parser, node);
    node->next = read_sequence(parser, next);
    return index;
}

static int read_alternatives(struct parser *parser, int next)
{
    int first = read_sequence(parser, next);
    if (parser->failed || !skip(parser, "|"))
        return first;
    int index = new_node(parser, NODE_CHOICE);
    if (parser->failed)
        return first;
    parser->pattern->nodes[index].first = first;
    int other = read_alternatives(parser, next);
    parser->pattern->nodes[index].other = other;
    return index;
}

/* ---- the pattern ---- */

/* Whether what begins at the node matches without a character. `seen` remembers who cannot. */
static bool may_be_empty(const struct pattern *pattern, int index, bool *seen)
{
    if (index == NODE_ACCEPT)
        return true;
    const struct node *node = &pattern->nodes[index];
    if (seen[index])
        return false;
    seen[index] = true;
    if (node->kind == NODE_CHOICE)
        return may_be_empty(pattern, node->first, seen) || may_be_empty(pattern, node->other, seen);
    return (node->kind == NODE_AHEAD || node->min == 0) && may_be_empty(pattern, node->next, seen);
}

struct pattern *pattern_new(const char *source, struct error *err)
{
    struct pattern *pattern = xcalloc(1, sizeof *pattern);
    pattern->nodes = calloc_checked(PATTERN_MAX_NODES, sizeof *pattern->nodes, err);
    if (!pattern->nodes) {
        free(pattern);
        return NULL;
    }
    struct parser parser = {.source = source, .at = source, .pattern = pattern, .err = err};
    pattern->first = read_alternatives(&parser, NODE_ACCEPT);
    if (!parser.failed && *parser.at)
        refuse(&parser, "a ) without its (");
    bool seen[PATTERN_MAX_NODES] = {false};
    if (!parser.failed && may_be_empty(pattern, pattern->first, seen))
        refuse(&parser, "the pattern matches the empty text");
    if (parser.failed) {
        pattern_free(pattern);
        return NULL;
    }
    struct node *nodes = realloc(pattern->nodes, pattern->count * sizeof *nodes);
    pattern->nodes = nodes ? nodes : pattern->nodes;
    return pattern;
}

void pattern_free(struct pattern *pattern)
{
    if (!pattern)
        return;
    free(pattern->nodes);
    free(pattern);
}
