/* The regular expressions of pre-tokenizers: read from tokenizer.json, matched by backtracking.
 *
 * What published tokenizers use, and no more: alternatives, classes with ranges and \p{..}, \s \S
 * \d \D \w, the quantifiers ? * + {m,n} (possessive too) on one character or class, groups without
 * quantifier or with ?, (?i: ), and (?! ) and (?= ) around one character or class. Anything else is
 * refused with its place; so is a pattern that matches nothing at all. Groups do not repeat, so the
 * matcher's depth is at most the number of nodes, and the steps it may take are counted. */
#ifndef PROTO_TEXT_PATTERN_H
#define PROTO_TEXT_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct pattern;

/* NULL with an error that names the pattern and the byte of it. Caller frees. */
MUST_CHECK struct pattern *pattern_new(const char *source, struct error *err);
void pattern_free(struct pattern *pattern);

/* What all searches for one input may take together: this, and more with the bytes of each. */
enum { PATTERN_STEPS = 1 << 16 };

/* A search through one text. */
struct pattern_search {
    const struct pattern *pattern;
    const char *text, *end; /* UTF-8 */
    uint64_t *steps_left;   /* of the input */
};

struct pattern_search pattern_begin(const struct pattern *pattern, const char *text, size_t length,
                                    uint64_t *steps_left);

/* The first match at or behind *start: moves *start to where it begins and *end to where it ends.
 * False: there is none, or the searches took too many steps (*steps_left is 0 then). */
bool pattern_find(struct pattern_search *search, const char **start, const char **end);

#endif
