/* The state of `moectl top`, and its screen. */
#ifndef MOECTL_TOP_H
#define MOECTL_TOP_H

#include "clients/c/moectl/source.h"
#include "clients/c/moectl/terminal.h"

struct top {
    const struct settings *settings;
    struct terminal terminal;
    struct source *source;
    struct snapshot *now, *before; /* of one model; before: for rates, NULL: none yet */
    const char *window;            /* NULL: all */
    size_t scroll;                 /* lines above the first one shown */
    bool ranked, help, paused, leave;
};

/* Draws the whole screen in one write, and keeps `scroll` within what there is. */
void top_draw(struct top *top);

/* A line per layer, for what is not a terminal. */
void top_print_lines(const struct top *top, FILE *out);

#endif
