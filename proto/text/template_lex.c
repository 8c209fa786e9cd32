/* White space around tags as jinja2 has it with trim_blocks and lstrip_blocks. */
#include "proto/text/template_lex.h"

#include <stdlib.h>
#include <string.h>

#include "core/text.h"
#include "proto/text/unicode.h"

void lexer_init(struct lexer *lexer, struct chat_template *chat_template, struct error *err)
{
    *lexer = (struct lexer){.chat_template = chat_template,
                            .at = chat_template->source,
                            .inside = LEX_TEXT,
                            .line_starts = true,
                            .err = err};
}

static int refuse(const struct lexer *lexer, const char *at, const char *what)
{
    return template_error(lexer->chat_template, (uint32_t)(at - lexer->chat_template->source),
                          lexer->err, ERROR_INVALID, "%s", what);
}

static bool is_space_at(const char *at)
{
    return *at && unicode_is_space(unicode_next(&at));
}

static void skip_spaces(const char **at)
{
    while (is_space_at(*at))
        unicode_next(at);
}

/* ---- between tags ---- */

/* The next {{, {% or {#, or the end. */
static const char *find_tag(const char *at)
{
    for (; *at; at++)
        if (*at == '{' && (at[1] == '{' || at[1] == '%' || at[1] == '#'))
            break;
    return at;
}

static const char *strip_back(const char *text, const char *end)
{
    while (end > text) {
        const char *last = unicode_previous(end);
        if (!is_space_at(last))
            break;
        end = last;
    }
    return end;
}

/* Where the text before a tag ends. */
static const char *text_end(const struct lexer *lexer, const char *text, const char *tag)
{
    if (!*tag || tag[2] == '+')
        return tag;
    if (tag[2] == '-')
        return strip_back(text, tag);
    const char *line = tag;
    while (line > text && line[-1] != '\n')
        line--;
    bool starts = line > text || lexer->line_starts;
    if (tag[1] == '{' || !starts || strip_back(line, tag) > line)
        return tag;
    return line;
}

/* Behind a tag: `minus` takes the white space that follows, a block its newline. */
static void leave_tag(struct lexer *lexer, bool minus, bool newline)
{
    const char *end = lexer->at;
    if (minus)
        skip_spaces(&lexer->at);
    else if (newline && *lexer->at == '\n')
        lexer->at++;
    lexer->line_starts = lexer->at > end && lexer->at[-1] == '\n';
    lexer->inside = LEX_TEXT;
}

static int skip_comment(struct lexer *lexer)
{
    const char *end = strstr(lexer->at + 2, "#}");
    if (!end)
        return refuse(lexer, lexer->at, "the comment has no end");
    lexer->at = end + 2;
    leave_tag(lexer, end[-1] == '-', end[-1] != '+');
    return 0;
}

static int next_text(struct lexer *lexer, struct lexeme *lexeme)
{
    for (;;) {
        const char *tag = lexer->pending ? lexer->at : find_tag(lexer->at);
        const char *end = lexer->pending ? tag : text_end(lexer, lexer->at, tag);
        lexeme->text = (struct text){lexer->at, (size_t)(end - lexer->at)};
        lexeme->position = (uint32_t)(lexer->at - lexer->chat_template->source);
        lexeme->type = lexeme->text.length ? LEX_TEXT : LEX_END;
        lexer->at = tag;
        lexer->pending = lexeme->type == LEX_TEXT;
        if (lexer->pending || !*tag)
            return 0;
        if (tag[1] != '#')
            break;
        if (skip_comment(lexer) != 0)
            return -1;
    }
    lexeme->type = lexer->at[1] == '{' ? LEX_OUTPUT_BEGIN : LEX_BLOCK_BEGIN;
    lexeme->position = (uint32_t)(lexer->at - lexer->chat_template->source);
    lexer->inside = lexeme->type;
    lexer->at += lexer->at[2] == '-' || lexer->at[2] == '+' ? 3 : 2;
    lexer->brackets = 0;
    return 0;
}

/* ---- strings ---- */

/* \xHH, \uHHHH, \UHHHHHHHH: the character, or UINT32_MAX. */
static uint32_t read_hex(const char **at, int digits)
{
    uint32_t value = 0;
    for (int i = 0; i < digits; i++) {
        int digit = text_hex_digit(**at);
        if (digit < 0)
            return UINT32_MAX;
        value = value * 16 + (uint32_t)digit;
        ++*at;
    }
    bool character = value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
    return character ? value : UINT32_MAX;
}

