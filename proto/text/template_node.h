/* A parsed template: nodes, linked as lists. */
#ifndef PROTO_TEXT_TEMPLATE_NODE_H
#define PROTO_TEXT_TEMPLATE_NODE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "proto/text/arena.h"

struct text {
    const char *bytes; /* UTF-8, not NUL-terminated */
    size_t length;
};

enum node_type {
    /* statements */
    STATEMENT_TEXT,      /* text */
    STATEMENT_OUTPUT,    /* a */
    STATEMENT_IF,        /* a: condition; body, otherwise */
    STATEMENT_FOR,       /* a: target; b: what; c: condition; body, otherwise */
    STATEMENT_SET,       /* a: target; b: value */
    STATEMENT_SET_BLOCK, /* a: target; body; b: filters around a placeholder */
    STATEMENT_MACRO,     /* text: name; a: parameters; body */
    STATEMENT_SCOPE,     /* body */
    STATEMENT_BREAK,
    STATEMENT_CONTINUE,
    /* expressions */
    EXPRESSION_TEXT,
    EXPRESSION_INTEGER,
    EXPRESSION_FLOAT,
    EXPRESSION_BOOL,
    EXPRESSION_NONE,
    EXPRESSION_NAME,      /* text */
    EXPRESSION_LIST,      /* body: items; flag: a tuple */
    EXPRESSION_DICT,      /* body: key, value, key, value, ... */
    EXPRESSION_ATTRIBUTE, /* a.text */
    EXPRESSION_ITEM,      /* a[b] */
    EXPRESSION_SLICE,     /* a[b:c:otherwise] */
    EXPRESSION_CALL,      /* a(body), or the function `index` of that name */
    EXPRESSION_FILTER,    /* a | index(body) */
    EXPRESSION_TEST,      /* a is index(body); flag: not */
    EXPRESSION_NEGATE,
    EXPRESSION_PLUS,
    EXPRESSION_NOT,
    EXPRESSION_AND,
    EXPRESSION_OR,
    EXPRESSION_CONCAT,
    EXPRESSION_ARITHMETIC,  /* a operation b */
    EXPRESSION_COMPARE,     /* a, then body: operands, each with its operation */
    EXPRESSION_CHOICE,      /* b if a else c */
    EXPRESSION_PLACEHOLDER, /* the text of a set block */
    ARGUMENT,               /* a; text: its name, if it has one */
};

enum operation {
    OPERATION_ADD,
    OPERATION_SUBTRACT,
    OPERATION_MULTIPLY,
    OPERATION_DIVIDE,
    OPERATION_FLOOR_DIVIDE,
    OPERATION_MODULO,
    OPERATION_EQUAL,
    OPERATION_UNEQUAL,
    OPERATION_LESS,
    OPERATION_LESS_EQUAL,
    OPERATION_GREATER,
    OPERATION_GREATER_EQUAL,
    OPERATION_IN,
    OPERATION_NOT_IN,
};

struct template_node {
    enum node_type type;
    enum operation operation;
    uint32_t position; /* byte of the source */
    bool flag;
    int index; /* of a filter, test or function */
    int64_t integer;
    double number;
    struct text text;
    struct template_node *a, *b, *c, *body, *otherwise, *next;
};

struct chat_template {
    char *source; /* owned; newlines are \n */
    struct arena arena;
    struct template_node *body;
    json_t *specials; /* owned; NULL: none */
};

/* Records "line 3, column 7: <message>". Returns -1. */
int template_error(const struct chat_template *chat_template, uint32_t position, struct error *err,
                   enum error_code code, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

static inline bool text_is(struct text text, const char *word)
{
    size_t i = 0;
    while (i < text.length && word[i] && text.bytes[i] == word[i])
        i++;
    return i == text.length && !word[i];
}

#endif
