/* Read at once: what a file says about its size must hold until the end. */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"

int file_read_bytes(int fd, char *bytes, size_t count)
{
    size_t done = 0;
    while (done < count) {
        const ssize_t taken = read(fd, bytes + done, count - done);
        if (taken == 0)
            errno = ENODATA; /* truncated meanwhile */
        if (taken == 0 || (taken < 0 && errno != EINTR))
            return -1;
        done += taken > 0 ? (size_t)taken : 0;
    }
    return 0;
}

/* Whatever the reason: a regular file that is open is the machine's to read. */
static void unreadable(struct error *err)
{
    const enum error_code code = error_of_errno(errno);
    error_set(err, code == ERROR_INVALID ? ERROR_INTERNAL : code, "cannot read: %s",
              strerror(errno));
}

char *file_read_open(int fd, size_t most, size_t *length, struct error *err)
{
    struct stat status;
    char *bytes = NULL;
    int result = -1;
    if (fstat(fd, &status) != 0)
        unreadable(err);
    else if (!S_ISREG(status.st_mode))
        error_set(err, ERROR_INVALID, "not a regular file");
    else if ((uint64_t)status.st_size > most)
        error_set(err, ERROR_TOO_LARGE, "larger than %zu bytes", most);
    else if ((bytes = calloc_checked((size_t)status.st_size + 1, 1, err))) {
        *length = (size_t)status.st_size;
        result = file_read_bytes(fd, bytes, *length);
        if (result != 0)
            unreadable(err);
    }
    close(fd);
    if (result == 0)
        return bytes;
    free(bytes);
    return NULL;
}

char *file_read(const char *path, size_t most, size_t *length, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* do not wait for a pipe's writer */
    if (fd >= 0)
        return file_read_open(fd, most, length, err);
    error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : error_of_errno(errno), "cannot open: %s",
              strerror(errno));
    return NULL;
}
