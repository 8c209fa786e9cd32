#include "server/service.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "core/text.h"
#include "server/log.h"

enum { FIRST_GIVEN_FD = 3 };

/* ---- what is told ---- */

/* Connected now, because the sandbox allows no connect(2) later. */
static int open_notify(struct service *service, const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || length >= sizeof address.sun_path)
        return error_set(err, ERROR_INVALID,
                         "NOTIFY_SOCKET is \"%.120s\", expected a path or @NAME of at most %zu "
                         "bytes",
                         path, sizeof address.sun_path - 1);
    memcpy(address.sun_path, path, length);
    if (path[0] == '@')
        address.sun_path[0] = '\0'; /* Linux's abstract sockets have no file */
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    service->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (service->notify_fd >= 0 &&
        connect(service->notify_fd, (struct sockaddr *)&address, size) == 0)
        return 0;
    return error_set(err, ERROR_INVALID, "cannot reach the service manager at %.120s: %s", path,
                     strerror(errno));
}

void service_notify(const struct service *service, const char *state)
{
    if (service->notify_fd < 0)
        return;
    if (send(service->notify_fd, state, strlen(state), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        log_message(LOG_WARNING, "service_manager", "cannot say %s: %s", state, strerror(errno));
}

/* ---- what is given ---- */

static int read_number(const char *name, const char *text, uint64_t *number, struct error *err)
{
    const char *end = text_whole_number(text, number);
    if (end && *end == '\0')
        return 0;
    return error_set(err, ERROR_INVALID,
                     "the service manager's %s is \"%.60s\", expected a whole number", name, text);
}

/* A variable's number if it is meant for this process; 0 if not, or if there is none. */
static int number_for_us(const char *name, const char *pid_name, uint64_t *number,
                         struct error *err)
{
    const char *text = getenv(name), *pid = getenv(pid_name);
    uint64_t whose = (uint64_t)getpid();
    *number = 0;
    if (!text)
        return 0;
    if (pid && read_number(pid_name, pid, &whose, err) != 0)
        return -1;
    return whose == (uint64_t)getpid() ? read_number(name, text, number, err) : 0;
}

static int option_of(int fd, int option)
{
    int value = -1;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

static int take_socket(struct service *service, uint64_t count, struct error *err)
{
    int fd = FIRST_GIVEN_FD;
    if (count == 0)
        return 0;
    if (count > 1)
        return error_set(err, ERROR_INVALID,
                         "the service manager gives %" PRIu64 " sockets, expected one", count);
    int family = option_of(fd, SO_DOMAIN);
    if (option_of(fd, SO_TYPE) != SOCK_STREAM || option_of(fd, SO_ACCEPTCONN) != 1 ||
        (family != AF_INET && family != AF_INET6))
        return error_set(err, ERROR_INVALID,
                         "the socket that the service manager gives is not one that listens for "
                         "TCP connections (ListenStream= with a port and Accept=no)");
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
        return error_set(err, ERROR_INTERNAL, "cannot use the socket that was given: %s",
                         strerror(errno));
    service->given_fd = fd;
    return 0;
}

/* ---- life ---- */

int service_init(struct service *service, struct error *err)
{
    static const char *const READ[] = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
                                       "LISTEN_FDS",    "LISTEN_PID",    "LISTEN_FDNAMES"};
    const char *notify = getenv("NOTIFY_SOCKET");
    uint64_t watchdog_us, sockets;
    *service = (struct service){.notify_fd = -1};
    if (notify && *notify && open_notify(service, notify, err) != 0)
        return -1;
    if (number_for_us("WATCHDOG_USEC", "WATCHDOG_PID", &watchdog_us, err) != 0)
        return -1;
    if (service->notify_fd >= 0)
        service->watchdog_ms = watchdog_us / 1000;
    if (getenv("LISTEN_PID") && (number_for_us("LISTEN_FDS", "LISTEN_PID", &sockets, err) != 0 ||
                                 take_socket(service, sockets, err) != 0))
        return -1;
    for (size_t i = 0; i < sizeof READ / sizeof *READ; i++)
        unsetenv(READ[i]);
    return 0;
}

void service_close(struct service *service)
{
    if (service->notify_fd >= 0)
        close(service->notify_fd);
    if (service->given_fd > 0)
        close(service->given_fd);
    service->notify_fd = -1;
    service->given_fd = 0;
}
