/* Backtracking that only goes back over one run at a time. */
#include <string.h>

#include "proto/text/pattern.h"
#include "proto/text/pattern_private.h"
#include "proto/text/unicode.h"

/* Published patterns look at a character a dozen times at most. */
enum { STEPS_PER_BYTE = 256 };

static bool set_holds(const struct set *set, uint32_t c)
{
    if (c < 128)
        return set->ascii[c / 64] >> c % 64 & 1;
    bool in = set->mask && (set->mask & unicode_class(c));
    for (size_t i = 0; i < set->range_count && !in; i++)
        in = c >= set->ranges[i].from && c <= set->ranges[i].to;
    return in != set->negated;
}

/* Whether the set takes the character at `at`, which it moves over. */
static bool take(struct pattern_search *search, const struct set *set, const char **at)
{
    if (*at == search->end || *search->steps_left == 0)
        return false;
    --*search->steps_left;
    const char *next = *at;
    if (!set_holds(set, unicode_next(&next)))
        return false;
    *at = next;
    return true;
}

static const char *match(struct pattern_search *search, int index, const char *at);

/* The longest run first, then shorter ones. */
static const char *match_run(struct pattern_search *search, const struct node *node, const char *at)
{
    uint32_t count = 0;
    while (count < node->max && take(search, &node->set, &at))
        count++;
    for (; count >= node->min; count--) {
        const char *end = match(search, node->next, at);
        if (end || count == node->min || node->possessive || *search->steps_left == 0)
            return end;
        --*search->steps_left;
        at = unicode_previous(at);
    }
    return NULL;
}

static const char *match(struct pattern_search *search, int index, const char *at)
{
    while (index != NODE_ACCEPT && *search->steps_left > 0) {
        --*search->steps_left;
        const struct node *node = &search->pattern->nodes[index];
        const char *end;
        switch (node->kind) {
        case NODE_SET:
            return match_run(search, node, at);
        case NODE_CHOICE:
            end = match(search, node->first, at);
            if (end)
                return end;
            index = node->other;
            break;
        case NODE_AHEAD:
            end = at;
            if (take(search, &node->set, &end) == node->negative)
                return NULL;
            index = node->next;
            break;
        }
    }
    return index == NODE_ACCEPT ? at : NULL;
}

struct pattern_search pattern_begin(const struct pattern *pattern, const char *text, size_t length,
                                    uint64_t *steps_left)
{
    *steps_left += (uint64_t)length * STEPS_PER_BYTE;
    return (struct pattern_search){pattern, text, text + length, steps_left};
}

bool pattern_find(struct pattern_search *search, const char **start, const char **end)
{
    for (const char *at = *start; at<search->end && * search->steps_left> 0; unicode_next(&at)) {
        --*search->steps_left;
        const char *stop = match(search, search->pattern->first, at);
        if (stop) {
            *start = at;
            *end = stop;
            return *search->steps_left > 0;
        }
    }
    return false;
}
