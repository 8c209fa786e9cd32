/* When libmicrohttpd runs.
 *
 * libmicrohttpd keeps its sockets in an epoll set of its own, and libuv polls that set's
 * descriptor. Readiness only sets a flag; libmicrohttpd runs once per turn of the loop, after
 * polling (uv_check), so that a hundred answers given in one turn cost one run. While it has work
 * left that no descriptor announces (its epoll set is edge-triggered), an idle handle keeps the
 * loop from sleeping. */
#include "server/http/http_internal.h"
#include "server/http/http_mhd.h"

/* Runs per turn of the loop, so that one busy socket does not starve the rest of the loop. */
enum { MAX_RUNS_PER_TURN = 4 };

static void on_again(uv_idle_t *again)
{
    (void)again; /* while the handle is active the loop does not sleep */
}

void http_want_run(struct http *http)
{
    http->run_wanted = true;
    uv_idle_start(&http->again, on_again);
}

/* Runs once more if a connection was closed for whose slot others wait, or resumed (libmicrohttpd
 * looks for those only at the beginning of a run). libmicrohttpd counts connections that are handed
 * over as work, but only another turn of the loop can help them. */
static void run(struct http *http)
{
    bool more = true;
    http->turn++;
    for (int runs = 0; runs < MAX_RUNS_PER_TURN && more; runs++) {
        http->run_again = false;
        http_accept(http);
        http_mhd_run(http);
        http_accepted(http);
        more = http->run_again || (http_mhd_has_work(http) && http->handed_over == 0);
    }
    http->run_wanted = more || http_mhd_has_work(http);
    if (http->run_wanted)
        uv_idle_start(&http->again, on_again);
    else
        uv_idle_stop(&http->again);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    struct http *http = poll->data;
    http->run_wanted = true;
}

/* Runs before looking at deadlines: what has arrived counts, even if the loop was too busy to read
 * it.
 */
static void on_after_poll(uv_check_t *check)
{
    struct http *http = check->data;
    if (!http->run_wanted)
        return;
    run(http);
    if (http->tick_passed) {
        http->tick_passed = false;
        connections_expire(http);
    }
    http_promote(http);
    http_drain_step(http);
}

static void on_hangups(uv_poll_t *poll, int status, int events)
{
    (void)status, (void)events;
    connections_note_hangups(poll->data);
}

static void on_tick(uv_timer_t *tick)
{
    struct http *http = tick->data;
    http->tick_passed = true;
    http_want_run(http);
}

void http_start_ticking(struct http *http)
{
    uv_timer_start(&http->tick, on_tick, HTTP_TICK_MS, HTTP_TICK_MS);
}

static int poll_start(struct http *http, uv_poll_t *poll, int epoll_fd, uv_poll_cb on_event)
{
    int status = uv_poll_init(http->loop, poll, epoll_fd);
    poll->data = http;
    return status == 0 ? uv_poll_start(poll, UV_READABLE, on_event) : status;
}

int http_start_turning(struct http *http)
{
    uv_check_init(http->loop, &http->after_poll);
    uv_idle_init(http->loop, &http->again);
    uv_timer_init(http->loop, &http->tick);
    http->after_poll.data = http->again.data = http->tick.data = http;
    uv_check_start(&http->after_poll, on_after_poll);
    int status = poll_start(http, &http->readable, http_mhd_descriptor(http), on_readable);
    return status == 0 ? poll_start(http, &http->hangups, http->hangup_fd, on_hangups) : status;
}
