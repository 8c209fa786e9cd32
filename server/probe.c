/* A health check in one process: one connection, one request, one status line. */
#include "server/probe.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "core/text.h"
#include "server/dial.h"
#include "server/probe_tls.h"

enum { DEFAULT_TIMEOUT_MS = 2000, MAX_TIMEOUT_MS = 600000 };
enum { STATUS_LINE_BYTES = sizeof "HTTP/1.1 200" - 1 };

/* ---- one exchange ---- */

/* Why dial() or dial_await() failed. */
static int unanswered(struct error *err)
{
    return errno == ETIMEDOUT ? error_set(err, ERROR_TIMEOUT, "no answer in time")
                              : error_set(err, ERROR_INTERNAL, "%s", strerror(errno));
}

static int shake_hands(int fd, struct probe_tls *tls, uint64_t until_ns, struct error *err)
{
    while (probe_tls_connect(tls) != 0) {
        if (errno != EAGAIN)
            return error_set(err, ERROR_INTERNAL, "TLS: the handshake failed");
        if (dial_await(fd, POLLIN, until_ns) != 0)
            return unanswered(err);
    }
    return 0;
}

/* The request is a few dozen bytes: a new connection takes them at once. */
static int ask(int fd, struct probe_tls *tls, const struct probe *probe, struct error *err)
{
    char request[512], host[DIAL_HOST_BYTES];
    int length = snprintf(request, sizeof request,
                          "GET %s HTTP/1.1\r\nHost: %s\r\n"
                          "User-Agent: moed-probe\r\n"
                          "Connection: close\r\n\r\n",
                          probe->path, dial_host(host, probe->host, probe->port));
    ssize_t sent = tls ? probe_tls_send(tls, request, (size_t)length)
                       : send(fd, request, (size_t)length, MSG_NOSIGNAL);
    return sent == length ? 0 : error_set(err, ERROR_INTERNAL, "the request could not be sent");
}

static int read_status(int fd, struct probe_tls *tls, uint64_t until_ns, struct error *err)
{
    char line[STATUS_LINE_BYTES + 1] = "";
    size_t filled = 0;
    while (filled < STATUS_LINE_BYTES) {
        char *at = line + filled;
        size_t room = STATUS_LINE_BYTES - filled;
        ssize_t got = tls ? probe_tls_receive(tls, at, room) : recv(fd, at, room, 0);
        if (got < 0 && errno == EAGAIN) {
            if (dial_await(fd, POLLIN, until_ns) != 0)
                return unanswered(err);
            continue;
        }
        if (got <= 0)
            return error_set(err, ERROR_INTERNAL, "the connection was closed without an answer%s",
                             tls ? "" : "; a server with TLS is asked with --tls");
        filled += (size_t)got;
    }
    text_make_printable(line);
    if (strncmp(line, "HTTP/1.", strlen("HTTP/1.")) != 0)
        return error_set(err, ERROR_INTERNAL, "this is no HTTP server: it said '%s'", line);
    const char *status = line + strlen("HTTP/1.1 ");
    return strcmp(status, "200") == 0
               ? 0
               : error_set(err, ERROR_UNAVAILABLE, "status %s, expected 200", status);
}

static int try_address(const struct probe *probe, const struct addrinfo *address, uint64_t until_ns,
                       struct error *err)
{
    int fd = dial(address, until_ns);
    if (fd < 0)
        return unanswered(err);
    struct probe_tls *tls = probe->tls ? probe_tls_new(fd) : NULL;
    int result = tls ? shake_hands(fd, tls, until_ns, err) : 0;
    if (result == 0)
        result = ask(fd, tls, probe, err);
    if (result == 0)
        result = read_status(fd, tls, until_ns, err);
    probe_tls_free(tls);
    close(fd);
    return result;
}

int probe_ask(const struct probe *probe, struct error *err)
{
    uint64_t until_ns = uv_hrtime() + (uint64_t)probe->timeout_ms * 1000000;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *addresses;
    int failure = getaddrinfo(probe->host, probe->port, &hints, &addresses);
    if (failure != 0)
        return error_set(err, ERROR_INVALID, "%.100s: %s", probe->host, gai_strerror(failure));
    int result = -1;
    struct error last = ERROR_INIT;
    for (struct addrinfo *each = addresses; each && result != 0; each = each->ai_next) {
        last = (struct error)ERROR_INIT;
        result = try_address(probe, each, until_ns, &last);
    }
    freeaddrinfo(addresses);
    return result == 0
               ? 0
               : error_set(err, last.code, "http%s://%.100s:%s%s: %s", probe->tls ? "s" : "",
                           probe->host, probe->port, probe->path, last.text);
}

/* ---- arguments ---- */

/* Where the server of this environment can be reached: one that listens everywhere, here. */
static const char *reachable(const char *host)
{
    if (!host || strcmp(host, "0.0.0.0") == 0)
        return "127.0.0.1";
    return strcmp(host, "::") == 0 ? "::1" : host;
}

/* Kubernetes sets MOED_PORT=tcp://10.0.0.7:8080 where a service is called moed (options.c). */
static const char *environment_port(void)
{
    const char *port = getenv("MOED_PORT");
    return port && strncmp(port, "tcp://", strlen("tcp://")) != 0 ? port : "8080";
}

static int read_number(const char *name, const char *text, uint64_t most, uint64_t *value,
                       struct error *err)
{
    const char *end = text ? text_whole_number(text, value) : NULL;
    if (!end || *end != '\0' || *value < 1 || *value > most)
        return error_set(err, ERROR_INVALID, "probe: %s takes a whole number from 1 to %llu", name,
                         (unsigned long long)most);
    return 0;
}

/* Reads argument `i`; returns the index of the last that it took, or -1. */
static int read_argument(struct probe *probe, int i, int argc, char *const argv[],
                         struct error *err)
{
    const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
    uint64_t number;
    if (strcmp(name, "--live") == 0) {
        probe->path = "/v2/health/live";
        return i;
    }
    if (strcmp(name, "--tls") == 0) {
        probe->tls = true;
        return i;
    }
    if (strcmp(name, "--host") == 0 && value) {
        probe->host = reachable(value);
        return i + 1;
    }
    if (strcmp(name, "--port") == 0) {
        probe->port = value;
        return read_number(name, value, 65535, &number, err) == 0 ? i + 1 : -1;
    }
    if (strcmp(name, "--timeout-ms") == 0) {
        int bad = read_number(name, value, MAX_TIMEOUT_MS, &number, err);
        probe->timeout_ms = bad ? 0 : (int)number;
        return bad ? -1 : i + 1;
    }
    return error_set(err, ERROR_INVALID,
                     "probe: unexpected argument '%.100s'; expected --live, --tls, --host ADDRESS, "
                     "--port N or --timeout-ms N",
                     name);
}

int probe_arguments(struct probe *probe, int argc, char *const argv[], struct error *err)
{
    uint64_t number;
    *probe = (struct probe){.host = reachable(getenv("MOED_HOST")),
                            .port = environment_port(),
                            .path = "/v2/health/ready",
                            .tls = getenv("MOED_TLS_CERT") != NULL,
                            .timeout_ms = DEFAULT_TIMEOUT_MS};
    for (int i = 0; i < argc; i++)
        if ((i = read_argument(probe, i, argc, argv, err)) < 0)
            return -1;
    return read_number("the port", probe->port, 65535, &number, err);
}
