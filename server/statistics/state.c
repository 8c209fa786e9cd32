/* One thread writes; what loads a model reads. */
#include "server/statistics/state.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "server/log.h"
#include "server/statistics/snapshot.h"
#include "server/statistics/state_directory.h"
#include "server/statistics/state_file.h"

enum { NAME_BYTES = 512 };

/* How long the end of the process waits for the disk. */
enum { STOP_PATIENCE_MS = 5000, STOP_STEP_MS = 5 };

static void name_of(const struct model *model, char name[NAME_BYTES])
{
    snprintf(name, NAME_BYTES, "%s.%s.routing", model->name, model->version);
}

/* ---- writing ---- */

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
    char name[NAME_BYTES];
    if (!state->directory)
        return 0;
    name_of(model, name);
    uv_mutex_lock(&state->writing);
    buffer_init(&body, SNAPSHOT_MAX_BYTES);
    if (state->lock < 0)
        error_set(&own, ERROR_UNAVAILABLE, "%.300s is not this server's to write",
                  state->directory);
    else if (snapshot_write(model->stats, model->info, &time, &body, &own) == 0 &&
             state_file_replace(state->directory, name, &body, &own) == 0)
        atomic_store(&state->last_written_seconds, time.wall / 1000000000);
    buffer_close(&body);
    atomic_fetch_add(own.code == ERROR_NONE ? &state->written : &state->failures, 1);
    if (state->lock >= 0)
        tell(state, &own);
    uv_mutex_unlock(&state->writing);
    return own.code == ERROR_NONE ? 0 : error_set(err, own.code, "%s", own.text);
}

/* ---- reading ---- */

static void set_aside(struct state *state, const char *name, const struct error *err)
{
    const bool moved = state_file_set_aside(state->directory, name);
    atomic_fetch_add(&state->damaged, 1);
    log_message(LOG_WARNING, "state_damaged",
                "%s; it %s renamed to %s.damaged, counting begins anew", err->text,
                moved ? "is" : "cannot be", name);
}

void state_restore(struct state *state, struct model *model)
{
    struct error err = ERROR_INIT;
    const struct snapshot_time time = snapshot_time();
    char name[NAME_BYTES];
    size_t length;
    if (!state || !state->directory || state->lock < 0)
        return;
    name_of(model, name);
    void *bytes = state_file_read(state->directory, name, SNAPSHOT_MAX_BYTES, &length, &err);
    if (!bytes && err.code == ERROR_NONE)
        return;
    struct model_stats *stats = model_stats_new(
        model->info, model_classes(model), model->stats->loops, model->stats->tags.most, time.now);
    enum snapshot_kind kind = SNAPSHOT_DAMAGED;
    if (err.code == ERROR_NONE) {
        kind = snapshot_read(stats, model->info, &time, bytes, length, &err);
        error_prefix(&err, "%s/%s", state->directory, name);
    }
    free(bytes);
    if (kind == SNAPSHOT_READ) {
        struct model_stats *empty = model->stats;
        model->stats = stats;
        stats = empty;
        log_message(LOG_INFO, "state_restored", "%s version %s goes on counting from %s/%s",
                    model->name, model->version, state->directory, name);
    } else if (kind == SNAPSHOT_OTHER) {
        log_message(LOG_INFO, "state_ignored", "%s; counting begins anew", err.text);
    } else {
        set_aside(state, name, &err);
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

void state_init(struct state *state, const char *directory, uint64_t interval_ns)
{
    *state = (struct state){.directory = directory, .interval_ns = interval_ns, .lock = -1};
    if (!directory)
        return;
    struct error err = ERROR_INIT;
    state->lock = state_directory_lock(directory, &err);
    if (state->lock < 0)
        log_message(LOG_WARNING, "state_not_used", "%s; statistics begin anew and are not kept",
                    err.text);
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
