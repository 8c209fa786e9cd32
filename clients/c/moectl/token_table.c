/* Lines of tokens and experts; see token_table.h. */
#include "clients/c/moectl/token_table.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "clients/c/text.h"

enum {
    TOKEN_COLUMNS = 11,
    WEIGHT_COLUMNS = 5, /* " 0.69" */
    GAP_COLUMNS = 2,
};

struct token_table {
    const char *layer; /* NULL: all */
    size_t columns;    /* 0: any number */
    bool begun;
    size_t layers, shown;  /* of the routing; those that have room */
    size_t *widths;        /* of each layer shown */
    size_t *experts_shown; /* of each */
    int index_columns;     /* an expert's number has so many digits */
    bool cut;              /* a layer has more experts than are shown */
    bool unnamed;          /* an event had text and named no token of it */
};

struct token_table *token_table_new(const char *layer, int columns)
{
    struct token_table *table = xcalloc(1, sizeof *table);
    table->layer = layer;
    table->columns = (size_t)columns;
    return table;
}

void token_table_free(struct token_table *table)
{
    if (!table)
        return;
    free(table->widths);
    free(table->experts_shown);
    free(table);
}

/* ---- text in columns ---- */

/* What a terminal's cursor moves for a character. */
static size_t columns_of(uint32_t code)
{
    const int width = wcwidth((wchar_t)code);
    return width < 0 ? 1 : (size_t)width;
}

static size_t columns_of_text(const char *text)
{
    size_t columns = 0;
    uint32_t code;
    for (size_t bytes; (bytes = text_character(text, &code)) > 0; text += bytes)
        columns += columns_of(code);
    return columns;
}

/* Prints of `text`, which is printable, at most so many columns, with a ~ where it is cut. Returns
 * what is left of them. */
static size_t print_part(const char *text, size_t columns)
{
    uint32_t code;
    const bool cut = columns_of_text(text) > columns;
    size_t left = columns - cut;
    for (size_t bytes; (bytes = text_character(text, &code)) > 0; text += bytes) {
        const size_t wide = columns_of(code);
        if (wide > left)
            break;
        fwrite(text, 1, bytes, stdout);
        left -= wide;
    }
    fputs(cut ? "~" : "", stdout);
    return left;
}

static void print_blanks(size_t count)
{
    printf("%*s", (int)count, "");
}

/* A token as it may be shown, its line breaks and tabs as \n and \t. The caller frees. */
static char *shown_token(const char *token, size_t length)
{
    char *shown = printable_text(token, length);
    char *escaped = xcalloc(2 * strlen(shown) + 1, 1), *to = escaped;
    for (const char *at = shown; *at; at++) {
        const bool line = *at == '\n', tab = *at == '\t';
        if (line || tab)
            *to++ = '\\';
        *to++ = (char)(line ? 'n' : tab ? 't' : *at);
    }
    free(shown);
    return escaped;
}

/* ---- an event ---- */

static int no_routing(struct moed_client_error *err)
{
    return fail_with(err, "an event of the answer says of its tokens not which experts made them "
                          "(is the server moed?)");
}

/* Those that the event tells of; NULL: none. A choice of a chat has them in "content", one of a
 * model without a tokenizer has ids. Borrowed. */
static json_t *tokens_of(json_t *choice)
{
    json_t *logprobs = json_object_get(choice, "logprobs");
    json_t *content = json_object_get(logprobs, "content");
    json_t *tokens = content ? content : json_object_get(logprobs, "tokens");
    json_t *ids = json_object_get(choice, "token_ids");
    return json_is_array(ids) ? ids : json_is_array(tokens) ? tokens : NULL;
}

/* A completion's, or that of a chat. */
static bool has_text(json_t *choice)
{
    json_t *content = json_object_get(json_object_get(choice, "delta"), "content");
    return json_string_length(json_object_get(choice, "text")) > 0 ||
           json_string_length(content) > 0;
}

