/* The listening socket, opened by us and not by libmicrohttpd, so that what goes wrong is said in
 * our words and port 0 can be read back. */
#ifndef SERVER_HTTP_LISTEN_H
#define SERVER_HTTP_LISTEN_H

#include <stdint.h>
#include <uv.h>

#include "core/error.h"
#include "server/http.h"

/* Binds the first address of `host` that can be bound (IPv4 or IPv6) and listens. Returns the
 * socket and puts the port it got in `bound`; -1 on error. */
int http_listen(uv_loop_t *loop, const char *host, uint16_t port, enum http_listening listening,
                uint16_t *bound, struct error *err);

/* Makes sure that `connections` sockets can be open beside everything else: raises the soft limit
 * of open files as far as the hard one allows. Without descriptors accept(2) fails again and again,
 * and clients hang in the backlog. */
int http_raise_file_limit(unsigned connections, struct error *err);

#endif
