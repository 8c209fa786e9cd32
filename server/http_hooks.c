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
 * already has (see http_connection.c). */
#undef _FORTIFY_SOURCE /* which would make recv() an inline function */
#include <dlfcn.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/http_internal.h"

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
    ssize_t sent = sendto(fd, (const char *)bytes + ahead, size - ahead, flags, NULL, 0);
    if (ahead == 0 || sent < 0)
        return sent;
    connection->sent_ahead = 0;
    return sent + (ssize_t)ahead;
}

/* The bytes that were sent ahead are all in the first piece. Sending only that piece is allowed. */
__attribute__((visibility("default"))) ssize_t sendmsg(int fd, const struct msghdr *message,
                                                       int flags)
{
    struct connection *connection = connection_of(fd);
    if (connection && connection->sent_ahead > 0)
        return send(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len, flags);
    return syscall(SYS_sendmsg, fd, message, flags);
}

int http_hooks_check(struct error *err)
{
    if (dlsym(RTLD_DEFAULT, "recv") == (void *)recv &&
        dlsym(RTLD_DEFAULT, "send") == (void *)send &&
        dlsym(RTLD_DEFAULT, "sendmsg") == (void *)sendmsg)
        return 0;
    return error_set(
        err, ERROR_INTERNAL,
        "the executable does not export recv(), send() and sendmsg(), through which "
        "libmicrohttpd must read and write: it was linked with options that hide them");
}
