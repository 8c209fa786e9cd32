/* Expressions, each level of precedence a function, as in jinja2's own parser. */
#include <string.h>

#include "proto/text/template_names.h"
#include "proto/text/template_parse.h"

static bool operator(const struct template_parser *parser, const char *text)
{
    return parser_sees(parser, LEX_OPERATOR, text);
}

static bool skip_operator(struct template_parser *parser, const char *text)
{
    return parser_skip(parser, LEX_OPERATOR, text);
}

static bool skip_word(struct template_parser *parser, const char *text)
{
    return parser_skip(parser, LEX_NAME, text);
}

static struct template_node *with(struct template_parser *parser, enum node_type type,
                                  struct template_node *a)
{
    struct template_node *node = parser_node(parser, type);
    node->a = a;
    return node;
}

/* ---- lists of things ---- */

/* Arguments up to the closing bracket, the opening one being behind. */
static struct template_node *parse_arguments(struct template_parser *parser)
{
    struct template_node *first = NULL, **end = &first;
    while (!parser->failed && !operator(parser, ")")) {
        struct template_node *argument = parser_node(parser, ARGUMENT);
        if (operator(parser, "*") || operator(parser, "**"))
            parser_refuse(parser, "arguments out of a list or an object are not supported");
        if (parser->now.type == LEX_NAME && parser->next.type == LEX_OPERATOR &&
            text_is(parser->next.text, "=")) {
            argument->text = parser_name(parser);
            parser_advance(parser);
        }
        argument->a = parse_expression(parser);
        *end = argument;
        end = &argument->next;
        if (!skip_operator(parser, ","))
            break;
    }
    parser_expect(parser, LEX_OPERATOR, ")");
    return first;
}

/* Values with commas up to `close`. */
static struct template_node *parse_items(struct template_parser *parser, const char *close,
                                         bool pairs)
{
    struct template_node *first = NULL, **end = &first;
    while (!parser->failed && !operator(parser, close)) {
        *end = parse_expression(parser);
        end = &(*end)->next;
        if (pairs) {
            parser_expect(parser, LEX_OPERATOR, ":");
            *end = parse_expression(parser);
            end = &(*end)->next;
        }
        if (!skip_operator(parser, ","))
            break;
    }
    parser_expect(parser, LEX_OPERATOR, close);
    return first;
}

/* ---- primaries ---- */

static struct template_node *parse_string(struct template_parser *parser)
{
    struct template_node *node = parser_node(parser, EXPRESSION_TEXT);
    node->text = parser->now.text;
    parser_advance(parser);
    while (parser->now.type == LEX_STRING && !parser->failed) { /* 'a' 'b' is one string */
        struct text more = parser->now.text;
        char *both =
            arena_take(&parser->lexer.chat_template->arena, node->text.length + more.length + 1);
        if (!both) {
            parser_refuse(parser, "no memory");
            break;
        }
        memcpy(both, node->text.bytes, node->text.length);
        memcpy(both + node->text.length, more.bytes, more.length);
        node->text = (struct text){both, node->text.length + more.length};
        parser_advance(parser);
    }
    return node;
}

static struct template_node *parse_name(struct template_parser *parser)
{
    struct template_node *node = parser_node(parser, EXPRESSION_NAME);
    node->text = parser_name(parser);
    static const char *const words[] = {"true", "True", "false", "False", "none", "None"};
    for (size_t i = 0; i < 6; i++) {
        if (!text_is(node->text, words[i]))
            continue;
        node->type = i < 4 ? EXPRESSION_BOOL : EXPRESSION_NONE;
        node->flag = i < 2;
    }
    return node;
}

static struct template_node *parse_number(struct template_parser *parser)
{
    bool real = parser->now.type == LEX_FLOAT;
    struct template_node *node = parser_node(parser, real ? EXPRESSION_FLOAT : EXPRESSION_INTEGER);
    node->integer = parser->now.integer;
    node->number = parser->now.number;
    parser_advance(parser);
    return node;
}

