/* Which experts made each token of an answer: a line for each token, a column for each layer. */
#ifndef MOECTL_TOKEN_TABLE_H
#define MOECTL_TOKEN_TABLE_H

#include <jansson.h>

#include "clients/c/moectl/support.h"

struct token_table;

/* Of one layer only, or with NULL of all. `columns` is the width of the terminal, 0: there is none,
 * and lines are as long as they are. The caller frees. */
struct token_table *token_table_new(const char *layer, int columns);
void token_table_free(struct token_table *table);

/* Prints the tokens of an event's choice (OpenAI's, with "routing" and "logprobs"): each was made
 * by the experts of the position before it, and the last positions of an event are those. Before
 * the first one, what the columns are. */
MUST_CHECK int token_table_add(struct token_table *table, json_t *choice,
                               struct moed_client_error *err);

/* -1 with an error where a whole answer had text, and not one token to make a line of. */
MUST_CHECK int token_table_check(const struct token_table *table, struct moed_client_error *err);

/* Prints what had no room. */
void token_table_end(const struct token_table *table);

#endif
