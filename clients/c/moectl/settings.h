/* Commands and options of moectl: the one table from which parsing, --help, the manual page and
 * the completion all come. */
#ifndef MOECTL_SETTINGS_H
#define MOECTL_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "clients/c/moectl/support.h"

/* Bits of the commands. */
enum {
    FOR_MODELS = 1 << 0,
    FOR_PREDICT = 1 << 1,
    FOR_ROUTING = 1 << 2,
    FOR_TOP = 1 << 3,
    FOR_REPORT = 1 << 4,
    FOR_MERGE = 1 << 5,
    FOR_EXPORT = 1 << 6,
    FOR_BENCH = 1 << 7,
    FOR_HELP = 1 << 8,
    FOR_ABLATE = 1 << 9,
    FOR_GENERATE = 1 << 10,
    /* Those that ask a server. */
    FOR_SERVER = FOR_MODELS | FOR_PREDICT | FOR_ROUTING | FOR_TOP | FOR_EXPORT | FOR_BENCH |
                 FOR_ABLATE | FOR_GENERATE,
};

/* As many as OpenAI's API takes of what may be given several times. */
enum { MOST_TEXTS = 16 };

struct text_list {
    const char *texts[MOST_TEXTS];
    size_t count;
};

/* What the command line says. Strings borrow from it or from the environment. */
struct settings {
    const char *url, *token, *ca, *tag;
    double timeout; /* seconds */
    uint64_t max_answer_mb;
    const char *version, *window, *layer, *include;
    const char *format, *value, *from, *output;
    bool json, csv, names;
    bool uncounted;
    uint64_t rows, top;
    double rate, duration, interval; /* requests per second; seconds; seconds */
    uint64_t concurrency, requests, count, cache;
    const char *input;
    bool chat, experts;
    const char *temperature, *top_p, *top_k, *seed; /* NULL: the server's */
    struct text_list stop;
    uint64_t max_tokens, prompt_tokens;
    const char *const *operands;
    size_t operand_count;
};

enum option_type {
    OPTION_FLAG,
    OPTION_TEXT,
    OPTION_TEXTS, /* one each time it is given: the field is a struct text_list */
    OPTION_CHOICE,
    OPTION_COUNT,
    OPTION_NUMBER,
    /* Numbers that are passed on, the second kind whole: the field is its text, NULL without. */
    OPTION_PASSED,
    OPTION_PASSED_WHOLE,
};

struct option_row {
    const char *name; /* without its dashes */
    enum option_type type;
    size_t offset; /* in struct settings: a bool, a string, a uint64_t or a double */
    double minimum, maximum;
    const char *value;   /* the default as text; NULL: none */
    const char *operand; /* what the help calls the value; of a CHOICE all of them: "one|two" */
    unsigned commands;   /* FOR_... of those that take it */
    const char *help;
};

struct example {
    const char *line, *what;
};

enum { MAX_EXAMPLES = 4, ANY_OPERANDS = 1 << 20 };

struct command {
    const char *name, *operands, *summary;
    unsigned bit; /* FOR_... */
    size_t least_operands, most_operands;
    const char *description; /* paragraphs, separated by a line break */
    struct example examples[MAX_EXAMPLES];
    int (*run)(const struct settings *settings, struct moed_client_error *err);
};

extern const struct option_row OPTIONS[];
extern const size_t OPTION_ROWS;
extern const struct command COMMANDS[];
extern const size_t COMMAND_ROWS;

/* NULL: there is none of that name. */
const struct command *command_find(const char *name);

/* Fills `settings` from defaults, the environment and `arguments`, of which operands are moved to
 * the front. */
MUST_CHECK int settings_read(struct settings *settings, const struct command *command,
                             char *arguments[], size_t count, struct moed_client_error *err);

/* ---- made from the tables ---- */

void print_overview(FILE *out);
void print_help(FILE *out, const struct command *command);
void print_manual(FILE *out);
void print_completion(FILE *out);

#endif
