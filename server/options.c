/* Reads the options of `moed serve` from their four sources; see options.h. What options there are
 * is in options_table.c; this file knows no option by name. */
#include "server/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/log.h"
#include "server/options_table.h"

enum {
    /* A configuration file is read whole; a mistyped path to a checkpoint must not be. */
    CONFIG_MAX_BYTES = 64 << 10,
    NAME_MAX_BYTES = 64,
};

#define ENVIRONMENT_PREFIX "MOED_"

/* --- one value ------------------------------------------------------------- */

static char **string_field(struct options *options, const struct option_row *row)
{
    return (char **)((char *)options + row->offset);
}

static uint64_t *number_field(struct options *options, const struct option_row *row)
{
    return (uint64_t *)((char *)options + row->offset);
}

static bool is_text(const struct option_row *row)
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
    uint64_t value = 0;
    const char *at = text;
    for (; *at >= '0' && *at <= '9'; at++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value))
            return -1;
    }
    unsigned shift = type == OPTION_BYTES && at > text ? suffix_shift(*at) : 0;
    if (shift)
        at++;
    if (at == text || *at || value > UINT64_MAX >> shift)
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
    const size_t length = strlen(text);
    for (const char *at = choices; *at; at += strcspn(at, "|"), at += *at == '|')
        if (strcspn(at, "|") == length && memcmp(at, text, length) == 0)
            return true;
    return false;
}

static int set_text(struct options *options, const struct option_row *row, const char *text,
                    struct error *err)
{
    if (!*text)
        return error_set(err, ERROR_INVALID, "expected %s, got nothing", row->operand);
    if (row->type == OPTION_CHOICE && !is_choice(row->operand, text))
        return error_set(err, ERROR_INVALID, "expected %s, got \"%.100s\"", row->operand, text);
    char **field = string_field(options, row);
    free(*field);
    *field = xstrdup(text);
    return 0;
}

static int set_value(struct options *options, const struct option_row *row, const char *text,
                     struct error *err)
{
    return is_text(row) ? set_text(options, row, text, err) : set_number(options, row, text, err);
}

/* --- names ----------------------------------------------------------------- */

/* The row of a flag ("max-batch-rows") or of a key ("max_batch_rows"). */
static const struct option_row *find_row(const char *name, bool is_flag)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        const char *expected = option_rows[i].name, *at = name;
        while (*at && *at == (is_flag ? option_flag_character(*expected) : *expected))
            at++, expected++;
        if (!*at && !*expected)
            return &option_rows[i];
    }
    return NULL;
}

/* Edits (insert, delete, replace) between two names; dashes and underscores count as equal. Names
 * longer than any option's are infinitely far. */
