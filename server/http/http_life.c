/* The life of HTTP on one loop: start, end, and what outsiders ask of it in between. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/http/http_internal.h"
#include "server/http/http_mhd.h"

enum {
    /* A refused client may go on sending for this long, and only we read it. Closing at once would
     * make its kernel discard our answer (connection reset) before it is read. */
    LINGER_MS = 2000,

    /* Beyond the connection limit a request waits at most this long for a slot. */
    QUEUED_MS = 1000,
};

static struct http *http_allocate(uv_loop_t *loop, const struct http_options *options,
                                  const struct http_callbacks *callbacks)
{
    struct http *http = xcalloc(1, sizeof *http);
    http->options = *options;
    http->options.host = NULL;
    http->callbacks = *callbacks;
    http->loop = loop;
    http->open_handles = 1; /* end() lets go of this one */
    http->scratch = xmalloc(HTTP_SCRATCH_BYTES);
    for (int phase = 0; phase < PHASE_COUNT; phase++)
        TAILQ_INIT(&http->lists[phase]);
    TAILQ_INIT(&http->hung_up);
    TAILQ_INIT(&http->reserve);
    TAILQ_INIT(&http->lingering);
    http->timeouts_ms[PHASE_IDLE] = options->idle_timeout_ms;
    http->timeouts_ms[PHASE_RECEIVING] = options->request_timeout_ms;
    http->timeouts_ms[PHASE_QUEUED] = QUEUED_MS;
    http->timeouts_ms[PHASE_STREAMING] = options->idle_timeout_ms;
    http->timeouts_ms[PHASE_SENDING] = options->idle_timeout_ms;
    http->timeouts_ms[PHASE_LINGERING] = LINGER_MS;
    return http;
}

static void http_free(struct http *http)
{
    uv_mutex_destroy(&http->idle_mutex);
    free(http->scratch);
    free(http->by_fd);
    free(http);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct http *http = handle->data;
    if (--http->open_handles == 0)
        http_free(http);
}

void http_close_handle(struct http *http, uv_handle_t *handle)
{
    if (handle->type == UV_UNKNOWN_HANDLE || uv_is_closing(handle))
        return;
    http->open_handles++;
    uv_close(handle, on_handle_closed);
}

/* Closes whatever has been started. Frees `http` when the loop has run the closed handles out. */
static void end(struct http *http)
{
    uv_handle_t *handles[] = {(uv_handle_t *)&http->readable,    (uv_handle_t *)&http->hangups,
                              (uv_handle_t *)&http->after_poll,  (uv_handle_t *)&http->again,
                              (uv_handle_t *)&http->tick,        (uv_handle_t *)&http->listening,
                              (uv_handle_t *)&http->listen_pause};
    for (size_t i = 0; i < sizeof handles / sizeof *handles; i++)
        http_close_handle(http, handles[i]);
    if (http->daemon)
        http_mhd_stop(http); /* after libuv has let go of its epoll descriptor */
    http_linger_end(http);
    if (http->hangup_fd >= 0)
        close(http->hangup_fd);
    if (--http->open_handles == 0)
        http_free(http);
}

static int start(struct http *http, struct error *err)
{
    if (uv_mutex_init(&http->idle_mutex) != 0)
        out_of_memory();
    http->hangup_fd = epoll_create1(EPOLL_CLOEXEC);
    if (http->hangup_fd < 0)
        return error_set(err, ERROR_INTERNAL, "cannot make an epoll set: %s", strerror(errno));
    if (!http_start_daemon(http))
        return error_set(err, ERROR_INTERNAL, "cannot start libmicrohttpd: %s", strerror(errno));
    int status = http_start_turning(http);
    if (status == 0)
        status = http_start_listening(http);
    if (status != 0)
        return error_set(err, ERROR_INTERNAL, "cannot watch sockets: %s", uv_strerror(status));
    return 0;
}

static int open_socket(uv_loop_t *loop, const struct http_options *options, uint16_t *port,
                       struct error *err)
{
    if (options->path)
        return http_listen_unix(options->path, err);
    if (options->given_fd)
        return http_listen_given(options->given_fd, port, err);
    return http_listen(loop, options->host, options->port, options->listening, port, err);
}

struct http *http_new(uv_loop_t *loop, const struct http_options *options,
                      const struct http_callbacks *callbacks, struct error *err)
{
    uint16_t port = 0;
    if (http_hooks_check(err) != 0)
        return NULL;
    int fd = open_socket(loop, options, &port, err);
    if (fd < 0)
        return NULL;
    struct http *http = http_allocate(loop, options, callbacks);
    http->listen_fd = fd;
    http->port = port;
    if (start(http, err) == 0) {
        connections_join_limits(http);
        http_want_run(http);
        return http;
    }
    end(http);
    close(fd);
    if (options->path)
        unlink(options->path);
    return NULL;
}

void http_close(struct http *http)
{
    assert(http->unanswered == 0);
    if (http->listen_fd >= 0)
        http_stop_listening(http);
    http_limits_leave(http->options.limits, &http->idle);
    end(http);
}

uint16_t http_port(const struct http *http)
{
    return http->port;
}

unsigned http_connections(const struct http *http)
{
    return http->connections;
}
