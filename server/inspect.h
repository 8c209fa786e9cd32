/* `moed inspect`: what a checkpoint holds, for people and for programs. */
#ifndef SERVER_INSPECT_H
#define SERVER_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "core/error.h"

/* Prints architecture, experts, parameters and memory of a checkpoint directory. `json`: one JSON
 * object instead of text. */
MUST_CHECK int inspect(const char *directory, bool json, FILE *out, struct error *err);

#endif