static size_t name_distance(const char *a, const char *b)
{
    size_t distance[NAME_MAX_BYTES + 1], length = strlen(b);
    if (strlen(a) > NAME_MAX_BYTES || length > NAME_MAX_BYTES)
        return NAME_MAX_BYTES;
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

/* Names the nearest option if it is near enough to be what was meant. */
static int unknown_name(const char *name, bool is_flag, struct error *err)
{
    const struct option_row *nearest = &option_rows[0];
    for (size_t i = 1; i < OPTION_ROWS; i++) {
        if (name_distance(name, option_rows[i].name) < name_distance(name, nearest->name))
            nearest = &option_rows[i];
    }
    const char *dashes = is_flag ? "--" : "";
    if (name_distance(name, nearest->name) > 1 + strlen(nearest->name) / 3)
        return error_set(err, ERROR_INVALID, "unknown option %s%.100s; see moed help serve", dashes,
                         name);
    char suggestion[NAME_MAX_BYTES];
    snprintf(suggestion, sizeof suggestion, "%s", nearest->name);
    for (char *at = suggestion; is_flag && *at; at++)
        *at = option_flag_character(*at);
    return error_set(err, ERROR_INVALID, "unknown option %s%.100s; did you mean %s%s?", dashes,
                     name, dashes, suggestion);
}

/* --- the configuration file ------------------------------------------------ */

static bool is_blank(char character)
{
    return character == ' ' || character == '\t' || character == '\r';
}

static char *skip_blanks(char *at)
{
    while (is_blank(*at))
        at++;
    return at;
}

/* Cuts the value out of what follows the `=`: quoted, or up to a comment. Returns NULL when a quote
 * is not closed or something follows it. */
static char *cut_value(char *at)
{
    at = skip_blanks(at);
    if (*at == '"') {
        char *end = strchr(at + 1, '"');
        char *rest = end ? skip_blanks(end + 1) : NULL;
        if (!rest || (*rest && *rest != '#'))
            return NULL;
        *end = '\0';
        return at + 1;
    }
    char *end = at;
    while (*end && !(*end == '#' && (end == at || is_blank(end[-1]))))
        end++;
    while (end > at && is_blank(end[-1]))
        end--;
    *end = '\0';
    return at;
}

/* One line, NUL-terminated without its newline. `seen` marks the rows that had a line already. */
static int read_config_line(struct options *options, char *line, bool seen[], struct error *err)
{
    char *key = skip_blanks(line);
    if (!*key || *key == '#')
        return 0;
    char *equals = strchr(key, '=');
    char *value = equals ? cut_value(equals + 1) : NULL;
    if (!value)
        return error_set(err, ERROR_INVALID, "expected: key = value, or key = \"value\"");
    while (equals > key && is_blank(equals[-1]))
        equals--;
    *equals = '\0';
    const struct option_row *row = find_row(key, false);
    if (!row)
        return unknown_name(key, false, err);
    if (seen[row - option_rows])
        return error_set(err, ERROR_INVALID, "%s is set a second time", key);
    seen[row - option_rows] = true;
    if (set_value(options, row, value, err) != 0) {
        error_prefix(err, "%s", key);
        return -1;
    }
    return 0;
}

/* Reads a whole small text file, NUL-terminated; the caller frees. NULL on error. */
static char *read_config_file(const char *path, struct error *err)
{
    char *text = xmalloc(CONFIG_MAX_BYTES + 1);
    FILE *file = fopen(path, "re");
    size_t length = file ? fread(text, 1, CONFIG_MAX_BYTES + 1, file) : 0;
    bool failed = !file || ferror(file);
    if (failed)
        error_set(err, ERROR_INVALID, "cannot read %s: %s", path, strerror(errno));
    if (file)
        fclose(file);
    if (!failed && length <= CONFIG_MAX_BYTES && !memchr(text, '\0', length)) {
        text[length] = '\0';
        return text;
    }
    error_set(err, ERROR_INVALID, "%s is not a configuration file (text of at most %d bytes)", path,
              CONFIG_MAX_BYTES);
    free(text);
    return NULL;
}

static int read_config(struct options *options, const char *path, struct error *err)
{
    char *text = read_config_file(path, err);
    if (!text)
        return -1;
    bool seen[OPTION_ROWS] = {false};
    int number = 0, failed = 0;
    for (char *line = text, *next; line && !failed; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        number++;
        failed = read_config_line(options, line, seen, err);
    }
    free(text);
    if (failed)
        error_prefix(err, "%s line %d", path, number);
    return failed;
}

/* --- the environment ------------------------------------------------------- */

/* Kubernetes puts MOED_PORT=tcp://10.0.0.7:8080 into every pod of a namespace that has a service
 * called moed. That is its link to the service, not a setting of ours, and must not keep the pod
 * from starting. */
static bool is_service_link(const char *value)
{
    return !strncmp(value, "tcp://", 6) || !strncmp(value, "udp://", 6) ||
           !strncmp(value, "sctp://", 7);
}

/* The same for the variables beside it: MOED_SERVICE_HOST, MOED_SERVICE_PORT_HTTP,
 * MOED_PORT_8080_TCP_ADDR; and MOED_CANARY_SERVICE_HOST of a service called moed-canary. */
static bool is_service_variable(const char *name)
{
    const char *port = strstr(name, "_PORT_");
    return strstr(name, "_SERVICE_HOST") || strstr(name, "_SERVICE_PORT") ||
           (port && isdigit((unsigned char)port[strlen("_PORT_")]));
}

/* "MOED_MAX_ROWS" -> "max_rows", cut to fit. */
static void option_name_of(const char *variable, size_t length, char name[NAME_MAX_BYTES])
{
    const size_t prefix = strlen(ENVIRONMENT_PREFIX);
    snprintf(name, NAME_MAX_BYTES, "%.*s", (int)(length - prefix), variable + prefix);
    for (char *at = name; *at; at++)
        *at = *at >= 'A' && *at <= 'Z' ? (char)(*at - 'A' + 'a') : *at;
}

/* One variable, "NAME=value", that begins with MOED_. */
static int read_variable(struct options *options, const char *variable, struct error *err)
{
    char name[NAME_MAX_BYTES];
    const size_t length = strcspn(variable, "=");
    const char *value = variable + length + (variable[length] == '=');
    option_name_of(variable, length, name);
    if (is_service_link(value) || is_service_variable(variable) || strcmp(name, "kernel") == 0)
        return 0; /* the kernel is the engine's to read */
    const struct option_row *row = find_row(name, false);
    const int result = row ? set_value(options, row, value, err) : unknown_name(name, false, err);
    if (result != 0)
        error_prefix(err, "%.*s", (int)length, variable);
    return result;
}

/* A misspelt variable is refused like a misspelt flag: an option that silently keeps its default is
 * found out in production. */
static int read_environment(struct options *options, struct error *err)
{
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, ENVIRONMENT_PREFIX, strlen(ENVIRONMENT_PREFIX)) == 0 &&
            read_variable(options, *variable, err) != 0)
            return -1;
    return 0;
}

