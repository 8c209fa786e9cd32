/* The table of options: for options_*.c only. */
#ifndef SERVER_OPTIONS_TABLE_H
#define SERVER_OPTIONS_TABLE_H

#include <stddef.h>
#include <stdint.h>

struct options;

enum option_type { OPTION_STRING, OPTION_CHOICE, OPTION_COUNT, OPTION_BYTES, OPTION_SWITCH };

struct option_row {
    const char *name; /* in the file; MOED_NAME in the environment, --name with dashes as a flag */
    enum option_type type;
    size_t offset; /* in struct options: a char * for STRING and CHOICE, otherwise a uint64_t */
    uint64_t minimum, maximum;
    const char *value;   /* the default; NULL: required; "": none */
    const char *sample;  /* what the sample file shows for a required one */
    const char *operand; /* what the help calls the value; of a CHOICE all of them: "one|two" */
    const char *group;   /* a title where a group begins, otherwise NULL */
    const char *help;
};

enum { OPTION_ROWS = 51 };

extern const struct option_row OPTIONS[OPTION_ROWS];

/* How a character of a name looks in a flag. */
static inline char option_flag_character(char character)
{
    return character == '_' ? '-' : character;
}

#endif
