/* What the two halves of the parser share. */
#ifndef PROTO_TEXT_TEMPLATE_PARSE_H
#define PROTO_TEXT_TEMPLATE_PARSE_H

#include "proto/text/template_lex.h"

/* Tags inside tags, brackets inside brackets; rendering needs some stack for each. */
enum { TEMPLATE_MAX_NESTING = 64 };

struct template_parser {
    struct lexer lexer;
    struct lexeme now, next;
    int nesting;
    int loops;  /* around here, in the same macro */
    int scopes; /* around here: loops, macros, blocks */
    bool failed;
    struct template_node *macros, *calls; /* of names; linked by `otherwise` */
    struct template_node spare;           /* in place of a node when memory is short */
    struct error *err;
};

/* Moves on by one lexeme. */
void parser_advance(struct template_parser *parser);

/* Fails at the present lexeme; the first failure counts. */
void parser_refuse(struct template_parser *parser, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

bool parser_sees(const struct template_parser *parser, enum lexeme_type type, const char *text);
/* Moves over it if it is there. */
bool parser_skip(struct template_parser *parser, enum lexeme_type type, const char *text);
/* It must be there. */
void parser_expect(struct template_parser *parser, enum lexeme_type type, const char *text);

/* A zeroed node at the present lexeme. Never NULL: when memory is short, the parser has failed and
 * a node that is used for nothing comes back. */
struct template_node *parser_node(struct template_parser *parser, enum node_type type);

/* The name that must be here. */
struct text parser_name(struct template_parser *parser);

/* One level deeper; false, and failed, at the limit. */
bool parser_enter(struct template_parser *parser);
static inline void parser_leave(struct template_parser *parser)
{
    parser->nesting--;
}

/* Expressions; all return a node, also when they failed. */
struct template_node *parse_expression(struct template_parser *parser);
/* The same, but "x if y" is not looked for. */
struct template_node *parse_condition(struct template_parser *parser);
/* One, or several with commas: a tuple. */
struct template_node *parse_tuple(struct template_parser *parser, bool conditions);
/* | filter | filter(x) around `node`. */
struct template_node *parse_filters(struct template_parser *parser, struct template_node *node);

#endif
