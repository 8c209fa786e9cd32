/* Error texts quote names from untrusted files and are cut at the end of their buffer: a quoted
 * name must not control the operator's terminal, and a cut must not leave half a character in a
 * JSON document. */
#include "core/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/text.h"

enum error_code error_of_errno(int number)
{
    switch (number) {
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return ERROR_UNAVAILABLE;
    case EIO:
        return ERROR_INTERNAL;
    default:
        return ERROR_INVALID;
    }
}

int error_set(struct error *err, enum error_code code, const char *format, ...)
{
    if (!err || err->code != ERROR_NONE)
        return -1;
    err->code = code;
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    text_make_printable(err->text);
    return -1;
}

void error_in(struct error *err, const char *path)
{
    const size_t length = strlen(path);
    const bool names = err && strncmp(err->text, path, length) == 0 &&
                       (err->text[length] == ':' || err->text[length] == '/');
    if (!names)
        error_prefix(err, "%s", path);
}

void error_prefix(struct error *err, const char *format, ...)
{
    if (!err || err->code == ERROR_NONE)
        return;
    char text[ERROR_TEXT_BYTES];
    va_list args;
    va_start(args, format);
    int used = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (used < 0 || (size_t)used >= sizeof text)
        return;
    snprintf(text + used, sizeof text - (size_t)used, ": %.*s", ERROR_TEXT_BYTES - 3, err->text);
    memcpy(err->text, text, sizeof text);
    text_make_printable(err->text);
}
