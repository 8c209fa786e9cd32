/* Statements. Every function goes on to its end when something failed before: the parser then
 * stands still, and all loops ask. */
#include "proto/text/template_parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/parse_json.h"
#include "proto/text/template.h"
#include "proto/text/unicode.h"

/* Nodes take some twenty times the source. */
enum { TEMPLATE_MAX_TREE_BYTES = 64 << 20, MESSAGE_BYTES = 300 };

int template_error(const struct chat_template *chat_template, uint32_t position, struct error *err,
                   enum error_code code, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    size_t line, column;
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    json_line_and_column(chat_template->source, position, &line, &column);
    return error_set(err, code, "line %zu, column %zu: %s", line, column, message);
}

/* ---- lexemes ---- */

void parser_advance(struct template_parser *parser)
{
    parser->now = parser->next;
    if (!parser->failed && lexer_next(&parser->lexer, &parser->next) != 0)
        parser->failed = true;
}

void parser_refuse(struct template_parser *parser, const char *format, ...)
{
    char message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    if (!parser->failed)
        template_error(parser->lexer.chat_template, parser->now.position, parser->err,
                       ERROR_UNSUPPORTED, "%s", message);
    parser->failed = true;
}

bool parser_sees(const struct template_parser *parser, enum lexeme_type type, const char *text)
{
    return parser->now.type == type && (!text || text_is(parser->now.text, text));
}

bool parser_skip(struct template_parser *parser, enum lexeme_type type, const char *text)
{
    if (parser->failed || !parser_sees(parser, type, text))
        return false;
    parser_advance(parser);
    return true;
}

void parser_expect(struct template_parser *parser, enum lexeme_type type, const char *text)
{
    if (!parser_skip(parser, type, text))
        parser_refuse(parser, "expected %s",
                      text                    ? text
                      : type == LEX_BLOCK_END ? "the end of the tag, %}"
                                              : "the end of the tag, }}");
}

struct template_node *parser_node(struct template_parser *parser, enum node_type type)
{
    struct template_node *node = arena_take(&parser->lexer.chat_template->arena, sizeof *node);
    if (!node) {
        parser_refuse(parser, "no memory, or the template is too long");
        node = &parser->spare;
    }
    node->type = type;
    node->position = parser->now.position;
    return node;
}

struct text parser_name(struct template_parser *parser)
{
    struct text name = parser->now.text;
    if (!parser_skip(parser, LEX_NAME, NULL))
        parser_refuse(parser, "expected a name");
    return name;
}

bool parser_enter(struct template_parser *parser)
{
    if (parser->nesting == TEMPLATE_MAX_NESTING)
        parser_refuse(parser, "nested more than %d deep", TEMPLATE_MAX_NESTING);
    if (parser->failed)
        return false;
    parser->nesting++;
    return true;
}

/* ---- statements ---- */

static struct template_node *parse_statements(struct template_parser *parser,
                                              const char *const ends[]);

static void end_tag(struct template_parser *parser)
{
    parser_expect(parser, LEX_BLOCK_END, NULL);
}

/* A body of its own scope. */
static struct template_node *parse_inside(struct template_parser *parser, const char *const ends[])
{
    end_tag(parser);
    parser->scopes++;
    struct template_node *body = parse_statements(parser, ends);
    parser->scopes--;
    return body;
}

static struct template_node *parse_if(struct template_parser *parser)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    static const char *const end[] = {"endif", NULL};
    struct template_node *first = NULL, **place = &first;
    do {
        struct template_node *node = parser_node(parser, STATEMENT_IF);
        node->flag = first != NULL; /* an elif: an if in the place of else */
        parser_advance(parser);
        node->a = parse_tuple(parser, false);
        end_tag(parser);
        node->body = parse_statements(parser, ends);
        *place = node;
        place = &node->otherwise;
    } while (!parser->failed && parser_sees(parser, LEX_NAME, "elif"));
    if (parser_skip(parser, LEX_NAME, "else")) {
        end_tag(parser);
        *place = parse_statements(parser, end);
    }
    parser_expect(parser, LEX_NAME, "endif");
    end_tag(parser);
    return first;
}

/* a, or a, b */
static struct template_node *parse_target(struct template_parser *parser)
{
    struct template_node *name = parser_node(parser, EXPRESSION_NAME), **end = &name->next;
    bool bracket = parser_skip(parser, LEX_OPERATOR, "(");
    name->text = parser_name(parser);
    if (!parser_sees(parser, LEX_OPERATOR, ",") && !bracket)
        return name;
    struct template_node *list = parser_node(parser, EXPRESSION_LIST);
    list->body = name;
    while (parser_skip(parser, LEX_OPERATOR, ",")) {
        *end = parser_node(parser, EXPRESSION_NAME);
        (*end)->text = parser_name(parser);
        end = &(*end)->next;
    }
    if (bracket)
        parser_expect(parser, LEX_OPERATOR, ")");
    return list;
}