/* The caller frees. */
static char *token_text(json_t *tokens, size_t i)
{
    json_t *token = json_array_get(tokens, i);
    if (json_is_integer(token)) {
        char text[24];
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(token));
        return xstrdup(text);
    }
    const json_t *text = json_is_object(token) ? json_object_get(token, "token") : token;
    return shown_token(json_is_string(text) ? json_string_value(text) : "",
                       json_string_length(text));
}

/* The rows of a layer's experts or weights that belong to the last `count` positions, or NULL. */
static json_t *rows_of(json_t *layer, const char *what, size_t count)
{
    json_t *rows = json_object_get(layer, what);
    return json_array_size(rows) >= count ? rows : NULL;
}

static bool is_wanted(const struct token_table *table, json_t *layer)
{
    const char *name = json_string_value(json_object_get(layer, "name"));
    return name && (!table->layer || strcmp(name, table->layer) == 0);
}

/* The layers of an event that are wanted, each with rows for so many positions. The caller decrefs;
 * NULL: an error. */
static json_t *wanted_layers(const struct token_table *table, json_t *choice, size_t count,
                             struct moed_client_error *err)
{
    json_t *layers = json_object_get(json_object_get(choice, "routing"), "layers");
    json_t *wanted = json_array(), *layer;
    size_t i;
    bool whole = json_array_size(layers) > 0;
    json_array_foreach(layers, i, layer)
    {
        whole = whole && rows_of(layer, "experts", count) && rows_of(layer, "weights", count);
        if (is_wanted(table, layer))
            json_array_append(wanted, layer);
    }
    if (!whole)
        no_routing(err);
    else if (json_array_size(wanted) == 0)
        fail_with(err, "there is no layer '%.100s'; the first one is '%.100s'", table->layer,
                  json_string_value(json_object_get(json_array_get(layers, 0), "name")));
    else
        return wanted;
    json_decref(wanted);
    return NULL;
}

/* ---- the columns ---- */

static json_t *last_row(json_t *layer, const char *what, size_t before)
{
    json_t *rows = json_object_get(layer, what);
    return json_array_get(rows, json_array_size(rows) - before);
}

/* An expert's number may have more digits later: then its line is longer. */
static int digits_in(json_t *layers)
{
    json_int_t most = 10;
    size_t i, j, k;
    json_t *layer, *row, *expert;
    json_array_foreach(layers, i, layer)
    {
        json_array_foreach(json_object_get(layer, "experts"), j, row)
        {
            json_array_foreach(row, k, expert)
            {
                most = json_integer_value(expert) > most ? json_integer_value(expert) : most;
            }
        }
    }
    return snprintf(NULL, 0, "%lld", (long long)most);
}

/* Columns of so many experts, with a blank between them. */
static size_t columns_of_experts(const struct token_table *table, size_t experts)
{
    return experts * ((size_t)table->index_columns + WEIGHT_COLUMNS + 1) - 1;
}

/* Gives room to the first layers, at least to the first expert of the first one. */
static void lay_out(struct token_table *table, json_t *layers)
{
    size_t used = TOKEN_COLUMNS, i;
    json_t *layer;
    table->begun = true;
    table->layers = json_array_size(layers);
    table->widths = xcalloc(table->layers, sizeof *table->widths);
    table->experts_shown = xcalloc(table->layers, sizeof *table->experts_shown);
    table->index_columns = digits_in(layers);
    json_array_foreach(layers, i, layer)
    {
        size_t experts = json_array_size(last_row(layer, "experts", 1));
        experts = experts > 0 ? experts : 1;
        const size_t name = strlen(json_string_value(json_object_get(layer, "name")));
        size_t width = columns_of_experts(table, experts);
        width = name > width && table->columns == 0 ? name : width;
        const size_t left = table->columns > used ? table->columns - used : 0;
        while (table->columns && i == 0 && experts > 1 && GAP_COLUMNS + width > left) {
            table->cut = true;
            width = columns_of_experts(table, --experts);
        }
        if (table->columns && i > 0 && GAP_COLUMNS + width > left)
            break;
        table->widths[i] = width;
        table->experts_shown[i] = experts;
        used += GAP_COLUMNS + width;
        table->shown = i + 1;
    }
}

