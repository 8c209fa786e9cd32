/* A pattern as a graph of nodes: each says what comes next, NODE_ACCEPT at the end. */
#ifndef PROTO_TEXT_PATTERN_PRIVATE_H
#define PROTO_TEXT_PATTERN_PRIVATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { PATTERN_MAX_NODES = 256, PATTERN_MAX_RANGES = 24, NODE_ACCEPT = -1 };

enum node_kind {
    NODE_SET,    /* `min` to `max` characters of the set */
    NODE_CHOICE, /* `first`, or else what `other` begins */
    NODE_AHEAD,  /* the next character is of the set, or must not be */
};

struct range {
    uint32_t from, to;
};

/* A class: categories, ranges, or all others. */
struct set {
    uint64_t ascii[2];                       /* the answer for the first 128 characters */
    uint32_t mask;                           /* of unicode_class() */
    struct range ranges[PATTERN_MAX_RANGES]; /* beyond ASCII */
    size_t range_count;
    bool negated;
};

struct node {
    enum node_kind kind;
    struct set set;
    uint32_t min, max;
    bool possessive, negative;
    int next;         /* of a choice: the alternative after this one; NODE_ACCEPT may be one */
    int first, other; /* of a choice */
};

struct pattern {
    struct node *nodes;
    size_t count;
    int first;
};

#endif
