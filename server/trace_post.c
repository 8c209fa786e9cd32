/* One connection for each export: there is at most one a second. Nothing here calls send(2), which
 * is libmicrohttpd's in this process (server/http/http_hooks.c). */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/text.h"
#include "server/dial.h"
#include "server/trace.h"

/* ---- where ---- */

int trace_collector_read(struct trace_collector *collector, const char *url, struct error *err)
{
    static const char scheme[] = "http://";
    char shown[256];
    const char *at = url + strlen(scheme);
    text_hide_user(url, shown, sizeof shown);
    if (strncmp(url, scheme, strlen(scheme)) != 0)
        return error_set(err, ERROR_INVALID,
                         "trace_endpoint is \"%.200s\", expected http://HOST[:PORT][/PATH]; a "
                         "collector beside the server may speak TLS to others",
                         shown);
    bool bracketed = *at == '[';
    size_t host = strcspn(at, bracketed ? "]" : ":/");
    bool closed = !bracketed || at[host] == ']';
    host += bracketed && closed;
    const char *after = at + host;
    size_t port = *after == ':' ? strcspn(after + 1, "/") : 0;
    const char *path = *after == ':' ? after + 1 + port : after;
    uint64_t number = 4318;
    if (port > 0 &&
        (port >= sizeof collector->port || text_whole_number(after + 1, &number) != path))
        number = 0;
    host -= bracketed && closed ? 2 : 0;
    if (number < 1 || !closed || number > 65535 || host == 0 || host >= sizeof collector->host ||
        memchr(at, '@', host) || strlen(path) >= sizeof collector->path ||
        strpbrk(url, " \t\r\n") || (*path && *path != '/'))
        return error_set(err, ERROR_INVALID,
                         "trace_endpoint is \"%.200s\", expected http://HOST[:PORT][/PATH]", shown);
    snprintf(collector->port, sizeof collector->port, "%u", (unsigned)number);
    snprintf(collector->path, sizeof collector->path, "%s", *path && path[1] ? path : "/v1/traces");
    snprintf(collector->host, sizeof collector->host, "%.*s", (int)host, at + bracketed);
    return 0;
}

/* ---- one exchange ---- */

static int send_all(int fd, const char *bytes, size_t count, uint64_t until_ns)
{
    while (count > 0) {
        ssize_t sent = write(fd, bytes, count); /* SIGPIPE is ignored */
        if (sent < 0 && errno == EAGAIN ? dial_await(fd, POLLOUT, until_ns) != 0
                                        : sent <= 0 && errno != EINTR)
            return -1;
        bytes += sent > 0 ? sent : 0;
        count -= sent > 0 ? (size_t)sent : 0;
    }
    return 0;
}

/* Whether nothing of the answer is to come. Without a Content-Length it ends with the connection.
 */
static bool is_whole(const char *answer, size_t length)
{
    static const char name[] = "\r\nContent-Length:";
    uint64_t body;
    const char *end = strstr(answer, "\r\n\r\n"), *field = strcasestr(answer, name);
    if (!end || !field || field > end)
        return false;
    field += strlen(name);
    field += strspn(field, " \t");
    return text_whole_number(field, &body) && body <= length - (size_t)(end + 4 - answer);
}

/* Reads to the end, for a collector that is cut off in the middle of its answer might not keep what
 * it got; but no more than fits, and only as long as there is time. */
static int read_answer(int fd, uint64_t until_ns, struct error *err)
{
    char answer[4096] = "";
    size_t length = 0;
    while (length < sizeof answer - 1 && !is_whole(answer, length)) {
        ssize_t got = read(fd, answer + length, sizeof answer - 1 - length);
        if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN) ||
            (got < 0 && errno == EAGAIN && dial_await(fd, POLLIN, until_ns) != 0))
            break;
        length += got > 0 ? (size_t)got : 0;
    }
    answer[strcspn(answer, "\r\n")] = '\0';
    text_make_printable(answer);
    if (length < strlen("HTTP/1.1 200"))
        return error_set(err, ERROR_UNAVAILABLE, "it did not answer in time");
    if (strncmp(answer, "HTTP/1.", strlen("HTTP/1.")) == 0 && answer[strlen("HTTP/1.1 ")] == '2')
        return 0;
    return error_set(err, ERROR_UNAVAILABLE, "it answered '%.64s', expected status 200", answer);
}

static int deliver(const struct trace_collector *collector, const struct buffer *body,
                   const struct addrinfo *addresses, uint64_t until_ns, struct error *err)
{
    char head[DIAL_HOST_BYTES + TRACE_PATH_BYTES + 128], host[DIAL_HOST_BYTES];
    int length =
        snprintf(head, sizeof head,
                 "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                 "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                 collector->path, dial_host(host, collector->host, collector->port), body->length);
    int fd = -1;
    for (const struct addrinfo *each = addresses; each && fd < 0; each = each->ai_next)
        fd = dial(each, until_ns);
    if (fd < 0)
        return error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
    int result = send_all(fd, head, (size_t)length, until_ns) == 0 &&
                         send_all(fd, body->data, body->length, until_ns) == 0
                     ? read_answer(fd, until_ns, err)
                     : error_set(err, ERROR_UNAVAILABLE, "%s", strerror(errno));
    close(fd);
    return result;
}

int trace_post(const struct trace_collector *collector, const struct buffer *body,
               uint64_t until_ns, struct error *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses;
    struct error own = ERROR_INIT;
    int failure = getaddrinfo(collector->host, collector->port, &hints, &addresses);
    if (failure != 0)
        error_set(&own, ERROR_UNAVAILABLE, "%s", gai_strerror(failure));
    else {
        (void)deliver(collector, body, addresses, until_ns, &own);
        freeaddrinfo(addresses);
    }
    return own.code == ERROR_NONE
               ? 0
               : error_set(err, own.code, "the collector of traces at %.100s:%s: %s",
                           collector->host, collector->port, own.text);
}
