#include "server/statistics/state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static int fail(struct error *err, const char *what, const char *path)
{
    return error_set(err, ERROR_INVALID, "cannot %s %s: %s", what, path, strerror(errno));
}

int state_directory_lock(const char *directory, struct error *err)
{
    char path[PATH_BYTES];
    if (mkdir(directory, 0750) != 0 && errno != EEXIST)
        return fail(err, "make", directory);
    snprintf(path, sizeof path, "%.4000s/.lock", directory);
    const int lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (lock < 0)
        return fail(err, "write", path);
    if (flock(lock, LOCK_EX | LOCK_NB) == 0)
        return lock;
    if (errno == EWOULDBLOCK)
        error_set(err, ERROR_UNAVAILABLE, "another server uses %s", directory);
    else
        fail(err, "lock", path);
    close(lock);
    return -1;
}

static bool can_write_in(const char *directory, int also)
{
    char inside[PATH_BYTES];
    snprintf(inside, sizeof inside, "%.4000s/.", directory);
    return access(inside, W_OK | X_OK | also) == 0;
}

int state_directory_check(const char *directory, struct error *err)
{
    struct stat status;
    if (stat(directory, &status) == 0 || errno != ENOENT)
        return can_write_in(directory, R_OK) ? 0 : fail(err, "write to", directory);
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", directory);
    return can_write_in(dirname(path), 0) ? 0 : fail(err, "make", directory);
}
