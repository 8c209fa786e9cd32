/* The bytes of a connection, whether TLS is around them or not. */
#ifndef SERVER_HTTP_IO_H
#define SERVER_HTTP_IO_H

#include <sys/uio.h>

#include "server/http/http_state.h"

/* Like recvmsg(2), without waiting. */
ssize_t connection_receive(struct connection *connection, const struct iovec *into, int count);

/* Like send(2), without waiting. After EAGAIN the same bytes must be sent again. */
ssize_t connection_send(struct connection *connection, const void *bytes, size_t size, int flags);

/* Sends a few bytes that nobody sends again: all of them, or -1 and the connection is of no more
 * use. EAGAIN if the client has not taken what was sent before; then nothing was sent. */
ssize_t connection_send_few(struct connection *connection, const void *bytes, size_t size);

/* Bytes that were written to a socket, of which the other side's system has not told that it has
 * them. -1: unknown. */
int http_io_untaken(int fd);

/* Shuts our side, after telling the client that nothing more comes. */
void connection_end(struct connection *connection);

#endif
