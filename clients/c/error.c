/* Errors of the library, of which the first cause wins and texts never overflow, and memory. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "clients/c/internal.h"
#include "clients/c/text.h"

int client_fail(struct moed_client_error *err, enum moed_client_code code, const char *format, ...)
{
    if (!err || err->code != MOED_CLIENT_OK)
        return -1;
    err->code = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(err->text, sizeof err->text, format, arguments);
    va_end(arguments);
    text_keep_whole(err->text);
    return -1;
}

int client_no_memory(struct moed_client_error *err)
{
    return client_fail(err, MOED_CLIENT_NO_MEMORY, "out of memory");
}

int client_grow(char **data, size_t *capacity, size_t needed)
{
    size_t room = *capacity ? *capacity : 4096;
    while (room < needed)
        room *= 2;
    char *more = room == *capacity ? *data : realloc(*data, room);
    if (!more)
        return -1;
    *data = more;
    *capacity = room;
    return 0;
}