static struct template_node *parse_for(struct template_parser *parser)
{
    static const char *const ends[] = {"else", "endfor", NULL}, *const end[] = {"endfor", NULL};
    struct template_node *node = parser_node(parser, STATEMENT_FOR);
    parser_advance(parser);
    node->a = parse_target(parser);
    parser_expect(parser, LEX_NAME, "in");
    node->b = parse_tuple(parser, false);
    if (parser_skip(parser, LEX_NAME, "if"))
        node->c = parse_condition(parser);
    if (parser_sees(parser, LEX_NAME, "recursive"))
        parser_refuse(parser, "recursive loops are not supported");
    parser->loops++;
    node->body = parse_inside(parser, ends);
    parser->loops--;
    if (parser_skip(parser, LEX_NAME, "else"))
        node->otherwise = parse_inside(parser, end);
    parser_expect(parser, LEX_NAME, "endfor");
    end_tag(parser);
    return node;
}

static struct template_node *parse_set(struct template_parser *parser)
{
    static const char *const end[] = {"endset", NULL};
    struct template_node *node = parser_node(parser, STATEMENT_SET);
    parser_advance(parser);
    node->a = parse_target(parser);
    if (node->a->type == EXPRESSION_NAME && parser_skip(parser, LEX_OPERATOR, ".")) {
        struct template_node *attribute = parser_node(parser, EXPRESSION_ATTRIBUTE);
        attribute->a = node->a;
        attribute->text = parser_name(parser);
        node->a = attribute;
    }
    if (parser_skip(parser, LEX_OPERATOR, "=")) {
        node->b = parse_tuple(parser, true);
        end_tag(parser);
        return node;
    }
    node->type = STATEMENT_SET_BLOCK;
    node->b = parse_filters(parser, parser_node(parser, EXPRESSION_PLACEHOLDER));
    node->body = parse_inside(parser, end);
    parser_expect(parser, LEX_NAME, "endset");
    end_tag(parser);
    return node;
}

static struct template_node *parse_parameters(struct template_parser *parser)
{
    struct template_node *first = NULL, **end = &first;
    parser_expect(parser, LEX_OPERATOR, "(");
    while (!parser->failed && !parser_sees(parser, LEX_OPERATOR, ")")) {
        struct template_node *parameter = parser_node(parser, ARGUMENT);
        parameter->text = parser_name(parser);
        if (parser_skip(parser, LEX_OPERATOR, "="))
            parameter->a = parse_expression(parser);
        *end = parameter;
        end = &parameter->next;
        if (!parser_skip(parser, LEX_OPERATOR, ","))
            break;
    }
    parser_expect(parser, LEX_OPERATOR, ")");
    return first;
}

static struct template_node *parse_macro(struct template_parser *parser)
{
    static const char *const end[] = {"endmacro", NULL};
    struct template_node *node = parser_node(parser, STATEMENT_MACRO);
    if (parser->scopes > 0)
        parser_refuse(parser, "a macro inside a loop, a macro or a block is not supported");
    parser_advance(parser);
    node->text = parser_name(parser);
    node->a = parse_parameters(parser);
    node->body = parse_inside(parser, end);
    parser_expect(parser, LEX_NAME, "endmacro");
    end_tag(parser);
    node->otherwise = parser->macros;
    parser->macros = node;
    return node;
}

/* break or continue */
static struct template_node *parse_jump(struct template_parser *parser)
{
    bool leaves = parser_sees(parser, LEX_NAME, "break");
    struct template_node *node = parser_node(parser, leaves ? STATEMENT_BREAK : STATEMENT_CONTINUE);
    if (parser->loops == 0)
        parser_refuse(parser, "there is no loop around it");
    parser_advance(parser);
    end_tag(parser);
    return node;
}

/* What transformers marks as the assistant's; it is only text here, in a scope of its own. */
static struct template_node *parse_generation(struct template_parser *parser)
{
    static const char *const end[] = {"endgeneration", NULL};
    struct template_node *node = parser_node(parser, STATEMENT_SCOPE);
    int loops = parser->loops;
    parser_advance(parser);
    parser->loops = 0; /* a break does not reach out of it */
    node->body = parse_inside(parser, end);
    parser->loops = loops;
    parser_expect(parser, LEX_NAME, "endgeneration");
    end_tag(parser);
    return node;
}

/* At the word behind "{%". */
static struct template_node *parse_block(struct template_parser *parser)
{
    static const struct {
        const char *word;
        struct template_node *(*parse)(struct template_parser *parser);
    } blocks[] = {{"if", parse_if},
                  {"for", parse_for},
                  {"set", parse_set},
                  {"macro", parse_macro},
                  {"break", parse_jump},
                  {"continue", parse_jump},
                  {"generation", parse_generation}};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        if (parser_sees(parser, LEX_NAME, blocks[i].word))
            return blocks[i].parse(parser);
    parser_refuse(parser, "the tag '%.*s' is not supported here", (int)parser->now.text.length,
                  parser->now.text.bytes);
    return parser_node(parser, STATEMENT_TEXT);
}

