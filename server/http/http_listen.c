/* Sockets share a port by SO_REUSEPORT only among the loops of one process. */
#include "server/http/http_listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* Descriptors needed beside those of connections: for standard streams, a model being read and
 * signals; and for each loop's socket, epoll sets, wake-ups and connections beyond the limit. */
enum { FILES_BESIDE_CONNECTIONS = 48, FILES_PER_LOOP = 56 };

/* A socket bound to `address`, or -1 with errno set. SO_REUSEADDR lets a restarted server bind
 * while its predecessor's connections are in TIME_WAIT. */
static int bind_to(const struct addrinfo *address, bool share_port)
{
    int on = 1;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 &&
        (!share_port || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0) &&
        bind(fd, address->ai_addr, address->ai_addrlen) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static int listen_or_close(int fd)
{
    if (fd < 0 || listen(fd, SOMAXCONN) == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

/* SO_REUSEPORT would let two processes of one user share a port by mistake, each answering half of
 * the requests. So the first loop checks that the port is free without it. */
static bool port_is_free(const struct addrinfo *address)
{
    int fd = listen_or_close(bind_to(address, false));
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static int listen_on(const struct addrinfo *address, enum http_listening listening)
{
    if (listening == HTTP_LISTEN_FIRST && !port_is_free(address))
        return -1;
    return listen_or_close(bind_to(address, listening != HTTP_LISTEN_ALONE));
}

static int bound_port(int fd, uint16_t *port)
{
    struct sockaddr_storage address = {0};
    socklen_t length = sizeof address;
    if (getsockname(fd, (struct sockaddr *)&address, &length) != 0)
        return -1;
    *port = ntohs(address.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&address)->sin6_port
                                                : ((struct sockaddr_in *)&address)->sin_port);
    return 0;
}

int http_listen(uv_loop_t *loop, const char *host, uint16_t port, enum http_listening listening,
                uint16_t *bound, struct error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    uv_getaddrinfo_t request;
    int failed = uv_getaddrinfo(loop, &request, NULL, host, service, &hints);
    if (failed)
        return error_set(err, ERROR_INVALID, "cannot resolve host \"%.100s\": %s", host,
                         uv_strerror(failed));
    int fd = -1;
    for (struct addrinfo *at = request.addrinfo; at && fd < 0; at = at->ai_next)
        fd = listen_on(at, listening);
    int reason = errno;
    uv_freeaddrinfo(request.addrinfo);
    if (fd >= 0 && bound_port(fd, bound) == 0)
        return fd;
    reason = fd < 0 ? reason : errno;
    if (fd >= 0)
        close(fd);
    return error_set(err, ERROR_INVALID, "cannot listen on %.100s port %u: %s", host, port,
                     strerror(reason));
}

int http_listen_given(int given, uint16_t *bound, struct error *err)
{
    int fd = fcntl(given, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0 && bound_port(fd, bound) == 0)
        return fd;
    int reason = errno;
    if (fd >= 0)
        close(fd);
    return error_set(err, ERROR_INTERNAL, "cannot use the listening socket that was given: %s",
                     strerror(reason));
}

bool http_listen_waits(int fd)
{
    struct pollfd listening = {.fd = fd, .events = POLLIN};
    return poll(&listening, 1, 0) > 0;
}

static int too_few_files(uint64_t connections, rlim_t beside, rlim_t allowed, struct error *err)
{
    return error_set(err, ERROR_INVALID,
                     "%llu connections need %llu open files, but at most %llu are allowed "
                     "(ulimit -Hn): raise that limit or lower max_connections",
                     (unsigned long long)connections, (unsigned long long)(connections + beside),
                     (unsigned long long)allowed);
}

int http_limit_connections(uint64_t wanted, uint64_t loops, unsigned *connections,
                           struct error *err)
{
    rlim_t beside = FILES_BESIDE_CONNECTIONS + loops * FILES_PER_LOOP;
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return error_set(err, ERROR_INTERNAL, "cannot read the limit of open files: %s",
                         strerror(errno));
    rlim_t allowed = limit.rlim_max;
    uint64_t count = wanted ? wanted : HTTP_DEFAULT_CONNECTIONS;
    if (!wanted && count + beside > allowed && allowed > beside)
        count = allowed - beside;
    if (count + beside > allowed)
        return too_few_files(count, beside, allowed, err);
    *connections = (unsigned)count;
    if (limit.rlim_cur >= count + beside)
        return 0;
    limit.rlim_cur = count + beside;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return error_set(err, ERROR_INTERNAL, "cannot raise the limit of open files to %llu: %s",
                         (unsigned long long)limit.rlim_cur, strerror(errno));
    return 0;
}
