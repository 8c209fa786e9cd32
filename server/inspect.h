/* `moed inspect`: what checkpoints hold, for people and for programs. */
#ifndef SERVER_INSPECT_H
#define SERVER_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "core/error.h"

/* Prints architecture, experts, parameters and memory of the checkpoint in `directory`; of a model
 * repository those of every model, in the order of their names. `json`: a line with one JSON object
 * for each instead of text. -1 with an error at the first one that cannot be loaded. */
MUST_CHECK int inspect(const char *directory, bool json, FILE *out, struct error *err);

#endif
