/* A file is replaced by renaming a complete one onto it, so that a crash at any moment leaves the
 * one or the other. */
#include "server/state.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/log.h"
#include "server/snapshot.h"

enum { PATH_BYTES = 4096 };

/* How long the end of the process waits for the disk. */
enum { STOP_PATIENCE_MS = 5000, STOP_STEP_MS = 5 };

static int fail(struct error *err, const char *what, const char *path)
{
    return error_set(err, ERROR_UNAVAILABLE, "cannot %s %.300s: %s", what, path, strerror(errno));
}

static void path_of(const struct state *state, const struct model *model, const char *ending,
                    char path[PATH_BYTES])
{
    snprintf(path, PATH_BYTES, "%.3600s/%s.%s.routing%s", state->directory, model->name,
             model->version, ending);
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
static int sync_directory(const struct state *state)
{
    const int directory = open(state->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return -1;
    const int result = fsync(directory);
    close(directory);
    return result;
}

static int replace_file(const struct state *state, const struct model *model,
                        const struct buffer *body, struct error *err)
{
    char path[PATH_BYTES], temporary[PATH_BYTES];
    path_of(state, model, "", path);
    path_of(state, model, ".new", temporary);
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
    else if (sync_directory(state) != 0)
        result = fail(err, "write", state->directory);
    return result;
}

/* The same failure is told once, not every minute. With `writing` held. */
static void tell(struct state *state, const struct error *err)
{
    if (err->code == ERROR_NONE && *state->told)
        log_message(LOG_INFO, "state_written", "statistics are kept again in %s", state->directory);
    if (err->code != ERROR_NONE && strcmp(err->text, state->told) != 0)
        log_message(LOG_WARNING, "state_not_written", "%s; counting goes on without it", err->text);
    snprintf(state->told, sizeof state->told, "%s", err->text);
}

int state_save(struct state *state, const struct model *model, struct error *err)
{
    struct error own = ERROR_INIT;
    const struct snapshot_time time = snapshot_time();
    struct buffer body;
    if (!state->directory)
        return 0;
    uv_mutex_lock(&state->writing);
    buffer_init(&body, SNAPSHOT_MAX_BYTES);
    if (state->lock < 0)
        error_set(&own, ERROR_UNAVAILABLE, "%.300s is not this server's to write",
                  state->directory);
    else if (snapshot_write(model->stats, model->info, &time, &body, &own) == 0 &&
             replace_file(state, model, &body, &own) == 0)
        atomic_store(&state->last_written_seconds, time.wall / 1000000000);
    buffer_close(&body);
    atomic_fetch_add(own.code == ERROR_NONE ? &state->written : &state->failures, 1);
    if (state->lock >= 0)
        tell(state, &own);
    uv_mutex_unlock(&state->writing);
    return own.code == ERROR_NONE ? 0 : error_set(err, own.code, "%s", own.text);
}

/* ---- reading ---- */

/* Whole; the caller frees. NULL with an error, or without one if there is none. */
static void *read_file(const char *path, size_t *length, struct error *err)
{
    struct stat status;
    const int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    char *bytes = NULL;
    *length = 0;
    if (file < 0 && errno == ENOENT)
        return NULL;
    if (file < 0 || fstat(file, &status) != 0)
        fail(err, "read", path);
    else if (!S_ISREG(status.st_mode) || status.st_size > SNAPSHOT_MAX_BYTES)
        error_set(err, ERROR_INVALID, "%.300s is no file of at most %d bytes", path,
                  SNAPSHOT_MAX_BYTES);
    else
        bytes = calloc_checked((size_t)status.st_size + 1, 1, err);
    for (ssize_t some = 1; bytes && some > 0 && *length < (size_t)status.st_size;) {
        some = read(file, bytes + *length, (size_t)status.st_size - *length);
        *length += some > 0 ? (size_t)some : 0;
        if (some < 0)
            fail(err, "read", path);
    }
    if (file >= 0)
        close(file);
    return bytes;
}

static void set_aside(struct state *state, const struct model *model, const char *path,
                      const struct error *err)
{
    char aside[PATH_BYTES];
    path_of(state, model, ".damaged", aside);
    const bool moved = rename(path, aside) == 0;
    atomic_fetch_add(&state->damaged, 1);
    log_message(LOG_WARNING, "state_damaged", "%s: %s; %s %s, counting begins anew", path,
                err->text, moved ? "it is now" : "it cannot be renamed to", aside);
}

void state_restore(struct state *state, struct model *model)
{
    struct error err = ERROR_INIT;
    const struct snapshot_time time = snapshot_time();
    char path[PATH_BYTES];
    size_t length;
    if (!state || !state->directory || state->lock < 0)
        return;
    path_of(state, model, "", path);
    void *bytes = read_file(path, &length, &err);
    if (!bytes && err.code == ERROR_NONE)
        return;
    struct model_stats *stats = model_stats_new(
        model->info, model_classes(model), model->stats->loops, model->stats->tags.most, time.now);
    enum snapshot_kind kind = SNAPSHOT_DAMAGED;
    if (err.code == ERROR_NONE)
        kind = snapshot_read(stats, model->info, &time, bytes, length, &err);
    free(bytes);
    if (kind == SNAPSHOT_READ) {
        struct model_stats *empty = model->stats;
        model->stats = stats;
        stats = empty;
        log_message(LOG_INFO, "state_restored", "%s version %s goes on counting from %s",
                    model->name, model->version, path);
    } else if (kind == SNAPSHOT_OTHER) {
        log_message(LOG_INFO, "state_ignored", "%s: %s; counting begins anew", path, err.text);
    } else {
        set_aside(state, model, path, &err);
    }
    model_stats_release(stats);
}

/* ---- the thread ---- */

static void save_all(struct state *state)
{
    struct catalog *catalog = state->catalog(state->context);
    for (size_t i = 0; i < catalog->count; i++)
        if (state_save(state, catalog->models[i], NULL) != 0)
            continue; /* told and counted */
    catalog_release(catalog);
}

static void thread_main(void *argument)
{
    struct state *state = argument;
    uv_mutex_lock(&state->mutex);
    for (bool last = false; !last;) {
        if (!state->stopping)
            uv_cond_timedwait(&state->wake, &state->mutex, state->interval_ns);
        last = state->stopping;
        uv_mutex_unlock(&state->mutex);
        save_all(state);
        uv_mutex_lock(&state->mutex);
    }
    state->done = true;
    uv_mutex_unlock(&state->mutex);
}

/* ---- life ---- */

/* A descriptor with the directory's lock; -1 and a word in the log. */
static int lock_directory(const char *directory)
{
    char path[PATH_BYTES];
    if (mkdir(directory, 0750) != 0 && errno != EEXIST)
        log_message(LOG_WARNING, "state_not_used", "cannot make %s: %s", directory,
                    strerror(errno));
    snprintf(path, sizeof path, "%.4000s/.lock", directory);
    const int lock = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (lock >= 0 && flock(lock, LOCK_EX | LOCK_NB) == 0)
        return lock;
    log_message(LOG_WARNING, "state_not_used", "%s: %s; statistics begin anew and are not kept",
                path, errno == EWOULDBLOCK ? "another server uses the directory" : strerror(errno));
    if (lock >= 0)
        close(lock);
    return -1;
}

void state_init(struct state *state, const char *directory, uint64_t interval_ns)
{
    *state = (struct state){.directory = directory, .interval_ns = interval_ns, .lock = -1};
    if (!directory)
        return;
    state->lock = lock_directory(directory);
    if (uv_mutex_init(&state->mutex) != 0 || uv_mutex_init(&state->writing) != 0 ||
        uv_cond_init(&state->wake) != 0)
        out_of_memory();
}

void state_start(struct state *state, struct catalog *(*catalog)(void *context), void *context)
{
    if (!state->directory)
        return;
    state->catalog = catalog;
    state->context = context;
    state->has_thread = uv_thread_create(&state->thread, thread_main, state) == 0;
    if (!state->has_thread)
        log_message(LOG_WARNING, "state_not_used", "cannot start the thread that writes %s",
                    state->directory);
}

bool state_stop(struct state *state)
{
    if (!state->directory || !state->has_thread)
        return true;
    bool done = false;
    for (unsigned ms = 0; !done && ms < STOP_PATIENCE_MS; ms += STOP_STEP_MS) {
        uv_mutex_lock(&state->mutex);
        state->stopping = true;
        done = state->done;
        uv_cond_signal(&state->wake);
        uv_mutex_unlock(&state->mutex);
        if (!done)
            uv_sleep(STOP_STEP_MS);
    }
    state->has_thread = false;
    if (done)
        uv_thread_join(&state->thread);
    else
        log_message(LOG_WARNING, "state_not_written", "%s takes too long: the last minute is lost",
                    state->directory);
    return done;
}

void state_close(struct state *state)
{
    if (!state->directory)
        return;
    if (state->lock >= 0)
        close(state->lock);
    uv_mutex_destroy(&state->mutex);
    uv_mutex_destroy(&state->writing);
    uv_cond_destroy(&state->wake);
}
