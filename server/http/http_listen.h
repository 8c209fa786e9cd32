/* The listening socket. We open it, not libmicrohttpd, so that an error says what is wrong, and the
 * port behind port 0 is known. */
#ifndef SERVER_HTTP_LISTEN_H
#define SERVER_HTTP_LISTEN_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "core/error.h"

/* Several loops may listen on one port, and the kernel gives each connection to one of them. */
enum http_listening {
    HTTP_LISTEN_ALONE,
    HTTP_LISTEN_FIRST, /* of several; fails like ALONE when another process has the port */
    HTTP_LISTEN_JOIN,
};

/* Listens on the first address of `host` that can be bound (IPv4 or IPv6). Returns the socket and
 * puts its port in `bound`; -1 with an error. */
MUST_CHECK int http_listen(uv_loop_t *loop, const char *host, uint16_t port,
                           enum http_listening listening, uint16_t *bound, struct error *err);

/* A descriptor of its own for a TCP socket that listens already; its port in `bound`. */
MUST_CHECK int http_listen_given(int fd, uint16_t *bound, struct error *err);

/* Listens on a Unix socket, to which the owner and the group of its file may connect. The file of a
 * server that was killed is replaced. Who closes the socket removes the file. */
MUST_CHECK int http_listen_unix(const char *path, struct error *err);

/* Whether a connection waits to be accepted. Ask before another has to give way to it. */
bool http_listen_waits(int fd);

/* Puts in `connections` how many may be open in the process: `wanted`, or, if that is 0, as many as
 * the limit of open files allows, at most HTTP_DEFAULT_CONNECTIONS. Raises the soft limit if
 * needed. -1 with an error if `wanted` connections, or even one, are not allowed: without
 * descriptors accept(2) would fail again and again, and clients would hang in the backlog. */
MUST_CHECK int http_limit_connections(uint64_t wanted, uint64_t loops, unsigned *connections,
                                      struct error *err);

enum { HTTP_DEFAULT_CONNECTIONS = 1024 };

#endif
