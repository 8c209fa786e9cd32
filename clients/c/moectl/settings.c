/* Reads a command line by the table of options; this file knows no option by name. */
#include "clients/c/moectl/settings.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

const struct command *command_find(const char *name)
{
    for (size_t i = 0; i < COMMAND_ROWS; i++)
        if (strcmp(COMMANDS[i].name, name) == 0)
            return &COMMANDS[i];
    return NULL;
}

/* ---- one value ---- */

static void *field(struct settings *settings, const struct option_row *row)
{
    return (char *)settings + row->offset;
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

static int add_text(struct text_list *list, const struct option_row *row, const char *text,
                    struct moed_client_error *err)
{
    if (list->count == MOST_TEXTS)
        return fail_with(err, "--%s: at most %d of them", row->name, MOST_TEXTS);
    list->texts[list->count++] = text;
    return 0;
}

static int set_text(struct settings *settings, const struct option_row *row, const char *text,
                    struct moed_client_error *err)
{
    if (!*text || (row->type == OPTION_CHOICE && !is_choice(row->operand, text)))
        return fail_with(err, "--%s: expected %s, got '%.100s'", row->name, row->operand, text);
    if (row->type == OPTION_TEXTS)
        return add_text(field(settings, row), row, text, err);
    *(const char **)field(settings, row) = text;
    return 0;
}

static int set_number(struct settings *settings, const struct option_row *row, const char *text,
                      struct moed_client_error *err)
{
    char *end = NULL;
    bool decimal = *text >= '0' && *text <= '9' && !text[strspn(text, "0123456789.eE+-")];
    double number = decimal ? strtod(text, &end) : NAN;
    bool whole = row->type == OPTION_COUNT || row->type == OPTION_PASSED_WHOLE;
    if (!end || *end || !(number >= row->minimum && number <= row->maximum) ||
        (whole && number != floor(number)))
        return fail_with(err, "--%s: expected a %snumber from %.16g to %.16g, got '%.100s'",
                         row->name, whole ? "whole " : "", row->minimum, row->maximum, text);
    if (row->type == OPTION_COUNT)
        *(uint64_t *)field(settings, row) = (uint64_t)number;
    else if (row->type == OPTION_PASSED || row->type == OPTION_PASSED_WHOLE)
        *(const char **)field(settings, row) = text;
    else
        *(double *)field(settings, row) = number;
    return 0;
}

static int set_value(struct settings *settings, const struct option_row *row, const char *text,
                     struct moed_client_error *err)
{
    const bool words =
        row->type == OPTION_TEXT || row->type == OPTION_TEXTS || row->type == OPTION_CHOICE;
    return words ? set_text(settings, row, text, err) : set_number(settings, row, text, err);
}

/* ---- names ---- */

static const struct option_row *find_option(const struct command *command, const char *name,
                                            size_t length)
{
    for (size_t i = 0; i < OPTION_ROWS; i++)
        if (OPTIONS[i].commands & command->bit && strlen(OPTIONS[i].name) == length &&
            memcmp(OPTIONS[i].name, name, length) == 0)
            return &OPTIONS[i];
    return NULL;
}

/* Whoever mistypes an option wants to see them all. */
static int unknown_option(const struct command *command, const char *argument,
                          struct moed_client_error *err)
{
    char known[MOED_CLIENT_ERROR_BYTES] = "";
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        size_t used = strlen(known);
        if (OPTIONS[i].commands & command->bit)
            snprintf(known + used, sizeof known - used, " --%s", OPTIONS[i].name);
    }
    return fail_with(err, "%s has no option %.100s; there are%s", command->name, argument, known);
}

/* ---- arguments ---- */

/* `--name`, `--name value` or `--name=value` at `*at`; moves it to its last argument. */
static int read_option(struct settings *settings, const struct command *command, char *arguments[],
                       size_t count, size_t *at, struct moed_client_error *err)
{
    const char *name = arguments[*at] + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct option_row *row = find_option(command, name, length);
    if (!row)
        return unknown_option(command, arguments[*at], err);
    if (row->type == OPTION_FLAG) {
        *(bool *)field(settings, row) = true;
        return equals ? fail_with(err, "--%s takes no value", row->name) : 0;
    }
    if (equals)
        return set_value(settings, row, equals + 1, err);
    if (*at + 1 == count)
        return fail_with(err, "--%s: expected %s behind it", row->name, row->operand);
    return set_value(settings, row, arguments[++*at], err);
}

/* Short forms of options that are typed often; everything else has two dashes. */
static char *long_form(char *argument)
{
    static char output[] = "--output";
    return strcmp(argument, "-o") == 0 ? output : argument;
}

static int read_arguments(struct settings *settings, const struct command *command,
                          char *arguments[], size_t count, struct moed_client_error *err)
{
    bool only_operands = false;
    for (size_t i = 0; i < count; i++) {
        char *argument = long_form(arguments[i]);
        bool option = !only_operands && argument[0] == '-' && argument[1];
        arguments[i] = argument;
        if (option && strcmp(argument, "--") == 0)
            only_operands = true;
        else if (option && argument[1] != '-')
            return fail_with(err, "options begin with two dashes, got '%.100s'", argument);
        else if (option && read_option(settings, command, arguments, count, &i, err) != 0)
            return -1;
        else if (!option)
            arguments[settings->operand_count++] = argument;
    }
    settings->operands = (const char *const *)arguments;
    return 0;
}

static int check_operands(const struct settings *settings, const struct command *command,
                          struct moed_client_error *err)
{
    if (settings->operand_count < command->least_operands)
        return fail_with(err, "expected: moectl %s %s", command->name, command->operands);
    if (settings->operand_count > command->most_operands)
        return fail_with(err, "unexpected argument '%.100s'; expected: moectl %s%s%s",
                         settings->operands[command->most_operands], command->name,
                         *command->operands ? " " : "", command->operands);
    return 0;
}

static void take_environment(const char *name, const char **value)
{
    const char *found = getenv(name);
    if (found && *found)
        *value = found;
}

int settings_read(struct settings *settings, const struct command *command, char *arguments[],
                  size_t count, struct moed_client_error *err)
{
    *settings = (struct settings){0};
    for (size_t i = 0; i < OPTION_ROWS; i++)
        if (OPTIONS[i].value && set_value(settings, &OPTIONS[i], OPTIONS[i].value, err) != 0)
            return -1;
    take_environment("MOED_URL", &settings->url);
    take_environment("MOED_TOKEN", &settings->token);
    take_environment("MOED_CA", &settings->ca);
    if (read_arguments(settings, command, arguments, count, err) != 0)
        return -1;
    return check_operands(settings, command, err);
}
