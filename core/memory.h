/* Memory allocation. If a small allocation of fixed size fails, the process ends, because no caller
 * could do better: these are the x-functions. An allocation sized by a client or a file may fail,
 * and the caller gets an error. */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

/* Reports the failure on standard error, without allocating, and aborts. Called by the x-functions
 * and wherever a library could not allocate. */
_Noreturn void out_of_memory(void);

/* Never NULL, not even for 0 bytes. The caller frees. */
void *xmalloc(size_t bytes);
void *xcalloc(size_t count, size_t bytes);
void *xrealloc(void *memory, size_t bytes);
char *xstrdup(const char *text);

/* Zeroed memory, sized by a client or a file; NULL with an error if there is not enough. */
MUST_CHECK void *calloc_checked(size_t count, size_t bytes, struct error *err);

/* The same; adds what it has allocated to *total. */
MUST_CHECK void *calloc_counted(size_t count, size_t bytes, uint64_t *total, struct error *err);

#endif
