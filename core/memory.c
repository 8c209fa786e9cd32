/* Allocation that either succeeds or says so. */
#include "core/memory.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/error.h"

/* How long the last message waits for standard error to accept it. */
enum { LAST_WORDS_MS = 1000 };

/* A pipe that polls as writable accepts the line without blocking. */
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
        error_set(err, ERROR_UNAVAILABLE, "no memory for %zu %s of %zu bytes", count,
                  count == 1 ? "entry" : "entries", bytes);
    return memory;
}

void *calloc_counted(size_t count, size_t bytes, uint64_t *total, struct error *err)
{
    void *memory = calloc_checked(count, bytes, err);
    *total += memory ? (uint64_t)count * bytes : 0;
    return memory;
}
