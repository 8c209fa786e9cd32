/* Errors, memory and text: what every file of moectl uses. */
#include "clients/c/moectl/support.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/text.h"

/* ---- errors and memory ---- */

int fail_with(struct moed_client_error *err, const char *format, ...)
{
    if (!err || err->code != MOED_CLIENT_OK)
        return -1;
    err->code = MOED_CLIENT_INVALID;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    text_keep_whole(err->text);
    return -1;
}

void fail_in(struct moed_client_error *err, const char *context)
{
    char text[sizeof err->text];
    snprintf(text, sizeof text, "%.200s: %.300s", context, err->text);
    text_keep_whole(text);
    memcpy(err->text, text, sizeof text);
}

void *xchecked(void *memory)
{
    if (memory)
        return memory;
    fputs("moectl: out of memory\n", stderr);
    abort();
}

void *xcalloc(size_t count, size_t bytes)
{
    return xchecked(calloc(count ? count : 1, bytes ? bytes : 1));
}

char *xstrdup(const char *text)
{
    return xchecked(strdup(text));
}

/* ---- text ---- */

/* `kept` is what of it may stay. A NUL stands behind the text. */
static char *harmless(const char *text, size_t length, const char *kept)
{
    char *copy = xcalloc(length + 1, 1), *to = copy;
    const char *end = text + length;
    while (text < end) {
        uint32_t code;
        const size_t bytes = text_character(text, &code);
        if (bytes == 0 || (text_is_control(code) && !memchr(kept, *text, strlen(kept)))) {
            *to++ = '?';
        } else {
            memcpy(to, text, bytes);
            to += bytes;
        }
        text += bytes ? bytes : 1;
    }
    return copy;
}

char *printable(const char *text)
{
    return harmless(text, strlen(text), "");
}

char *printable_text(const char *text, size_t length)
{
    return harmless(text, length, "\n\t");
}

void print_wrapped(FILE *out, int indent, int columns, const char *text)
{
    size_t room = (size_t)(columns - indent);
    while (*text) {
        size_t length = strlen(text);
        if (length > room) {
            for (length = room; length > 0 && text[length] != ' '; length--)
                ;
            if (length == 0)
                length = strcspn(text, " ");
        }
        fprintf(out, "%*s%.*s\n", indent, "", (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
}

/* ---- files ---- */

/* Reads to the end, or one byte beyond `most`. NULL: no memory, or a reading error. */
static char *read_all(FILE *file, size_t most, size_t *length)
{
    size_t capacity = 1 << 16;
    char *data = malloc(capacity + 1);
    *length = 0;
    while (data) {
        *length += fread(data + *length, 1, capacity - *length, file);
        if (*length < capacity || *length > most)
            break;
        char *more = realloc(data, 2 * capacity + 1);
        if (!more)
            free(data);
        data = more;
        capacity *= 2;
    }
    if (data && ferror(file)) {
        free(data);
        return NULL;
    }
    return data;
}

char *read_file(const char *path, size_t most, size_t *length, struct moed_client_error *err)
{
    bool standard = strcmp(path, "-") == 0;
    FILE *file = standard ? stdin : fopen(path, "re");
    const char *name = standard ? "standard input" : path;
    char *data = NULL;
    errno = 0;
    if (file)
        data = read_all(file, most, length);
    if (!data)
        fail_with(err, "cannot read %.300s: %s", name, strerror(errno ? errno : ENOENT));
    else if (*length > most) {
        fail_with(err, "%.300s has more than %zu bytes", name, most);
        free(data);
        data = NULL;
    } else
        data[*length] = '\0';
    if (file && !standard)
        fclose(file);
    return data;
}

int finish_output(FILE *out, const char *what, struct moed_client_error *err)
{
    bool failed = ferror(out) != 0;
    errno = 0;
    if (out == stdout ? fflush(out) != 0 : fclose(out) != 0)
        failed = true;
    return failed ? fail_with(err, "cannot write %.200s: %s", what, strerror(errno ? errno : EIO))
                  : 0;
}
