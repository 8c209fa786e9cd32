/* One option: which row of the table a name means, and what a text sets it to. */
#ifndef SERVER_OPTIONS_VALUE_H
#define SERVER_OPTIONS_VALUE_H

#include <stdbool.h>

#include "core/error.h"
#include "server/options/options_table.h"

/* Longer names are no option's. */
enum { OPTION_NAME_BYTES = 64 };

/* The row of a flag ("max-batch-rows") or of a key ("max_batch_rows"); NULL: there is none. */
const struct option_row *option_find(const char *name, bool is_flag);

/* Fails; the error names the nearest option if that is near enough to be what was meant. */
MUST_CHECK int option_unknown(const char *name, bool is_flag, struct error *err);

/* Sets the row's field in `options`, which keeps a copy of the text. -1 with an error that says
 * what was expected. */
MUST_CHECK int option_set(struct options *options, const struct option_row *row, const char *text,
                          struct error *err);

/* Whether a text is a value of a switch. */
bool option_is_truth(const char *text);

/* Whether the field is a text, which option_string() then finds. */
bool option_is_text(const struct option_row *row);
char **option_string(struct options *options, const struct option_row *row);

#endif