/* Behind "(": a tuple, or one expression. */
static struct template_node *parse_parentheses(struct template_parser *parser)
{
    struct template_node *node = operator(parser, ")") ? parser_node(parser, EXPRESSION_LIST)
                                                       : parse_tuple(parser, true);
    if (node->type == EXPRESSION_LIST && !node->body)
        node->flag = true;
    parser_expect(parser, LEX_OPERATOR, ")");
    return node;
}

static struct template_node *parse_primary(struct template_parser *parser)
{
    if (parser->now.type == LEX_STRING)
        return parse_string(parser);
    if (parser->now.type == LEX_INTEGER || parser->now.type == LEX_FLOAT)
        return parse_number(parser);
    if (parser->now.type == LEX_NAME)
        return parse_name(parser);
    if (skip_operator(parser, "("))
        return parse_parentheses(parser);
    bool list = operator(parser, "["), dict = operator(parser, "{");
    struct template_node *node = parser_node(parser, dict ? EXPRESSION_DICT : EXPRESSION_LIST);
    if (list || dict) {
        parser_advance(parser);
        node->body = parse_items(parser, list ? "]" : "}", dict);
    } else {
        parser_refuse(parser, "expected a value");
    }
    return node;
}

/* ---- what follows a value ---- */

static struct template_node *parse_attribute(struct template_parser *parser,
                                             struct template_node *value)
{
    struct template_node *node = with(parser, EXPRESSION_ATTRIBUTE, value);
    if (parser->now.type == LEX_INTEGER) { /* list.0 */
        node->type = EXPRESSION_ITEM;
        node->b = parse_number(parser);
        return node;
    }
    node->text = parser_name(parser);
    return node;
}

/* Behind "[". */
static struct template_node *parse_subscript(struct template_parser *parser,
                                             struct template_node *value)
{
    struct template_node *node = with(parser, EXPRESSION_ITEM, value);
    struct template_node **parts[] = {&node->b, &node->c, &node->otherwise};
    size_t part = 0;
    while (!parser->failed && !operator(parser, "]")) {
        if (operator(parser, ":")) {
            if (++part == 3)
                parser_refuse(parser, "a slice has at most three parts");
            node->type = EXPRESSION_SLICE;
            parser_advance(parser);
        } else if (part < 3 && !*parts[part]) {
            *parts[part] = parse_expression(parser);
        } else {
            parser_refuse(parser, "expected ']'");
        }
    }
    if (node->type == EXPRESSION_ITEM && !node->b)
        parser_refuse(parser, "expected an index");
    parser_expect(parser, LEX_OPERATOR, "]");
    return node;
}

/* Behind "(". What is called is known now, or never. */
static struct template_node *parse_call(struct template_parser *parser, struct template_node *value)
{
    struct template_node *node = with(parser, EXPRESSION_CALL, value);
    node->position = value->position;
    node->index = -1;
    if (value->type == EXPRESSION_NAME) {
        node->index = template_function(value->text);
        node->otherwise = parser->calls;
        parser->calls = node;
    }
    if (value->type == EXPRESSION_ATTRIBUTE && template_method(value->text) < 0)
        parser_refuse(parser, "the method '%.*s' is not supported", (int)value->text.length,
                      value->text.bytes);
    if (value->type != EXPRESSION_ATTRIBUTE && value->type != EXPRESSION_NAME)
        parser_refuse(parser, "calling this is not supported");
    node->body = parse_arguments(parser);
    return node;
}

static struct template_node *parse_postfix(struct template_parser *parser,
                                           struct template_node *node)
{
    while (!parser->failed) {
        if (skip_operator(parser, "."))
            node = parse_attribute(parser, node);
        else if (skip_operator(parser, "["))
            node = parse_subscript(parser, node);
        else if (skip_operator(parser, "("))
            node = parse_call(parser, node);
        else
            break;
    }
    return node;
}

/* Behind "|". */
static struct template_node *parse_filter(struct template_parser *parser,
                                          struct template_node *value)
{
    struct template_node *node = with(parser, EXPRESSION_FILTER, value);
    if (parser->now.type == LEX_NAME)
        node->index = template_filter(parser->now.text);
    if (parser->now.type == LEX_NAME && node->index < 0)
        parser_refuse(parser, "the filter '%.*s' is not supported", (int)parser->now.text.length,
                      parser->now.text.bytes);
    parser_name(parser);
    if (skip_operator(parser, "("))
        node->body = parse_arguments(parser);
    return node;
}

