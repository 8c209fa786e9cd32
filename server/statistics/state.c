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

/* ---- reading ---- */

static void set_aside(struct state *state, const char *name, const struct error *err)
{
    const bool moved = state_file_set_aside(state->directory, name);
    atomic_fetch_add(&state->damaged, 1);
    log_message(LOG_WARNING, "state_damaged",
                "%s; it %s renamed to %s.damaged, counting begins anew", err->text,
                moved ? "is" : "cannot be", name);
}

enum kept {
    KEPT_NOTHING, /* that a model could go on with */
    KEPT_READ,
    KEPT_UNREAD /* it is there, and cannot be read now, or only by a newer moed: it stays so */
};

/* KEPT_NOTHING without an error: there is no file. */
static enum kept read_file(const struct state *state, const struct model *model, const char *name,
                           struct model_stats *stats, struct error *err)
{
    const struct snapshot_time time = snapshot_time();
    size_t length;
    char *bytes = state_file_read(state->directory, name, SNAPSHOT_MAX_BYTES, &length, err);
    if (!bytes)
        return err->code == ERROR_NONE || state_file_is_wrong(err) ? KEPT_NOTHING : KEPT_UNREAD;
    const enum snapshot_kind kind = snapshot_read(stats, model->info, &time, bytes, length, err);
    free(bytes);
    error_prefix(err, "%s/%s", state->directory, name);
    if (kind == SNAPSHOT_OTHER) {
        log_message(LOG_INFO, "state_ignored", "%s; counting begins anew", err->text);
        *err = (struct error)ERROR_INIT;
    }
    return kind == SNAPSHOT_READ ? KEPT_READ : kind == SNAPSHOT_NEWER ? KEPT_UNREAD : KEPT_NOTHING;
}

/* What is kept of a model: KEPT_READ with statistics of its own, which are the caller's;
 * KEPT_UNREAD with an error. */
static enum kept look(struct state *state, const struct model *model, struct model_stats **stats,
                      struct error *err)
{
    char name[NAME_BYTES];
    struct error own = ERROR_INIT;
    *stats = model_stats_new(model->info, model_classes(model), model->stats->loops,
                             model->stats->tags.most, stats_now());
    name_of(model, name);
    const enum kept kept = read_file(state, model, name, *stats, &own);
    if (kept == KEPT_READ) {
        log_message(LOG_INFO, "state_restored", "%s version %s goes on counting from %s/%s",
                    model->name, model->version, state->directory, name);
        return kept;
    }
    model_stats_release(*stats);
    *stats = NULL;
    if (kept == KEPT_UNREAD)
        error_set(err, own.code, "%s: it is left as it is", own.text);
    else if (own.code != ERROR_NONE)
        set_aside(state, name, &own);
    return kept;
}

bool state_is_used(const struct state *state)
{
    return state->directory && state->lock >= 0;
}

void state_restore(struct state *state, struct model *model)
{
    struct error err = ERROR_INIT;
    struct model_stats *stats;
    if (!state || !state_is_used(state))
        return;
    const enum kept kept = look(state, model, &stats, &err);
    if (kept == KEPT_UNREAD) {
        atomic_store(&model->stats->unread, true);
        log_message(LOG_WARNING, "state_unread", "%s; counting begins anew, and is not kept",
                    err.text);
    }
    if (kept == KEPT_READ) {
        model_stats_release(model->stats);
        model->stats = stats;
    }
}

/* What could not be read when the model was loaded. */
static int restore_late(struct state *state, const struct model *model, struct error *err)
{
    struct model_stats *stats;
    if (!atomic_load(&model->stats->unread))
        return 0;
    const enum kept kept = look(state, model, &stats, err);
    if (kept == KEPT_UNREAD)
        return -1;
    if (kept == KEPT_READ) {
        model_stats_join(model->stats, stats, stats_now());
        model_stats_release(stats);
    }
    atomic_store(&model->stats->unread, false);
    return 0;
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

static int write_file(struct state *state, const struct model *model, struct error *err)
{
    const struct snapshot_time time = snapshot_time();
    struct buffer body;
    char name[NAME_BYTES];
    if (restore_late(state, model, err) != 0)
        return -1;
    name_of(model, name);
    buffer_init(&body, SNAPSHOT_MAX_BYTES);
    int result = snapshot_write(model->stats, model->info, &time, &body, err);
    if (result == 0)
        result = state_file_replace(state->directory, name, &body, err);
    if (result == 0)
        atomic_store(&state->last_written_seconds, time.wall / 1000000000);
    buffer_close(&body);
    return result;
}

int state_save(struct state *state, const struct model *model, struct error *err)
{
    struct error own = ERROR_INIT;
    int result = -1;
    if (!state->directory)
        return 0;
    uv_mutex_lock(&state->writing);
    if (state->lock < 0)
        error_set(&own, ERROR_UNAVAILABLE, "%.300s is not this server's to write",
                  state->directory);
    else
        result = write_file(state, model, &own);
    atomic_fetch_add(result == 0 ? &state->written : &state->failures, 1);
    if (state->lock >= 0)
        tell(state, &own);
    uv_mutex_unlock(&state->writing);
    return result == 0 ? 0 : error_set(err, ERROR_UNAVAILABLE, "%s", own.text);
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
