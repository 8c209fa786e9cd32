/* Every call that can fail is looked at, down to the directory's own fsync(). */
#include "server/statistics/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"

enum { PATH_BYTES = 4096 };

static int fail(struct error *err, const char *what, const char *path)
{
    return error_set(err, ERROR_UNAVAILABLE, "cannot %s %.300s: %s", what, path, strerror(errno));
}

static void path_of(const char *directory, const char *name, const char *ending,
                    char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%.3500s/%.500s%s", directory, name, ending);
}

/* ---- writing ---- */

static int write_whole(int file, const char *bytes, size_t length)
{
    while (length > 0) {
        const ssize_t some = write(file, bytes, length);
        if (some < 0 && errno == EINTR)
            continue;
        if (some < 0)
            return -1;
        bytes += some;
        length -= (size_t)some;
    }
    return fsync(file);
}

/* A rename is on the disk when its directory is. */
static int sync_directory(const char *path)
{
    const int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -1;
    const int result = fsync(directory);
    close(directory);
    return result;
}

int state_file_replace(const char *directory, const char *name, const struct buffer *body,
                       struct error *err)
{
    char path[PATH_BYTES], temporary[PATH_BYTES];
    path_of(directory, name, "", path);
    path_of(directory, name, ".new", temporary);
    const int file = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (file < 0)
        return fail(err, "write", temporary);
    int result = write_whole(file, body->data, body->length);
    if (result != 0)
        fail(err, "write", temporary);
    if (close(file) != 0 && result == 0)
        result = fail(err, "write", temporary);
    if (result == 0 && rename(temporary, path) != 0)
        result = fail(err, "rename a file to", path);
    if (result != 0)
        unlink(temporary);
    else if (sync_directory(directory) != 0)
        result = fail(err, "write", directory);
    return result;
}

/* ---- reading ---- */

char *state_file_read(const char *directory, const char *name, size_t most, size_t *length,
                      struct error *err)
{
    char path[PATH_BYTES];
    path_of(directory, name, "", path);
    const int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        if (errno == ELOOP)
            error_set(err, ERROR_INVALID, "%.300s: not a regular file", path);
        else if (errno != ENOENT && errno != ENOTDIR)
            fail(err, "read", path);
        return NULL;
    }
    char *bytes = file_read_open(file, most, length, err);
    if (!bytes)
        error_prefix(err, "%.300s", path);
    return bytes;
}

bool state_file_is_wrong(const struct error *err)
{
    return err->code == ERROR_INVALID || err->code == ERROR_TOO_LARGE;
}

bool state_file_set_aside(const char *directory, const char *name)
{
    char path[PATH_BYTES], aside[PATH_BYTES];
    path_of(directory, name, "", path);
    path_of(directory, name, ".damaged", aside);
    return rename(path, aside) == 0;
}
