/* The one error type, shared by every room.
 *
 * Failures come in three tiers that never mix:
 *   1. what a client, a file or an operator got wrong: a function returns -1 (or NULL) and fills a
 *      caller-owned `struct error`; the front end turns its code into an HTTP status or an exit;
 *   2. a small allocation of fixed size that fails: the process ends (core/memory.h);
 *   3. a bug in this program: assert().
 */
#ifndef CORE_ERROR_H
#define CORE_ERROR_H

#include <stddef.h>

enum error_code {
    ERROR_NONE,
    ERROR_INVALID,         /* what was given is wrong */
    ERROR_CONTEXT,         /* more tokens than a model's context, or than the server keeps */
    ERROR_UNAUTHENTICATED, /* who asks did not say who they are */
    ERROR_FORBIDDEN,       /* who asks may not */
    ERROR_NOT_FOUND,       /* no such model, version or route */
    ERROR_METHOD,          /* the route has no such method */
    ERROR_TIMEOUT,         /* the request did not arrive in time */
    ERROR_TOO_LARGE,       /* a bound is exceeded */
    ERROR_TARGET_TOO_LONG,
    ERROR_MEDIA_TYPE, /* an unsupported content coding */
    ERROR_OVERLOADED, /* the queue is full: try again later */
    ERROR_HEADER_TOO_LARGE,
    ERROR_DISCONNECTED, /* the client left: for the log, nobody reads this answer */
    ERROR_INTERNAL,     /* the machine or this program failed */
    ERROR_UNSUPPORTED,  /* a part of HTTP that is not implemented */
    ERROR_UNAVAILABLE,  /* the server stops, or lacks memory */
    ERROR_DEADLINE,     /* the deadline passed before the answer was ready */
    ERROR_VERSION,      /* an unsupported version of HTTP */
    ERROR_CODE_COUNT,
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

/* Marks every function that returns -1 or NULL with an error: callers must look at the result. */
#define MUST_CHECK __attribute__((warn_unused_result))

/* What the file or the machine has failed with: whoever lacks memory or descriptors may try again,
 * a disk that cannot be read is nobody's mistake, and all else is wrong with what was named. */
enum error_code error_of_errno(int number);

/* Records an error unless one is recorded already (the first is nearest the cause). `err` may be
 * NULL. Always returns -1, so that a failing function can `return error_set(...)`. */
int error_set(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prepends "context: " to a recorded error, for callers that know the file or the model. */
void error_prefix(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with a path, unless the error begins with it already, or with that of something in it.
 */
void error_in(struct error *err, const char *path);

#endif
