/* libmicrohttpd reads and writes its sockets through us.
 *
 * By itself, libmicrohttpd 0.9.75 reads requests leniently (a bare LF ends a line, a NUL ends a
 * target), spins on a chunk-size line that does not fit its memory, loses exchanges and answers
 * when a header nearly fills it, and refuses in HTML. It has no option against any of this. But it
 * reads sockets with recv(), a call from one shared library to another, and the dynamic linker
 * prefers the executable's function of that name. So this is recv() for the whole process: for a
 * connection of ours it is http_receive(), which reads and checks requests itself and shows
 * libmicrohttpd a short, harmless one for each; for any other socket it does what recv() does.
 *
 * It writes with send() and sendmsg(). Ours leave out the bytes of an answer that the client
 * already has (see http_connection.c), and put TLS around the rest where there is TLS. */
#undef _FORTIFY_SOURCE /* which would make recv() an inline function */
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/http/http_internal.h"
#include "server/http/http_io.h"
#include "server/http/http_tls.h"

/* Thread-local, because recv() and send() have no parameter for it. */
static _Thread_local struct http *running;

void http_hooks_set(struct http *http)
{
    running = http;
}

static struct connection *connection_of(int fd)
{
    return running && (size_t)fd < running->by_fd_count ? running->by_fd[fd] : NULL;
}

__attribute__((visibility("default"))) ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
    struct connection *connection = connection_of(fd);
    return connection ? http_receive(connection, bytes, size)
                      : recvfrom(fd, bytes, size, flags, NULL, NULL);
}

__attribute__((visibility("default"))) ssize_t send(int fd, const void *bytes, size_t size,
                                                    int flags)
{
    struct connection *connection = connection_of(fd);
    size_t ahead = connection && connection->sent_ahead < size ? connection->sent_ahead : 0;
    ssize_t sent =
        connection ? connection_send(connection, (const char *)bytes + ahead, size - ahead, flags)
                   : sendto(fd, bytes, size, flags, NULL, 0);
    if (ahead == 0 || sent < 0)
        return sent;
    connection->sent_ahead = 0;
    return sent + (ssize_t)ahead;
}

/* A header and the body behind it. */
__attribute__((visibility("default"))) ssize_t sendmsg(int fd, const struct msghdr *message,
                                                       int flags)
{
    struct connection *connection = connection_of(fd);
    ssize_t total = 0;
    if (!connection || (connection->sent_ahead == 0 && !connection->tls))
        return syscall(SYS_sendmsg, fd, message, flags);
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        const struct iovec *piece = &message->msg_iov[i];
        ssize_t sent = send(fd, piece->iov_base, piece->iov_len, flags);
        if (sent < 0 && total == 0)
            return -1;
        total += sent > 0 ? sent : 0;
        if (sent < (ssize_t)piece->iov_len)
            break;
    }
    return total;
}

/* How libmicrohttpd ends a connection, before it closes it. */
__attribute__((visibility("default"))) int shutdown(int fd, int how)
{
    struct connection *connection = connection_of(fd);
    if (connection && connection->tls && how != SHUT_RD)
        http_tls_end(connection->tls);
    return (int)syscall(SYS_shutdown, fd, how);
}

int http_hooks_check(struct error *err)
{
#ifdef MOED_STATIC
    return 0; /* the linker has bound libmicrohttpd to these */
#endif
    if (dlsym(RTLD_DEFAULT, "recv") == (void *)recv &&
        dlsym(RTLD_DEFAULT, "send") == (void *)send &&
        dlsym(RTLD_DEFAULT, "sendmsg") == (void *)sendmsg &&
        dlsym(RTLD_DEFAULT, "shutdown") == (void *)shutdown)
        return 0;
    return error_set(
        err, ERROR_INTERNAL,
        "the executable does not export recv(), send(), sendmsg() and shutdown(), through which "
        "libmicrohttpd must read and write: it was linked with options that hide them");
}
