/* Connections that this program makes: none is waited for beyond its time. */
#ifndef SERVER_DIAL_H
#define SERVER_DIAL_H

#include <netdb.h>
#include <stdint.h>

#include "core/error.h"

/* Connects a socket that does not wait; the caller closes it. -1 with errno, ETIMEDOUT when the
 * time uv_hrtime() is `until_ns`. */
MUST_CHECK int dial(const struct addrinfo *address, uint64_t until_ns);

/* Waits until `events` of poll(2) are possible on a socket. -1 with errno, as above. */
MUST_CHECK int dial_await(int fd, short events, uint64_t until_ns);

/* "host:port", as a Host field has it: an address of IPv6 is in brackets. Text that does not fit is
 * cut. Returns `text`. */
enum { DIAL_HOST_BYTES = 320 };
const char *dial_host(char text[DIAL_HOST_BYTES], const char *host, const char *port);

#endif
