/* Connections that we close while draining, until their clients have, too.
 *
 * A client may be about to send its next request when its last answer goes out. If the socket is
 * closed then, the kernel answers those bytes with a reset, and the client's kernel throws away the
 * answers that were not read yet. So our side is shut first, and what still comes is dropped for a
 * moment, or until the client's kernel has all answers, whatever comes last; the drain ends it.
 * libmicrohttpd closes its descriptor at once; ours is a duplicate. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/http/http_internal.h"
#include "server/http/http_io.h"

enum { LINGER_MS = 1000 };

struct lingering {
    int fd;
    uint64_t until_ms;
    TAILQ_ENTRY(lingering) link;
};

/* Reads and drops what has come. False when the client has closed its side, or is gone. */
static bool drop_unread(const struct http *http, int fd)
{
    ssize_t count;
    do
        count = recvfrom(fd, http->scratch, HTTP_SCRATCH_BYTES, MSG_DONTWAIT, NULL, NULL);
    while (count > 0);
    return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

void http_linger(struct connection *connection)
{
    struct http *http = connection->http;
    if (!http->draining || connection->phase == PHASE_CLOSING || connection->gone)
        return;
    int fd = fcntl(connection->fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return;
    /* A duplicate would keep it in the set; libmicrohttpd removes it from its own. */
    (void)epoll_ctl(http->hangup_fd, EPOLL_CTL_DEL, connection->fd, NULL);
    shutdown(fd, SHUT_WR);
    if (!drop_unread(http, fd)) {
        close(fd);
        return;
    }
    struct lingering *lingering = xcalloc(1, sizeof *lingering);
    lingering->fd = fd;
    lingering->until_ms = uv_now(http->loop) + LINGER_MS;
    TAILQ_INSERT_TAIL(&http->lingering, lingering, link);
}

static void end(struct http *http, struct lingering *lingering)
{
    TAILQ_REMOVE(&http->lingering, lingering, link);
    close(lingering->fd);
    free(lingering);
}

void http_linger_step(struct http *http)
{
    struct lingering *lingering = TAILQ_FIRST(&http->lingering), *next;
    for (; lingering; lingering = next) {
        next = TAILQ_NEXT(lingering, link);
        if (!drop_unread(http, lingering->fd) ||
            (uv_now(http->loop) >= lingering->until_ms && http_io_untaken(lingering->fd) <= 0))
            end(http, lingering);
    }
}

void http_linger_end(struct http *http)
{
    while (!TAILQ_EMPTY(&http->lingering))
        end(http, TAILQ_FIRST(&http->lingering));
}