/* Behind a backslash, as Python reads it. */
static uint32_t read_escape(const char **at)
{
    static const char simple[] = "\\\\''\"\"a\ab\bf\fn\nr\rt\tv\v";
    char c = *(*at)++;
    for (const char *pair = simple; *pair; pair += 2)
        if (pair[0] == c)
            return (uint32_t)pair[1];
    if (c == 'x' || c == 'u' || c == 'U')
        return read_hex(at, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    return UINT32_MAX;
}

static int read_string(struct lexer *lexer, struct lexeme *lexeme)
{
    const char *start = lexer->at, *at = start + 1;
    while (*at && *at != *start)
        at += *at == '\\' && at[1] ? 2 : 1;
    if (!*at)
        return refuse(lexer, start, "the string has no end");
    char *to = arena_take(&lexer->chat_template->arena, (size_t)(at - start));
    if (!to)
        return refuse(lexer, start, "no memory");
    size_t length = 0;
    for (const char *from = start + 1; from < at;) {
        if (*from != '\\') {
            to[length++] = *from++;
            continue;
        }
        const char *escape = from++;
        if (*from == '\n') { /* a line that goes on */
            from++;
            continue;
        }
        uint32_t c = read_escape(&from);
        if (c == UINT32_MAX)
            return refuse(lexer, escape, "an escape that is not supported in a string");
        length += unicode_write(to + length, c);
    }
    lexeme->type = LEX_STRING;
    lexeme->text = (struct text){to, length};
    lexer->at = at + 1;
    return 0;
}

/* ---- the rest ---- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static int read_number(struct lexer *lexer, struct lexeme *lexeme)
{
    const char *start = lexer->at, *at = start;
    while (is_digit(*at))
        at++;
    bool real = *at == '.' && is_digit(at[1]);
    if (real)
        for (at++; is_digit(*at);)
            at++;
    const char *exponent = at + 1 + (at[1] == '+' || at[1] == '-');
    if ((*at == 'e' || *at == 'E') && is_digit(*exponent))
        for (real = true, at = exponent; is_digit(*at);)
            at++;
    uint64_t whole = 0;
    bool fits = real || (text_whole_number(start, &whole) && whole <= INT64_MAX);
    char after = *at;
    if (!fits || after == '_' || ((unsigned char)after | 0x20u) - 'a' < 26)
        return refuse(lexer, start, "a number that is not supported");
    lexeme->type = real ? LEX_FLOAT : LEX_INTEGER;
    lexeme->integer = (int64_t)whole;
    lexeme->number = real ? strtod(start, NULL) : 0;
    lexer->at = at;
    return 0;
}

static bool is_name_byte(char c)
{
    return is_digit(c) || c == '_' || ((unsigned char)c | 0x20u) - 'a' < 26 ||
           (unsigned char)c >= 0x80;
}

static void read_name(struct lexer *lexer, struct lexeme *lexeme)
{
    const char *start = lexer->at;
    while (is_name_byte(*lexer->at))
        lexer->at++;
    lexeme->type = LEX_NAME;
    lexeme->text = (struct text){start, (size_t)(lexer->at - start)};
}

static int read_operator(struct lexer *lexer, struct lexeme *lexeme)
{
    static const char *const pairs[] = {"==", "!=", "<=", ">=", "//", "**"};
    const char *at = lexer->at;
    size_t length = 1;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strncmp(at, pairs[i], 2) == 0)
            length = 2;
    if (!*at)
        return refuse(lexer, at, "the tag has no end");
    if (length == 1 && !strchr("+-*/%~|.,:()[]{}<>=", *at))
        return refuse(lexer, at, "a character that is not known here");
    if (strchr("([{", *at))
        lexer->brackets++;
    if (strchr(")]}", *at) && lexer->brackets-- == 0)
        return refuse(lexer, at, "a bracket closes that was not opened");
    lexeme->type = LEX_OPERATOR;
    lexeme->text = (struct text){at, length};
    lexer->at += length;
    return 0;
}

/* The end of the tag, if it is here. */
static bool end_tag(struct lexer *lexer, struct lexeme *lexeme)
{
    const char *at = lexer->at;
    bool output = lexer->inside == LEX_OUTPUT_BEGIN;
    bool sign = *at == '-' || (*at == '+' && !output);
    const char *end = at + sign;
    if (lexer->brackets > 0 || strncmp(end, output ? "}}" : "%}", 2) != 0)
        return false;
    lexeme->type = output ? LEX_OUTPUT_END : LEX_BLOCK_END;
    lexer->at = end + 2;
    leave_tag(lexer, *at == '-', !output && *at != '+');
    return true;
}

int lexer_next(struct lexer *lexer, struct lexeme *lexeme)
{
    *lexeme = (struct lexeme){0};
    if (lexer->inside == LEX_TEXT)
        return next_text(lexer, lexeme);
    skip_spaces(&lexer->at);
    lexeme->position = (uint32_t)(lexer->at - lexer->chat_template->source);
    if (end_tag(lexer, lexeme))
        return 0;
    if (*lexer->at == '"' || *lexer->at == '\'')
        return read_string(lexer, lexeme);
    if (is_digit(*lexer->at))
        return read_number(lexer, lexeme);
    if (!is_name_byte(*lexer->at))
        return read_operator(lexer, lexeme);
    read_name(lexer, lexeme);
    return 0;
}
