/* Where to listen, as an option says it: HOST:PORT, [IPv6]:PORT or unix:/PATH. */
#ifndef SERVER_LISTEN_ADDRESS_H
#define SERVER_LISTEN_ADDRESS_H

#include <stdint.h>

#include "core/error.h"

struct listen_address {
    char host[256]; /* "" for a Unix socket */
    uint16_t port;
    const char *path; /* of a Unix socket, in the text that was read; NULL: none */
};

MUST_CHECK int listen_address_read(struct listen_address *address, const char *text,
                                   struct error *err);

#endif
