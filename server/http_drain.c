/* Draining: the way from serving to the last connection gone, without losing an accepted request.
 */
#include <poll.h>

#include "http_internal.h"

static bool backlog_waits(int fd)
{
    struct pollfd listening = {.fd = fd, .events = POLLIN};
    return poll(&listening, 1, 0) > 0;
}

/* Clients whose connection the kernel has accepted count as accepted by us: closing the listening
 * socket would reset them. At the connection limit they wait for a slot, within the grace. */
static void empty_backlog(struct http *http)
{
    bool grace_over = uv_now(http->loop) >= http->drain_since_ms + http->drain_grace_ms;
    if (backlog_waits(http->listen_fd) && !grace_over) {
        if (http->connections < http->options.max_connections)
            http_want_run(http);
        return;
    }
    http_stop_listening(http);
}

void http_drain_step(struct http *http)
{
    if (!http->draining)
        return;
    if (http->listen_fd >= 0)
        empty_backlog(http);
    if (http->listen_fd >= 0 || http->connections > 0 || http->unanswered > 0 || !http->on_drained)
        return;
    void (*on_drained)(void *context) = http->on_drained;
    http->on_drained = NULL;
    on_drained(http->drained_context);
}

void http_drain(struct http *http, unsigned grace_ms, void (*on_drained)(void *context),
                void *context)
{
    http->draining = true;
    http->drain_since_ms = uv_now(http->loop);
    http->drain_grace_ms = grace_ms;
    http->on_drained = on_drained;
    http->drained_context = context;
    http_start_ticking(http);
    http_want_run(http);
}