/* A test's argument may stand without brackets. */
static bool argument_follows(const struct template_parser *parser)
{
    static const char *const words[] = {"else", "or", "and"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (parser_sees(parser, LEX_NAME, words[i]))
            return false;
    enum lexeme_type type = parser->now.type;
    return type == LEX_NAME || type == LEX_STRING || type == LEX_INTEGER ||
           type == LEX_FLOAT || operator(parser, "[") || operator(parser, "{");
}

/* Behind "is". */
static struct template_node *parse_test(struct template_parser *parser, struct template_node *value)
{
    struct template_node *node = with(parser, EXPRESSION_TEST, value);
    node->flag = skip_word(parser, "not");
    node->index = parser->now.type == LEX_NAME ? template_test(parser->now.text) : 0;
    if (node->index < 0)
        parser_refuse(parser, "the test '%.*s' is not supported", (int)parser->now.text.length,
                      parser->now.text.bytes);
    parser_name(parser);
    if (skip_operator(parser, "(")) {
        node->body = parse_arguments(parser);
    } else if (argument_follows(parser)) {
        node->body = parser_node(parser, ARGUMENT);
        node->body->a = parse_postfix(parser, parse_primary(parser));
    }
    return node;
}

struct template_node *parse_filters(struct template_parser *parser, struct template_node *node)
{
    while (!parser->failed) {
        if (skip_operator(parser, "|"))
            node = parse_filter(parser, node);
        else if (skip_word(parser, "is"))
            node = parse_test(parser, node);
        else if (operator(parser, "("))
            parser_refuse(parser, "calling what a filter gives is not supported");
        else
            break;
    }
    return node;
}

/* ---- operators, the tightest first ---- */

static struct template_node *parse_unary(struct template_parser *parser, bool filters)
{
    struct template_node *node = NULL;
    if (!parser_enter(parser))
        return parser_node(parser, EXPRESSION_NONE);
    if (operator(parser, "-") || operator(parser, "+")) {
        node = parser_node(parser, operator(parser, "-") ? EXPRESSION_NEGATE : EXPRESSION_PLUS);
        parser_advance(parser);
        node->a = parse_unary(parser, false);
    } else {
        node = parse_primary(parser);
    }
    node = parse_postfix(parser, node);
    if (filters)
        node = parse_filters(parser, node);
    parser_leave(parser);
    return node;
}

struct operator_row {
    const char *text;
    enum operation operation;
};

static struct template_node *parse_left(struct template_parser *parser,
                                        const struct operator_row *rows,
                                        struct template_node *(*tighter)(struct template_parser *))
{
    struct template_node *left = tighter(parser);
    for (const struct operator_row *row = rows; row->text && !parser->failed;) {
        if (!operator(parser, row->text)) {
            row++;
            continue;
        }
        struct template_node *node = with(parser, EXPRESSION_ARITHMETIC, left);
        node->operation = row->operation;
        parser_advance(parser);
        node->b = tighter(parser);
        if (node->operation == OPERATION_MODULO && left->type == EXPRESSION_TEXT)
            parser_refuse(parser, "formatting with %% is not supported");
        left = node;
        row = rows;
    }
    return left;
}

static struct template_node *parse_factor(struct template_parser *parser)
{
    struct template_node *node = parse_unary(parser, true);
    if (operator(parser, "**"))
        parser_refuse(parser, "** is not supported");
    return node;
}

static struct template_node *parse_product(struct template_parser *parser)
{
    static const struct operator_row rows[] = {{"*", OPERATION_MULTIPLY},
                                               {"/", OPERATION_DIVIDE},
                                               {"//", OPERATION_FLOOR_DIVIDE},
                                               {"%", OPERATION_MODULO},
                                               {NULL, 0}};
    return parse_left(parser, rows, parse_factor);
}

static struct template_node *parse_concat(struct template_parser *parser)
{
    struct template_node *left = parse_product(parser);
    while (!parser->failed && skip_operator(parser, "~")) {
        struct template_node *node = with(parser, EXPRESSION_CONCAT, left);
        node->b = parse_product(parser);
        left = node;
    }
    return left;
}

static struct template_node *parse_sum(struct template_parser *parser)
{
    static const struct operator_row rows[] = {
        {"+", OPERATION_ADD}, {"-", OPERATION_SUBTRACT}, {NULL, 0}};
    return parse_left(parser, rows, parse_concat);
}

static bool skip_comparison(struct template_parser *parser, enum operation *operation)
{
    static const struct operator_row rows[] = {
        {"==", OPERATION_EQUAL}, {"!=", OPERATION_UNEQUAL},       {"<=", OPERATION_LESS_EQUAL},
        {"<", OPERATION_LESS},   {">=", OPERATION_GREATER_EQUAL}, {">", OPERATION_GREATER}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        *operation = rows[i].operation;
        if (skip_operator(parser, rows[i].text))
            return true;
    }
    *operation = OPERATION_IN;
    if (skip_word(parser, "in"))
        return true;
    *operation = OPERATION_NOT_IN;
    bool not_in = parser_sees(parser, LEX_NAME, "not") && parser->next.type == LEX_NAME &&
                  text_is(parser->next.text, "in");
    return not_in && skip_word(parser, "not") && skip_word(parser, "in");
}

static struct template_node *parse_comparison(struct template_parser *parser)
{
    struct template_node *left = parse_sum(parser), *node = NULL, **end = NULL;
    enum operation operation;
    while (!parser->failed && skip_comparison(parser, &operation)) {
        if (!node) {
            node = with(parser, EXPRESSION_COMPARE, left);
            end = &node->body;
        }
        struct template_node *operand = with(parser, ARGUMENT, parse_sum(parser));
        operand->operation = operation;
        *end = operand;
        end = &operand->next;
    }
    return node ? node : left;
}

static struct template_node *parse_not(struct template_parser *parser)
{
    if (!parser_sees(parser, LEX_NAME, "not"))
        return parse_comparison(parser);
    struct template_node *node = parser_node(parser, EXPRESSION_NOT);
    parser_advance(parser);
    if (parser_enter(parser)) {
        node->a = parse_not(parser);
        parser_leave(parser);
    }
    return node;
}

static struct template_node *parse_and(struct template_parser *parser)
{
    struct template_node *left = parse_not(parser);
    while (!parser->failed && skip_word(parser, "and")) {
        left = with(parser, EXPRESSION_AND, left);
        left->b = parse_not(parser);
    }
    return left;
}

struct template_node *parse_condition(struct template_parser *parser)
{
    struct template_node *left = parse_and(parser);
    while (!parser->failed && skip_word(parser, "or")) {
        left = with(parser, EXPRESSION_OR, left);
        left->b = parse_and(parser);
    }
    return left;
}

struct template_node *parse_expression(struct template_parser *parser)
{
    if (!parser_enter(parser))
        return parser_node(parser, EXPRESSION_NONE);
    struct template_node *value = parse_condition(parser);
    while (!parser->failed && skip_word(parser, "if")) {
        struct template_node *node = parser_node(parser, EXPRESSION_CHOICE);
        node->b = value;
        node->a = parse_condition(parser);
        if (skip_word(parser, "else"))
            node->c = parse_expression(parser);
        value = node;
    }
    parser_leave(parser);
    return value;
}

struct template_node *parse_tuple(struct template_parser *parser, bool conditions)
{
    struct template_node *first = conditions ? parse_expression(parser) : parse_condition(parser);
    if (!operator(parser, ","))
        return first;
    struct template_node *node = parser_node(parser, EXPRESSION_LIST), **end = &first->next;
    node->flag = true;
    node->body = first;
    while (!parser->failed && skip_operator(parser, ",")) {
        bool ends = operator(parser, ")") || operator(parser, "=") ||
                    parser->now.type == LEX_BLOCK_END || parser->now.type == LEX_OUTPUT_END;
        if (ends)
            break;
        *end = conditions ? parse_expression(parser) : parse_condition(parser);
        end = &(*end)->next;
    }
    return node;
}
