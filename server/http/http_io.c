#include "server/http/http_io.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "server/http/http_tls.h"

ssize_t connection_receive(struct connection *connection, const struct iovec *into, int count)
{
    struct msghdr message = {.msg_iov = (struct iovec *)into, .msg_iovlen = (size_t)count};
    return connection->tls ? http_tls_receive(connection->tls, into, count)
                           : recvmsg(connection->fd, &message, 0);
}

ssize_t connection_send(struct connection *connection, const void *bytes, size_t size, int flags)
{
    return connection->tls ? http_tls_send(connection->tls, bytes, size)
                           : sendto(connection->fd, bytes, size, flags, NULL, 0);
}

/* A record that GnuTLS keeps would go out later, between others. A socket that polls writable takes
 * more than the few bytes that this is for. */
ssize_t connection_send_few(struct connection *connection, const void *bytes, size_t size)
{
    struct pollfd writable = {.fd = connection->fd, .events = POLLOUT};
    if (connection->tls && poll(&writable, 1, 0) <= 0) {
        errno = EAGAIN;
        return -1;
    }
    ssize_t sent = connection_send(connection, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (connection->tls && sent < 0)
        errno = EPIPE;
    return sent;
}

int http_io_untaken(int fd)
{
    int untaken;
    return ioctl(fd, SIOCOUTQ, &untaken) == 0 ? untaken : -1;
}

void connection_end(struct connection *connection)
{
    if (connection->tls)
        http_tls_end(connection->tls);
    shutdown(connection->fd, SHUT_WR);
}
