/* `moed inspect`: what checkpoints hold, for people and for programs. */
#ifndef SERVER_INSPECT_H
#define SERVER_INSPECT_H

#include <stdbool.h>
#include <stdio.h>

#include "core/error.h"
#include "server/options/options.h"

struct inspect_options {
    const struct options *server; /* with which it would be served */
    bool json;                    /* a line with one JSON object for each instead of text */
    bool check;                   /* read and pack all weights, too, as the server does */
};

/* Prints architecture, experts, parameters and memory of the checkpoint in `directory`; of a model
 * repository those of every model, in the order of their names; why one of them cannot be served
 * goes to standard error. Only headers are read, unless `check` is set. -1 with an error if any
 * cannot be served. */
MUST_CHECK int inspect(const char *directory, const struct inspect_options *options, FILE *out,
                       struct error *err);

#endif
