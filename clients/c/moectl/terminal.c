/* Colours, bars and sizes, by what standard output is. */
#include "clients/c/moectl/terminal.h"

#include <langinfo.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { DEFAULT_COLUMNS = 80, DEFAULT_LINES = 24 };

static bool wants_colour(void)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && !(no && *no) && term && strcmp(term, "dumb") != 0;
}

void terminal_measure(struct terminal *terminal)
{
    struct winsize size = {0};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0)
        size = (struct winsize){0};
    terminal->columns = size.ws_col ? size.ws_col : DEFAULT_COLUMNS;
    terminal->lines = size.ws_row ? size.ws_row : DEFAULT_LINES;
}

struct terminal terminal_of_output(void)
{
    struct terminal terminal = {
        .out = stdout,
        .colour = wants_colour(),
        .utf8 = strcmp(nl_langinfo(CODESET), "UTF-8") == 0,
    };
    terminal_measure(&terminal);
    return terminal;
}

void terminal_paint(const struct terminal *terminal, enum paint paint)
{
    static const char *const CODES[] = {
        [PAINT_PLAIN] = "\033[0m", [PAINT_BOLD] = "\033[1m",  [PAINT_DIM] = "\033[2m",
        [PAINT_GOOD] = "\033[32m", [PAINT_WARN] = "\033[33m", [PAINT_BAD] = "\033[31m",
    };
    if (terminal->colour)
        fputs(CODES[paint], terminal->out);
}

void terminal_bar(const struct terminal *terminal, double filled, int columns)
{
    static const char *const EIGHTHS[] = {"",       "\u258F", "\u258E", "\u258D",
                                          "\u258C", "\u258B", "\u258A", "\u2589"};
    filled = filled > 0 ? fmin(filled, 1) : 0; /* also of what is not a number */
    int eighths = (int)lround(filled * columns * 8);
    int full = terminal->utf8 ? eighths / 8 : (eighths + 4) / 8, drawn = full;
    for (int i = 0; i < full; i++)
        fputs(terminal->utf8 ? "\u2588" : "#", terminal->out);
    if (terminal->utf8 && eighths % 8) {
        fputs(EIGHTHS[eighths % 8], terminal->out);
        drawn++;
    }
    fprintf(terminal->out, "%*s", columns - drawn, "");
}
