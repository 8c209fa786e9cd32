/* Draining: the way from serving to the last connection gone, without losing an accepted request.
 */
#include <linux/filter.h>
#include <poll.h>
#include <sys/socket.h>

#include "server/http_internal.h"

static bool backlog_waits(int fd)
{
    struct pollfd listening = {.fd = fd, .events = POLLIN};
    return poll(&listening, 1, 0) > 0;
}

/* Drops the packets that would open a connection, SYN without ACK, and lets those pass that
 * complete an opening under way: closing the listening socket at once would reset clients who have
 * our greeting and believe to be connected. Whoever is dropped asks again a second later and is
 * refused. False where the system does not let us. */
static bool stop_greeting(int fd)
{
    enum { FLAGS_AT = 13, SYN = 0x02, ACK = 0x10 };
    struct sock_filter drop_greetings[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, FLAGS_AT),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, SYN | ACK),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYN, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffff),
    };
    const struct sock_fprog program = {sizeof drop_greetings / sizeof *drop_greetings,
                                       drop_greetings};
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

/* An opening under way is complete after one round trip; clients whose round trip is longer than
 * this may still be reset. */
enum { OPENING_MS = 200 };

/* Clients whose connection the kernel has accepted, or is about to, count as accepted by us. At the
 * connection limit they wait for a slot, within the grace. */
static void empty_backlog(struct http *http)
{
    const uint64_t since_ms = uv_now(http->loop) - http->drain_since_ms;
    bool opening = http->greeting_stopped && since_ms < OPENING_MS;
    bool waits = backlog_waits(http->listen_fd);
    if (since_ms >= http->drain_grace_ms || (!waits && !opening))
        http_stop_listening(http);
    else if (waits && http->connections < http->options.max_connections)
        http_want_run(http);
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
    http->greeting_stopped = stop_greeting(http->listen_fd);
    http->drain_since_ms = uv_now(http->loop);
    http->drain_grace_ms = grace_ms;
    http->on_drained = on_drained;
    http->drained_context = context;
    http_start_ticking(http);
    http_want_run(http);
}
