/* The file of the socket decides who may connect: its owner and its group. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/http/http_listen.h"

enum { SOCKET_MODE = 0660 };

static int failed(const char *path, const char *what, struct error *err)
{
    return error_set(err, ERROR_INVALID, "cannot listen on unix:%.150s: %s", path, what);
}

/* Removes the file that a server left which was killed: nobody answers there. */
static int remove_stale(int fd, const struct sockaddr_un *address, struct error *err)
{
    struct stat status;
    if (lstat(address->sun_path, &status) != 0)
        return errno == ENOENT ? 0 : failed(address->sun_path, strerror(errno), err);
    if (!S_ISSOCK(status.st_mode))
        return failed(address->sun_path, "there is a file that is no socket", err);
    if (connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno == EAGAIN)
        return failed(address->sun_path, "another process listens there", err);
    if (errno != ECONNREFUSED || unlink(address->sun_path) != 0)
        return failed(address->sun_path, strerror(errno), err);
    return 0;
}

/* Nobody can connect before listen(), so the mode comes in time. */
static int bind_and_listen(int fd, const struct sockaddr_un *address, struct error *err)
{
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) != 0)
        return failed(address->sun_path, strerror(errno), err);
    if (chmod(address->sun_path, SOCKET_MODE) == 0 && listen(fd, SOMAXCONN) == 0)
        return 0;
    failed(address->sun_path, strerror(errno), err);
    unlink(address->sun_path);
    return -1;
}

static int new_socket(void)
{
    return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

int http_listen_unix(const char *path, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int probe = new_socket(), fd = new_socket();
    int result = probe >= 0 && fd >= 0 ? remove_stale(probe, &address, err)
                                       : failed(path, strerror(errno), err);
    if (result == 0)
        result = bind_and_listen(fd, &address, err);
    if (probe >= 0)
        close(probe);
    if (result == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}
