/* Memory. An allocation of a small, fixed size that fails ends the process, because no caller could
 * do better: that is what the x-functions do. Whatever is sized by a client or by a file may fail,
 * and its caller gets an error. */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include <stddef.h>

struct error;

/* Says so on standard error, without allocating, and aborts: the end of the x-functions, and of
 * whoever finds that a library could not allocate. */
_Noreturn void out_of_memory(void);

/* Never NULL; also not for 0 bytes. The caller frees. */
void *xmalloc(size_t bytes);
void *xcalloc(size_t count, size_t bytes);
void *xrealloc(void *memory, size_t bytes);
char *xstrdup(const char *text);

/* Zeroed memory sized by a client or a file; NULL with an error when there is not so much. */
void *calloc_checked(size_t count, size_t bytes, struct error *err);

#endif
