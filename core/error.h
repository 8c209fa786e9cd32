/* The one error type, shared by every room.
 *
 * Failures come in three tiers that never mix:
 *   1. what a client, a file or an operator got wrong: a function returns -1 (or NULL) and fills a
 *      caller-owned `struct error`; the front end turns its code into an HTTP status or an exit;
 *   2. a small, fixed-size allocation that fails: the x-functions below print and abort, because no
 *      caller could do better. Anything sized by a client or by a file uses malloc and tier 1;
 *   3. a bug in this program: assert().
 */
#ifndef MOED_ERROR_H
#define MOED_ERROR_H

#include <stdarg.h>
#include <stddef.h>

/* code, the HTTP status a front end answers with, a word for logs and metrics */
#define ERROR_CODES(X)                                                                             \
    X(NONE, 200, "ok")                                                                             \
    X(INVALID, 400, "invalid")                                                                     \
    X(NOT_FOUND, 404, "not_found")                                                                 \
    X(METHOD, 405, "method_not_allowed")                                                           \
    X(TIMEOUT, 408, "timeout")                                                                     \
    X(TOO_LARGE, 413, "too_large")                                                                 \
    X(TARGET_TOO_LONG, 414, "target_too_long")                                                     \
    X(MEDIA_TYPE, 415, "media_type")                                                               \
    X(OVERLOADED, 429, "overloaded")                                                               \
    X(HEADER_TOO_LARGE, 431, "header_too_large")                                                   \
    X(DISCONNECTED, 499, "disconnected") /* nobody reads this answer; for the log */               \
    X(INTERNAL, 500, "internal")                                                                   \
    X(UNSUPPORTED, 501, "unsupported")                                                             \
    X(UNAVAILABLE, 503, "unavailable")                                                             \
    X(DEADLINE, 504, "deadline")                                                                   \
    X(VERSION, 505, "version")

enum error_code {
#define ERROR_ENUM(name, status, word) ERROR_##name,
    ERROR_CODES(ERROR_ENUM)
#undef ERROR_ENUM
};

enum { ERROR_TEXT_BYTES = 512 };

struct error {
    enum error_code code;
    char text[ERROR_TEXT_BYTES]; /* what, where, what was expected; UTF-8, never empty once set */
};

#define ERROR_INIT                                                                                 \
    {                                                                                              \
        ERROR_NONE, ""                                                                             \
    }

/* Records an error unless one is recorded already (the first is nearest the cause). `err` may be
 * NULL. Always returns -1, so that a failing function can `return error_set(...)`. */
int error_set(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of a recorded error, for callers that know the file or the model. */
void error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Turns every control character and every byte that is no UTF-8 into '?': for text from a file or a
 * client on its way to a terminal or a log. */
void text_make_printable(char *text);

int error_http_status(enum error_code code);
const char *error_word(enum error_code code);

/* Says so on standard error, without allocating, and aborts: the end of the x-functions, and of
 * whoever finds that a library could not allocate. */
_Noreturn void out_of_memory(void);

void *xmalloc(size_t bytes);
void *xcalloc(size_t count, size_t bytes);
void *xrealloc(void *memory, size_t bytes);
char *xstrdup(const char *text);

/* Zeroed memory sized by a client or a file; NULL with an error when there is not so much. */
void *calloc_checked(size_t count, size_t bytes, struct error *err);

#endif
