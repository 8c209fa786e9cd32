/* For `moed probe` and for the collector of traces. */
#include "server/dial.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

/* The rest of the time, for poll(2). */
static int left_ms(uint64_t until_ns)
{
    uint64_t now = uv_hrtime();
    return now < until_ns ? (int)((until_ns - now) / 1000000) + 1 : 0;
}

int dial_await(int fd, short events, uint64_t until_ns)
{
    struct pollfd wanted = {.fd = fd, .events = events};
    int ready;
    do
        ready = poll(&wanted, 1, left_ms(until_ns));
    while (ready < 0 && errno == EINTR);
    errno = ready == 0 ? ETIMEDOUT : errno;
    return ready > 0 ? 0 : -1;
}

static int connect_in_time(int fd, const struct addrinfo *address, uint64_t until_ns)
{
    int reason = 0;
    socklen_t size = sizeof reason;
    if (connect(fd, address->ai_addr, address->ai_addrlen) == 0)
        return 0;
    if (errno != EINPROGRESS || dial_await(fd, POLLOUT, until_ns) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_ERROR, &reason, &size) != 0)
        return -1;
    errno = reason;
    return reason == 0 ? 0 : -1;
}

int dial(const struct addrinfo *address, uint64_t until_ns)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect_in_time(fd, address, until_ns) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

const char *dial_host(char text[DIAL_HOST_BYTES], const char *host, const char *port)
{
    snprintf(text, DIAL_HOST_BYTES, strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
    return text;
}
