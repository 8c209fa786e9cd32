/* One MoE layer as a table with bars. */
#ifndef MOECTL_LAYER_VIEW_H
#define MOECTL_LAYER_VIEW_H

#include <stdio.h>

#include "clients/c/moectl/document.h"
#include "clients/c/moectl/terminal.h"

/* An empty line, a head, a line for each expert, and what follows from them. `ranked`: experts by
 * their load instead of their index. */
void layer_print(const struct terminal *terminal, const struct layer *layer, bool ranked);

/* The rest of a layer's first line: "   7 rows, 2 of 5 experts serve a row". */
void layer_print_size(const struct layer *layer, FILE *out);

#endif
