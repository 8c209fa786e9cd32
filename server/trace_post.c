/* One connection for each export: there is at most one a second. Nothing here calls send(2), which
 * is libmicrohttpd's in this process (server/http/http_hooks.c). */
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/text.h"
#include "server/trace.h"

enum { PATIENCE_S = 5, MAX_READS = 64 };

/* ---- where ---- */

int trace_collector_read(struct trace_collector *collector, const char *url, struct error *err)
{
    static const char scheme[] = "http://";
    const char *at = url + strlen(scheme);
    if (strncmp(url, scheme, strlen(scheme)) != 0)
        return error_set(err, ERROR_INVALID,
                         "trace_endpoint is \"%.200s\", expected http://HOST[:PORT][/PATH]; a "
                         "collector beside the server may speak TLS to others",
                         url);
    bool bracketed = *at == '[';
    size_t host = bracketed ? strcspn(at, "]") + 1 : strcspn(at, ":/");
    const char *after = at + host;
    size_t port = *after == ':' ? strcspn(after + 1, "/") : 0;
    const char *path = *after == ':' ? after + 1 + port : after;
    uint64_t number = 4318;
    if (port > 0 &&
        (port >= sizeof collector->port || text_whole_number(after + 1, &number) != path))
        number = 0;
    host -= bracketed ? 2 : 0;
    if (number < 1 || number > 65535 || host == 0 || host >= sizeof collector->host ||
        strlen(path) >= sizeof collector->path || strpbrk(url, " \t\r\n") ||
        (*path && *path != '/'))
        return error_set(err, ERROR_INVALID,
                         "trace_endpoint is \"%.200s\", expected http://HOST[:PORT][/PATH]", url);
    snprintf(collector->port, sizeof collector->port, "%u", (unsigned)number);
    snprintf(collector->path, sizeof collector->path, "%s", *path && path[1] ? path : "/v1/traces");
    snprintf(collector->host, sizeof collector->host, "%.*s", (int)host, at + bracketed);
    return 0;
}

/* ---- one exchange ---- */

/* A connected socket whose calls wait for so long at most. */
static int open_connection(const struct addrinfo *address)
{
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
        connect(fd, address->ai_addr, address->ai_addrlen) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static int send_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t sent = write(fd, bytes, count); /* SIGPIPE is ignored */
        if (sent <= 0 && errno != EINTR)
            return -1;
        bytes += sent > 0 ? sent : 0;
        count -= sent > 0 ? (size_t)sent : 0;
    }
    return 0;
}

/* A collector that is cut off in the middle of its answer might not keep what it got. */
static void read_rest(int fd)
{
    char rest[4096];
    ssize_t got = 1;
    for (size_t i = 0; i < MAX_READS && got > 0; i++)
        got = read(fd, rest, sizeof rest);
}

static int read_answer(int fd, struct error *err)
{
    char line[sizeof "HTTP/1.1 200"] = "";
    size_t length = 0;
    while (length < sizeof line - 1) {
        ssize_t got = read(fd, line + length, sizeof line - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return error_set(err, ERROR_UNAVAILABLE, "it did not answer in time");
        length += (size_t)got;
    }
    read_rest(fd);
    text_make_printable(line);
    if (strncmp(line, "HTTP/1.", strlen("HTTP/1.")) == 0 && line[strlen("HTTP/1.1 ")] == '2')
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "it answered '%s', expected status 200", line);
}

static int deliver(const struct trace_collector *collector, const struct buffer *body,
                   const struct addrinfo *addresses, struct error *err)
{
    char head[TRACE_HOST_BYTES + TRACE_PATH_BYTES + 128];
    int length = snprintf(head, sizeof head,
                          "POST %s HTTP/1.1\r\nHost: %s:%s\r\nContent-Type: application/json\r\n"
                          "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                          collector->path, collector->host, collector->port, body->length);
    int fd = -1;
    for (const struct addrinfo *each = addresses; each && fd < 0; each = each->ai_next)
        fd = open_connection(each);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
    int result =
        send_all(fd, head, (size_t)length) == 0 && send_all(fd, body->data, body->length) == 0
            ? read_answer(fd, err)
            : error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
    close(fd);
    return result;
}

int trace_post(const struct trace_collector *collector, const struct buffer *body,
               struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses;
    struct error own = ERROR_INIT;
    int failure = getaddrinfo(collector->host, collector->port, &hints, &addresses);
    if (failure != 0)
        error_set(&own, ERROR_UNAVAILABLE, "%s", gai_strerror(failure));
    else {
        (void)deliver(collector, body, addresses, &own);
        freeaddrinfo(addresses);
    }
    return own.code == ERROR_NONE
               ? 0
               : error_set(err, own.code, "the collector of traces at %.100s:%s: %s",
                           collector->host, collector->port, own.text);
}
