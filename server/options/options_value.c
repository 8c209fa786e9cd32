/* Every source of options sets values here, so that a value means the same wherever it stands. */
#include "server/options/options_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "server/options/options.h"

/* ---- values ---- */

char **option_string(struct options *options, const struct option_row *row)
{
    return (char **)((char *)options + row->offset);
}

static uint64_t *number_field(struct options *options, const struct option_row *row)
{
    return (uint64_t *)((char *)options + row->offset);
}

bool option_is_text(const struct option_row *row)
{
    return row->type == OPTION_STRING || row->type == OPTION_CHOICE;
}

static unsigned suffix_shift(char suffix)
{
    switch (suffix) {
    case 'K':
    case 'k':
        return 10;
    case 'M':
    case 'm':
        return 20;
    case 'G':
    case 'g':
        return 30;
    default:
        return 0;
    }
}

/* Digits only, with a size suffix where the type has one: no sign, blank, base or fraction. */
static int read_number(const char *text, enum option_type type, uint64_t *number)
{
    uint64_t value;
    const char *end = text_whole_number(text, &value);
    if (!end)
        return -1;
    unsigned shift = type == OPTION_BYTES ? suffix_shift(*end) : 0;
    if (shift)
        end++;
    if (*end || value > UINT64_MAX >> shift)
        return -1;
    *number = value << shift;
    return 0;
}

static int set_number(struct options *options, const struct option_row *row, const char *text,
                      struct error *err)
{
    uint64_t number;
    if (read_number(text, row->type, &number) != 0 || number < row->minimum ||
        number > row->maximum)
        return error_set(err, ERROR_INVALID,
                         "expected a whole number from %llu to %llu%s, got \"%.100s\"",
                         (unsigned long long)row->minimum, (unsigned long long)row->maximum,
                         row->type == OPTION_BYTES ? " (a suffix K, M or G is allowed)" : "", text);
    *number_field(options, row) = number;
    return 0;
}

/* Whether `text` is one of "one|two|three". */
static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (const char *at = choices; *at; at += strcspn(at, "|"), at += *at == '|')
        if (strcspn(at, "|") == length && memcmp(at, text, length) == 0)
            return true;
    return false;
}

static int set_text(struct options *options, const struct option_row *row, const char *text,
                    struct error *err)
{
    const bool is_optional = row->value && !*row->value;
    if (!*text && !is_optional)
        return error_set(err, ERROR_INVALID, "expected %s, got nothing", row->operand);
    if (row->type == OPTION_CHOICE && !is_choice(row->operand, text))
        return error_set(err, ERROR_INVALID, "expected %s, got \"%.100s\"", row->operand, text);
    char **field = option_string(options, row);
    free(*field);
    *field = *text ? xstrdup(text) : NULL;
    return 0;
}

bool option_is_truth(const char *text)
{
    return strcmp(text, "true") == 0 || strcmp(text, "false") == 0;
}

static int set_switch(struct options *options, const struct option_row *row, const char *text,
                      struct error *err)
{
    if (!option_is_truth(text))
        return error_set(err, ERROR_INVALID, "expected true or false, got \"%.100s\"", text);
    *number_field(options, row) = *text == 't';
    return 0;
}

int option_set(struct options *options, const struct option_row *row, const char *text,
               struct error *err)
{
    if (row->type == OPTION_SWITCH)
        return set_switch(options, row, text, err);
    return option_is_text(row) ? set_text(options, row, text, err)
                               : set_number(options, row, text, err);
}

/* ---- names ---- */

const struct option_row *option_find(const char *name, bool is_flag)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        const char *expected = OPTIONS[i].name, *at = name;
        while (*at && *at == (is_flag ? option_flag_character(*expected) : *expected))
            at++, expected++;
        if (!*at && !*expected)
            return &OPTIONS[i];
    }
    return NULL;
}

/* Edits (insert, delete, replace) between two names; dashes and underscores count as equal. A name
 * that is longer than any option's is at the largest distance. */
static size_t name_distance(const char *a, const char *b)
{
    size_t distance[OPTION_NAME_BYTES + 1], length = strlen(b);
    if (strlen(a) > OPTION_NAME_BYTES || length > OPTION_NAME_BYTES)
        return OPTION_NAME_BYTES;
    for (size_t j = 0; j <= length; j++)
        distance[j] = j;
    for (size_t i = 0; a[i]; i++) {
        size_t diagonal = distance[0];
        distance[0] = i + 1;
        for (size_t j = 0; j < length; j++) {
            size_t replaced =
                diagonal + (option_flag_character(a[i]) != option_flag_character(b[j]));
            diagonal = distance[j + 1];
            size_t shortest = distance[j] < diagonal ? distance[j] + 1 : diagonal + 1;
            distance[j + 1] = replaced < shortest ? replaced : shortest;
        }
    }
    return distance[length];
}

int option_unknown(const char *name, bool is_flag, struct error *err)
{
    const struct option_row *nearest = &OPTIONS[0];
    for (size_t i = 1; i < OPTION_ROWS; i++) {
        if (name_distance(name, OPTIONS[i].name) < name_distance(name, nearest->name))
            nearest = &OPTIONS[i];
    }
    const char *dashes = is_flag ? "--" : "";
    if (name_distance(name, nearest->name) > 1 + strlen(nearest->name) / 3)
        return error_set(err, ERROR_INVALID, "unknown option %s%.100s; see moed help serve", dashes,
                         name);
    char suggestion[OPTION_NAME_BYTES];
    snprintf(suggestion, sizeof suggestion, "%s", nearest->name);
    for (char *at = suggestion; is_flag && *at; at++)
        *at = option_flag_character(*at);
    return error_set(err, ERROR_INVALID, "unknown option %s%.100s; did you mean %s%s?", dashes,
                     name, dashes, suggestion);
}