static bool ends_here(const struct template_parser *parser, const char *const ends[])
{
    for (; ends && *ends; ends++)
        if (parser_sees(parser, LEX_NAME, *ends))
            return true;
    return false;
}

static struct template_node *parse_output(struct template_parser *parser)
{
    struct template_node *node = parser_node(parser, STATEMENT_OUTPUT);
    parser_advance(parser);
    node->a = parse_tuple(parser, true);
    parser_expect(parser, LEX_OUTPUT_END, NULL);
    return node;
}

/* Up to a tag that begins with one of the words, at which the parser then stands; NULL: up to the
 * end of the template. */
static struct template_node *parse_statements(struct template_parser *parser,
                                              const char *const ends[])
{
    struct template_node *first = NULL, **end = &first;
    if (!parser_enter(parser))
        return NULL;
    while (!parser->failed && parser->now.type != LEX_END) {
        if (parser->now.type == LEX_TEXT) {
            *end = parser_node(parser, STATEMENT_TEXT);
            (*end)->text = parser->now.text;
            parser_advance(parser);
        } else if (parser->now.type == LEX_OUTPUT_BEGIN) {
            *end = parse_output(parser);
        } else {
            parser_expect(parser, LEX_BLOCK_BEGIN, NULL);
            if (ends_here(parser, ends))
                break;
            *end = parse_block(parser);
        }
        end = &(*end)->next;
    }
    if (ends && parser->now.type == LEX_END)
        parser_refuse(parser, "the template ends, expected {%% %s %%}", ends[0]);
    parser_leave(parser);
    return first;
}

/* ---- the template ---- */

/* Names that are called are functions or macros. */
static void check_calls(struct template_parser *parser)
{
    for (struct template_node *call = parser->calls; call; call = call->otherwise) {
        bool known = call->index >= 0;
        for (struct template_node *macro = parser->macros; macro; macro = macro->otherwise)
            known =
                known || (macro->text.length == call->a->text.length &&
                          memcmp(macro->text.bytes, call->a->text.bytes, macro->text.length) == 0);
        parser->now.position = call->position;
        if (!known)
            parser_refuse(parser, "the function '%.*s' is not supported", (int)call->a->text.length,
                          call->a->text.bytes);
    }
}

/* A copy with \n for \r\n and \r, without the newline at its end. */
static char *copy_source(const char *source, size_t length)
{
    char *copy = malloc(length + 4), *to = copy;
    if (!copy)
        return NULL;
    for (size_t i = 0; i < length; i++) {
        if (source[i] == '\r' && i + 1 < length && source[i + 1] == '\n')
            continue;
        *to++ = source[i] == '\r' ? '\n' : source[i];
    }
    if (to > copy && to[-1] == '\n')
        to--;
    memset(to, 0, 3); /* a tag's third byte is looked at */
    return copy;
}

static int parse_template(struct chat_template *chat_template, struct error *err)
{
    struct template_parser parser = {.err = err};
    lexer_init(&parser.lexer, chat_template, err);
    parser_advance(&parser);
    parser_advance(&parser);
    chat_template->body = parse_statements(&parser, NULL);
    check_calls(&parser);
    return parser.failed ? -1 : 0;
}

struct chat_template *chat_template_new(const char *source, size_t length, struct error *err)
{
    if (length > TEMPLATE_MAX_BYTES || (length > 0 && memchr(source, '\0', length)) ||
        unicode_check(source, length) < length) {
        error_set(err, ERROR_INVALID, "a template is UTF-8 without NUL of at most %d bytes",
                  TEMPLATE_MAX_BYTES);
        return NULL;
    }
    struct chat_template *chat_template = xcalloc(1, sizeof *chat_template);
    arena_init(&chat_template->arena, TEMPLATE_MAX_TREE_BYTES);
    chat_template->source = copy_source(source, length);
    if (chat_template->source && parse_template(chat_template, err) == 0)
        return chat_template;
    if (chat_template->source && !chat_template->arena.no_memory)
        error_set(err, ERROR_TOO_LARGE, "a template may take at most %d bytes when it is read",
                  TEMPLATE_MAX_TREE_BYTES);
    error_set(err, ERROR_UNAVAILABLE, "no memory for a template");
    chat_template_free(chat_template);
    return NULL;
}

void chat_template_free(struct chat_template *chat_template)
{
    if (!chat_template)
        return;
    arena_close(&chat_template->arena);
    json_decref(chat_template->specials);
    free(chat_template->source);
    free(chat_template);
}