static void print_head(const struct token_table *table, json_t *layers)
{
    size_t rest = print_part("token", TOKEN_COLUMNS);
    for (size_t i = 0; i < table->shown; i++) {
        const char *text = json_string_value(json_object_get(json_array_get(layers, i), "name"));
        char *name = printable(text);
        print_blanks(rest + GAP_COLUMNS);
        rest = print_part(name, table->widths[i]);
        free(name);
    }
    putchar('\n');
}

/* ---- the lines ---- */

/* "13 0.69"; an expert that was dropped is a dash. */
static void print_expert(const struct token_table *table, const json_t *expert,
                         const json_t *weight)
{
    char number[24] = "-", part[24] = "";
    if (json_is_integer(expert) && json_integer_value(expert) >= 0) {
        const double value = json_number_value(weight);
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(expert));
        snprintf(part, sizeof part, value < 100 ? "%.2f" : "%.2g", value);
    }
    printf("%*s %*s", table->index_columns, number, WEIGHT_COLUMNS - 1, part);
}

/* `before` the end of the event's positions, counted from 1, are the experts of this token. */
static void print_line(const struct token_table *table, json_t *layers, const char *token,
                       size_t before)
{
    const size_t columns = columns_of_text(token);
    const bool cut = table->columns > 0 && columns > TOKEN_COLUMNS;
    size_t rest = print_part(token, cut || columns < TOKEN_COLUMNS ? TOKEN_COLUMNS : columns);
    for (size_t i = 0; i < table->shown; i++) {
        json_t *layer = json_array_get(layers, i);
        json_t *experts = last_row(layer, "experts", before);
        json_t *weights = last_row(layer, "weights", before);
        print_blanks(rest + GAP_COLUMNS);
        for (size_t j = 0; j < table->experts_shown[i]; j++) {
            print_blanks(j > 0);
            print_expert(table, json_array_get(experts, j), json_array_get(weights, j));
        }
        rest = table->widths[i] - columns_of_experts(table, table->experts_shown[i]);
    }
    putchar('\n');
}

int token_table_add(struct token_table *table, json_t *choice, struct moed_client_error *err)
{
    json_t *tokens = tokens_of(choice);
    const size_t count = json_array_size(tokens);
    const char *finish = json_string_value(json_object_get(choice, "finish_reason"));
    /* The model has ended the answer: by a token, too, which has no text. */
    const bool ends =
        count == 0 && finish && strcmp(finish, "stop") == 0 && json_object_get(choice, "routing");
    if (count == 0 && !ends) {
        table->unnamed = table->unnamed || has_text(choice);
        return 0;
    }
    json_t *layers = wanted_layers(table, choice, ends ? 1 : count, err);
    if (!layers)
        return -1;
    if (!table->begun) {
        lay_out(table, layers);
        print_head(table, layers);
    }
    if (json_array_size(layers) != table->layers) {
        json_decref(layers);
        return no_routing(err);
    }
    for (size_t i = 0; i < count; i++) {
        char *token = token_text(tokens, i);
        print_line(table, layers, token, count - i);
        free(token);
    }
    if (ends)
        print_line(table, layers, "(end)", 1);
    json_decref(layers);
    return 0;
}

int token_table_check(const struct token_table *table, struct moed_client_error *err)
{
    return table->unnamed && !table->begun ? no_routing(err) : 0;
}

void token_table_end(const struct token_table *table)
{
    if (table->shown < table->layers)
        printf("(%zu of %zu layers have room; --layer NAME shows another one, --json all)\n",
               table->shown, table->layers);
    else if (table->cut)
        puts("(not all experts have room; --json has them)");
}
