/* What a terminal can show: colours, characters beyond ASCII, so many columns. */
#ifndef MOECTL_TERMINAL_H
#define MOECTL_TERMINAL_H

#include <stdbool.h>
#include <stdio.h>

struct terminal {
    FILE *out;
    bool colour; /* a terminal, and neither NO_COLOR nor TERM=dumb */
    bool utf8;   /* the locale's character set */
    int columns, lines;
};

enum paint { PAINT_PLAIN, PAINT_BOLD, PAINT_DIM, PAINT_GOOD, PAINT_WARN, PAINT_BAD };

/* Of standard output. */
struct terminal terminal_of_output(void);

/* Asks for its size again. 80 x 24 where there is no terminal. */
void terminal_measure(struct terminal *terminal);

/* What is printed from here on; PAINT_PLAIN ends it. Nothing where there is no colour. */
void terminal_paint(const struct terminal *terminal, enum paint paint);

/* A bar of `columns` cells, of which the part `filled` (0 to 1) is drawn, to an eighth of a cell
 * where there is UTF-8; the rest is blank. */
void terminal_bar(const struct terminal *terminal, double filled, int columns);

#endif
