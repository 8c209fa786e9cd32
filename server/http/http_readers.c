/* Clients that do not take their answers.
 *
 * The phase's own timeout is the time that the slowest reader may need, which for a large answer is
 * long. A client that takes nothing at all is cut sooner: after the idle timeout, or after some
 * seconds once the answers that wait take much of the memory that they may. What a client takes is
 * seen from what its socket still holds: the system takes more from us only now and then. */
#include "server/http/http_internal.h"
#include "server/http/http_io.h"

/* How often sockets are asked; answers that are taken sooner never are. */
enum { LOOK_MS = 1000 };

static void note_progress(struct connection *connection, uint64_t now_ms)
{
    int untaken = http_io_untaken(connection->fd);
    bool looked = connection->moved_ms >= connection->entered_ms;
    if (untaken >= 0 && looked && untaken == connection->untaken)
        return;
    connection->moved_ms = now_ms;
    connection->untaken = untaken;
}

static uint64_t patience_with(const struct connection *connection)
{
    const struct http *http = connection->http;
    size_t taken = connection->exchange ? connection->exchange->answer_counted : 0;
    return http_limits_patience_ms(http->options.limits, taken, http->timeouts_ms[PHASE_SENDING]);
}

void http_readers_expire(struct http *http)
{
    uint64_t now_ms = uv_now(http->loop);
    struct connection *connection = TAILQ_FIRST(&http->lists[PHASE_SENDING]), *next;
    if (now_ms < http->readers_ms + LOOK_MS)
        return;
    http->readers_ms = now_ms;
    for (; connection; connection = next) {
        next = TAILQ_NEXT(connection, link);
        if (now_ms < connection->entered_ms + LOOK_MS)
            continue;
        note_progress(connection, now_ms);
        if (now_ms >= connection->moved_ms + patience_with(connection))
            connection_shut(connection);
    }
}
