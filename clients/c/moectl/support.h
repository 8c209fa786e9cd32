/* What every file of moectl uses: errors, memory, text on its way to a terminal. */
#ifndef MOECTL_SUPPORT_H
#define MOECTL_SUPPORT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "clients/c/moed_client.h"

/* Of every function that returns -1 or NULL with an error: looking at it is not optional. */
#define MUST_CHECK __attribute__((warn_unused_result))

#define LENGTH(array) (sizeof(array) / sizeof *(array))

/* Records the first error, with the code INVALID. Returns -1. */
int fail_with(struct moed_client_error *err, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Puts "context: " in front of a recorded error. */
void fail_in(struct moed_client_error *err, const char *context);

/* A small allocation that fails ends the process: a tool has nobody to tell. What a file sizes is
 * allocated by malloc() and checked. The caller frees. */
void *xcalloc(size_t count, size_t bytes);
void *xchecked(void *memory);
char *xstrdup(const char *text);

/* A copy in which what a terminal obeys and bytes that are not UTF-8 are '?': names come from
 * servers and files. The caller frees. */
char *printable(const char *text);

/* The same of `length` bytes, also NULs, in which line breaks and tabs are what they were. */
char *printable_text(const char *text, size_t length);

/* What a noun ends with behind its number: "1 row", "2 rows". */
static inline const char *ending(uint64_t count)
{
    return count == 1 ? "" : "s";
}

/* Prints `text` in lines of at most `columns`, each behind `indent` blanks. */
void print_wrapped(FILE *out, int indent, int columns, const char *text);

/* Reads a whole file, "-" standard input, of at most `most` bytes. NUL-terminated behind its
 * length; the caller frees. NULL on error. */
MUST_CHECK char *read_file(const char *path, size_t most, size_t *length,
                           struct moed_client_error *err);

/* Closes what was written and tells whether all of it got there. `what` names it. */
MUST_CHECK int finish_output(FILE *out, const char *what, struct moed_client_error *err);

#endif
