/* New ids need not be secret, only different. */
#include "server/routes/request_id.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "server/http/http.h"

static bool is_usable(const char *id)
{
    if (!id || !*id || strlen(id) >= HTTP_REQUEST_ID_BYTES)
        return false;
    for (; *id; id++)
        if (*id <= ' ' || *id >= 0x7F)
            return false;
    return true;
}

/* splitmix64. */
static uint64_t mix(uint64_t value)
{
    value += 0x9E3779B97F4A7C15;
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9;
    value = (value ^ value >> 27) * 0x94D049BB133111EB;
    return value ^ value >> 31;
}

/* Of when and where: processes that see the same nanosecond have other addresses. */
static void make(struct exchange *exchange)
{
    uint64_t where = mix((uintptr_t)exchange);
    snprintf(exchange->request_id, sizeof exchange->request_id, "%016llx",
             (unsigned long long)mix(exchange->received_ns ^ where));
}

void request_id_set(struct exchange *exchange, const char *own)
{
    const char *given = exchange_header_in(exchange, "X-Request-Id");
    const char *id = is_usable(given) ? given : is_usable(own) ? own : NULL;
    if (id)
        snprintf(exchange->request_id, sizeof exchange->request_id, "%s", id);
    else
        make(exchange);
    exchange_header(exchange, "X-Request-Id", exchange->request_id);
}
