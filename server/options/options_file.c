/* The file is read whole and cut into lines in place. */
#include "server/options/options_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "server/options/options_value.h"

/* A mistyped path to a checkpoint must not be read whole. */
enum { CONFIG_MAX_BYTES = 64 << 10 };

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
    const struct option_row *row = option_find(key, false);
    if (!row)
        return option_unknown(key, false, err);
    if (seen[row - OPTIONS])
        return error_set(err, ERROR_INVALID, "%s is set a second time", key);
    seen[row - OPTIONS] = true;
    if (option_set(options, row, value, err) != 0) {
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

int options_read_file(struct options *options, const char *path, struct error *err)
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
