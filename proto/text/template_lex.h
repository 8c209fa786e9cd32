/* A template as tokens: text between tags, and what tags are made of. */
#ifndef PROTO_TEXT_TEMPLATE_LEX_H
#define PROTO_TEXT_TEMPLATE_LEX_H

#include "proto/text/template_node.h"

enum lexeme_type {
    LEX_END,
    LEX_TEXT,
    LEX_OUTPUT_BEGIN,
    LEX_OUTPUT_END,
    LEX_BLOCK_BEGIN,
    LEX_BLOCK_END,
    LEX_NAME,
    LEX_STRING, /* unescaped */
    LEX_INTEGER,
    LEX_FLOAT,
    LEX_OPERATOR, /* text */
};

struct lexeme {
    enum lexeme_type type;
    uint32_t position;
    struct text text;
    int64_t integer;
    double number;
};

struct lexer {
    struct chat_template *chat_template;
    const char *at;
    enum lexeme_type inside; /* LEX_TEXT, or the begin of the tag */
    int brackets;            /* open ones of the tag */
    bool line_starts;        /* nothing but removed text is before `at` on its line */
    bool pending;            /* a tag follows the text just returned */
    struct error *err;
};

/* Newlines in the source are \n already, and it ends with a NUL. */
void lexer_init(struct lexer *lexer, struct chat_template *chat_template, struct error *err);

MUST_CHECK int lexer_next(struct lexer *lexer, struct lexeme *lexeme);

#endif
