/* Read at once: what it says about its size must hold until the end. */
#include "proto/text/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

char *file_read(const char *path, size_t most, size_t *length, struct error *err)
{
    /* Without waiting for a writer, if it is a pipe. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "rb");
    struct stat status;
    char *bytes = NULL;
    if (!file || fstat(fileno(file), &status) != 0)
        error_set(err, errno == ENOENT ? ERROR_NOT_FOUND : error_of_errno(errno),
                  "cannot open the file: %m");
    else if (!S_ISREG(status.st_mode))
        error_set(err, ERROR_INVALID, "is not a regular file");
    else if ((size_t)status.st_size > most)
        error_set(err, ERROR_TOO_LARGE, "expected a file of at most %zu bytes", most);
    else if (!(bytes = malloc((size_t)status.st_size + 1)))
        error_set(err, ERROR_UNAVAILABLE, "no memory to read the file");
    else if ((*length = fread(bytes, 1, (size_t)status.st_size, file)) != (size_t)status.st_size) {
        error_set(err, ERROR_INVALID, "cannot read the whole file");
        free(bytes);
        bytes = NULL;
    }
    if (file)
        fclose(file);
    else if (fd >= 0)
        close(fd);
    return bytes;
}