/* --- flags ----------------------------------------------------------------- */

/* `--name value` or `--name=value`. Takes what belongs to the flag at *index and moves it on. */
static int next_flag(int argc, char *const argv[], int *index, char name[NAME_MAX_BYTES],
                     const char **value, struct error *err)
{
    const char *argument = argv[(*index)++];
    if (strncmp(argument, "--", 2) != 0 || !argument[2])
        return error_set(err, ERROR_INVALID,
                         "unexpected argument \"%.100s\"; options begin with --", argument);
    const char *equals = strchr(argument, '=');
    size_t length = equals ? (size_t)(equals - argument) - 2 : strlen(argument) - 2;
    snprintf(name, NAME_MAX_BYTES, "%.*s", (int)(length < NAME_MAX_BYTES ? length : NAME_MAX_BYTES),
             argument + 2);
    *value = equals ? equals + 1 : NULL;
    if (strcmp(name, "config") != 0 && !find_row(name, true))
        return unknown_name(name, true, err);
    if (!*value && *index == argc)
        return error_set(err, ERROR_INVALID, "--%s: the value is missing", name);
    if (!*value)
        *value = argv[(*index)++];
    return 0;
}

/* Checks every flag and finds the configuration file (the last --config; NULL: none): it has to be
 * read before the flags that override it. */
static int find_config(int argc, char *const argv[], const char **config, struct error *err)
{
    *config = NULL;
    for (int index = 0; index < argc;) {
        char name[NAME_MAX_BYTES];
        const char *value;
        if (next_flag(argc, argv, &index, name, &value, err) != 0)
            return -1;
        if (!strcmp(name, "config"))
            *config = value;
    }
    return 0;
}

static int read_flags(struct options *options, int argc, char *const argv[], struct error *err)
{
    for (int index = 0; index < argc;) {
        char name[NAME_MAX_BYTES];
        const char *value;
        if (next_flag(argc, argv, &index, name, &value, err) != 0)
            return -1;
        const struct option_row *row = find_row(name, true);
        if (row && set_value(options, row, value, err) != 0) {
            error_prefix(err, "--%s", name);
            return -1;
        }
    }
    return 0;
}

/* --- all of them ----------------------------------------------------------- */

static int read_defaults(struct options *options, struct error *err)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (option_rows[i].value &&
            set_value(options, &option_rows[i], option_rows[i].value, err) != 0)
            return -1;
    }
    return 0;
}

static int check_required(struct options *options, struct error *err)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (!option_rows[i].value && !*string_field(options, &option_rows[i]))
            return error_set(err, ERROR_INVALID,
                             "--%s %s is required, here or as '%s' in the configuration file",
                             option_rows[i].name, option_rows[i].operand, option_rows[i].name);
    }
    return 0;
}

/* What no single option's range can say. */
static int check_together(const struct options *options, struct error *err)
{
    if (options->max_request_rows > options->max_queue_rows)
        return error_set(err, ERROR_INVALID,
                         "max_request_rows (%llu) exceeds max_queue_rows (%llu): such a request "
                         "could never be queued",
                         (unsigned long long)options->max_request_rows,
                         (unsigned long long)options->max_queue_rows);
    if (options->max_body_bytes > options->max_total_body_bytes)
        return error_set(err, ERROR_INVALID,
                         "max_body_bytes (%llu) exceeds max_total_body_bytes (%llu): such a body "
                         "could never be received",
                         (unsigned long long)options->max_body_bytes,
                         (unsigned long long)options->max_total_body_bytes);
    return 0;
}

int options_init(struct options *options, int argc, char *const argv[], struct error *err)
{
    const char *config;
    *options = (struct options){0};
    if (find_config(argc, argv, &config, err) != 0 || read_defaults(options, err) != 0 ||
        (config && read_config(options, config, err) != 0) || read_environment(options, err) != 0 ||
        read_flags(options, argc, argv, err) != 0 || check_required(options, err) != 0 ||
        check_together(options, err) != 0) {
        options_close(options);
        return -1;
    }
    return 0;
}

void options_close(struct options *options)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (is_text(&option_rows[i]))
            free(*string_field(options, &option_rows[i]));
    }
    *options = (struct options){0};
}
