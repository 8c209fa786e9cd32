/* The shared error type; see error.h for the tiers. */
#include "core/error.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* How long the last words wait for a reader of standard error. */
enum { LAST_WORDS_MS = 1000 };

/* Bytes of the character that begins here, 0 when none does: it is cut off, or a control character.
 */
static size_t printable_length(const unsigned char *c)
{
    if (c[0] < 0x80)
        return c[0] >= ' ' && c[0] != 0x7f;
    const size_t length = c[0] >= 0xf0 ? 4 : c[0] >= 0xe0 ? 3 : 2;
    if (c[0] < 0xc2 || c[0] > 0xf4 || (c[0] == 0xc2 && c[1] < 0xa0))
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((c[i] & 0xc0) != 0x80)
            return 0;
    return length;
}

/* Texts quote names from files that anyone may have written, and end where their buffers do: a name
 * must not drive the operator's terminal, nor half a character break a JSON document. */
void text_make_printable(char *text)
{
    for (unsigned char *c = (unsigned char *)text; *c;) {
        const size_t length = printable_length(c);
        if (length == 0)
            *c = '?';
        c += length ? length : 1;
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

int error_http_status(enum error_code code)
{
    static const int status[] = {
#define ERROR_STATUS(name, status, word) [ERROR_##name] = status,
        ERROR_CODES(ERROR_STATUS)
#undef ERROR_STATUS
    };
    return status[code];
}

const char *error_word(enum error_code code)
{
    static const char *const word[] = {
#define ERROR_WORD(name, status, word) [ERROR_##name] = word,
        ERROR_CODES(ERROR_WORD)
#undef ERROR_WORD
    };
    return word[code];
}

/* A pipe that polls writable takes the line without waiting for its reader. */
void out_of_memory(void)
{
    static const char text[] = "moed: out of memory for a small allocation\n";
    struct pollfd standard_error = {.fd = STDERR_FILENO, .events = POLLOUT};
    if (poll(&standard_error, 1, LAST_WORDS_MS) > 0)
        (void)!write(STDERR_FILENO, text, sizeof text - 1);
    abort();
}

static void *checked(void *memory)
{
    if (!memory)
        out_of_memory();
    return memory;
}

void *xmalloc(size_t bytes)
{
    return checked(malloc(bytes ? bytes : 1));
}

void *xcalloc(size_t count, size_t bytes)
{
    return checked(calloc(count ? count : 1, bytes ? bytes : 1));
}

void *xrealloc(void *memory, size_t bytes)
{
    return checked(realloc(memory, bytes ? bytes : 1));
}

char *xstrdup(const char *text)
{
    return checked(strdup(text));
}

void *calloc_checked(size_t count, size_t bytes, struct error *err)
{
    void *memory = calloc(count ? count : 1, bytes);
    if (!memory)
        error_set(err, ERROR_INTERNAL, "no memory for %zu entries of %zu bytes", count, bytes);
    return memory;
}
