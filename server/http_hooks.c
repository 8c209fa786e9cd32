/* libmicrohttpd reads its sockets through us.
 *
 * Left to itself, libmicrohttpd 0.9.75 reads requests leniently (a bare LF ends a line, a NUL ends
 * a target), spins on a chunk-size line that does not fit its memory, loses exchanges and answers
 * when a header nearly fills it, and refuses in HTML. It has no option against any of this. But it
 * reads sockets by recv(), a call from one shared library to another, and the dynamic linker takes
 * such a function from the executable where that has one. So this is recv() for the whole process:
 * on a connection of ours it is http_receive(), which reads and checks requests itself and shows
 * libmicrohttpd a short, harmless one for each; on any other socket it does what it always did. */
#undef _FORTIFY_SOURCE /* which would make recv() an inline function */
#include <dlfcn.h>
#include <sys/socket.h>

#include "server/http_internal.h"

/* recv() has no parameter for it. */
static _Thread_local struct http *receiving;

void http_hooks_set(struct http *http)
{
    receiving = http;
}

__attribute__((visibility("default"))) ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
    struct connection *connection = NULL;
    if (receiving && (size_t)fd < receiving->by_fd_count)
        connection = receiving->by_fd[fd];
    return connection ? http_receive(connection, bytes, size)
                      : recvfrom(fd, bytes, size, flags, NULL, NULL);
}

int http_hooks_check(struct error *err)
{
    if (dlsym(RTLD_DEFAULT, "recv") == (void *)recv)
        return 0;
    return error_set(err, ERROR_INTERNAL,
                     "the executable does not export recv(), by which libmicrohttpd must read: it "
                     "was linked with options that hide it");
}
