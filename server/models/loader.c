/* One thing at a time: changes that were asked for, then looks, then freeing. */
#include "server/models/loader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/memory.h"
#include "core/text.h"
#include "server/log.h"
#include "server/statistics/quarantine.h"

/* How often the thread looks whether loops and requests have let go of something. */
static const uint64_t LOOK_AGAIN_NS = 50 * 1000 * 1000;

/* ---- catalogs ---- */

static void on_change(void *context)
{
    struct loader *loader = context;
    struct catalog *catalog = repository_catalog(&loader->repository);
    uv_mutex_lock(&loader->mutex);
    struct catalog *before = loader->newest;
    loader->newest = catalog;
    loader->published++;
    uv_mutex_unlock(&loader->mutex);
    catalog_release(before);
    loader->options.on_published(loader->options.context);
}

struct catalog *loader_take(struct loader *loader, uint64_t *published)
{
    uv_mutex_lock(&loader->mutex);
    struct catalog *newest = catalog_hold(loader->newest);
    *published = loader->published;
    uv_mutex_unlock(&loader->mutex);
    return newest;
}

void loader_taken(struct loader *loader, size_t loop, uint64_t published)
{
    uv_mutex_lock(&loader->mutex);
    loader->taken[loop] = published;
    uv_cond_signal(&loader->wake);
    uv_mutex_unlock(&loader->mutex);
}

struct catalog *loader_newest(struct loader *loader)
{
    uv_mutex_lock(&loader->mutex);
    struct catalog *newest = catalog_hold(loader->newest);
    uv_mutex_unlock(&loader->mutex);
    return newest;
}

void loader_leave(struct loader *loader, size_t loop)
{
    uv_mutex_lock(&loader->mutex);
    loader->taken[loop] = UINT64_MAX;
    uv_cond_signal(&loader->wake);
    uv_mutex_unlock(&loader->mutex);
}

static bool all_have_taken(const struct loader *loader, uint64_t published)
{
    for (size_t i = 0; i < loader->options.loops; i++)
        if (loader->taken[i] < published)
            return false;
    return true;
}

/* A client that was told of a change must not meet a loop that does not know it. */
static void await_loops(struct loader *loader)
{
    uv_mutex_lock(&loader->mutex);
    uint64_t published = loader->published;
    while (!atomic_load(&loader->stopping) && !all_have_taken(loader, published))
        uv_cond_timedwait(&loader->wake, &loader->mutex, LOOK_AGAIN_NS);
    uv_mutex_unlock(&loader->mutex);
}

/* ---- what the thread does ---- */

static void look(struct loader *loader, enum repository_look why)
{
    struct error err = ERROR_INIT;
    uint64_t before = loader->published; /* which only this thread changes */
    int result = repository_look(&loader->repository, why, &err);
    await_loops(loader);
    if (result != 0)
        log_message(LOG_ERROR, "reload_failed", "%s; what was served is served on", err.text);
    else if (!atomic_load(&loader->stopping) && (why == LOOK_ASKED || loader->published != before))
        log_message(LOG_INFO, "reloaded", "%zu model%s", loader->newest->count,
                    text_s(loader->newest->count));
}

/* What is served comes first: a batch is as slow as the slowest of its threads, whose turns a load
 * would take. At this distance a thread that computes gets three times the loader's time of a core
 * that both want: the load ends, and nobody waits long for a lock that it holds. With 10 a load
 * beside busy processes took a minute. Linux has a priority for each thread. */
enum { LOADER_NICE = 5 };

static void give_way(void)
{
    if (setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + LOADER_NICE) != 0)
        log_message(LOG_WARNING, "loader_priority",
                    "cannot be lowered, so loading will slow requests down: %s", strerror(errno));
}

static void explain_activations(const struct model_options *models)
{
    if (models->activations == MOED_ACTIVATIONS_BF16 && !moed_multiplies_bf16())
        log_message(LOG_WARNING, "f32_activations",
                    "kernel %s has no products of BF16: inputs of BF16 matrices are not rounded",
                    moed_kernel_name());
}

static void want_by_name(struct loader *loader)
{
    const char *wanted = loader->options.wanted ? loader->options.wanted : "", *item;
    size_t length;
    loader->repository.options.want_all = strcmp(wanted, "*") == 0;
    while (!loader->repository.options.want_all && text_next_item(&wanted, &item, &length)) {
        char name[MAX_MODEL_NAME + 1];
        snprintf(name, sizeof name, "%.*s", (int)length, item);
        if (length > MAX_MODEL_NAME)
            log_message(LOG_WARNING, "load_model", "%s... is longer than the name of a model",
                        name);
        else if (*name)
            repository_want(&loader->repository, name);
    }
}

/* Without the list of experts in quarantine no model is loaded: it is tried again so often. */
static const uint64_t TRY_AGAIN_NS = UINT64_C(2000000000);

/* Whether the models wait for it. */
static bool waits_for_list(const struct loader *loader, struct error *err)
{
    return quarantine_read(loader->repository.options.models.quarantine, err) != 0;
}

/* False when there is nothing more to do than to wait for the end. */
static bool start(struct loader *loader)
{
    struct error err = ERROR_INIT, unread = ERROR_INIT;
    loader->waits = waits_for_list(loader, &unread);
    if (loader->waits)
        log_message(LOG_ERROR, "quarantine_unread", "%s; no model is loaded until it can be read",
                    unread.text);
    want_by_name(loader);
    int result = repository_look(&loader->repository, LOOK_START, &err);
    error_prefix(&err, "models");
    if (result == 0 && loader->options.strict)
        result = repository_check(&loader->repository, &err);
    await_loops(loader);
    if (atomic_load(&loader->stopping))
        return false;
    give_way();
    explain_activations(&loader->repository.options.models);
    loader->options.on_started(result == 0 ? NULL : &err, loader->options.context);
    return result == 0;
}

static void change(struct loader *loader, struct loader_change *change)
{
    struct error *err = &change->err;
    int result = change->unload ? repository_unload(&loader->repository, change->name, err)
                                : repository_load(&loader->repository, change->name, err);
    if (result != 0)
        log_message(LOG_WARNING, "change_refused", "%s", err->text);
    await_loops(loader);
    change->on_done(change);
}

/* Whoever replaces one model often replaces several, one after the other, and those that have gone
 * leave their memory to those that come. When nothing has come for so long it is freed. */
static const uint64_t SPARE_NS = UINT64_C(1000000000);

static bool has_spare(const struct loader *loader)
{
    if (moed_has_spare_memory() && uv_hrtime() >= loader->worked_ns + SPARE_NS)
        moed_keep_spare_memory(false);
    return moed_has_spare_memory();
}

/* Waits, with the mutex held, until there is something to do; for at most `patience_ns`. */
static void await_work(struct loader *loader, uint64_t patience_ns)
{
    if (loader->asked || loader->damaged || !TAILQ_EMPTY(&loader->changes))
        return;
    if (patience_ns == UINT64_MAX)
        uv_cond_wait(&loader->wake, &loader->mutex);
    else
        uv_cond_timedwait(&loader->wake, &loader->mutex, patience_ns);
}

/* How long until the next look that nobody asks for. */
static uint64_t until_poll(const struct loader *loader, uint64_t looked_ns)
{
    uint64_t due = looked_ns + loader->options.poll_ns, now = uv_hrtime();
    if (loader->options.poll_ns == 0)
        return UINT64_MAX;
    return due > now ? due - now : 0;
}

/* With the mutex held, which is released meanwhile. Who is woken for nothing has nothing in hand: a
 * stop at that moment need not leave the thread behind. */
static void work(struct loader *loader, uint64_t *looked_ns)
{
    struct loader_change *next = TAILQ_FIRST(&loader->changes);
    bool asked = loader->asked, damaged = loader->damaged;
    bool due = until_poll(loader, *looked_ns) == 0;
    if (!next && !asked && !damaged && !due)
        return;
    if (next)
        TAILQ_REMOVE(&loader->changes, next, link);
    loader->asked = loader->damaged = false;
    loader->working = true;
    uv_mutex_unlock(&loader->mutex);
    moed_keep_spare_memory(true);
    if (damaged)
        repository_drop_damaged(&loader->repository);
    if (next)
        change(loader, next);
    if (due)
        loader->options.on_look(loader->options.context);
    if (asked || due) {
        look(loader, asked ? LOOK_ASKED : LOOK_POLL);
        *looked_ns = uv_hrtime();
    }
    loader->worked_ns = uv_hrtime();
    uv_mutex_lock(&loader->mutex);
    loader->working = false;
}

static void refuse_rest(struct loader *loader)
{
    for (struct loader_change *next; (next = TAILQ_FIRST(&loader->changes));) {
        TAILQ_REMOVE(&loader->changes, next, link);
        error_set(&next->err, ERROR_UNAVAILABLE, "the server is stopping");
        next->on_done(next);
    }
}

/* Until it is stopped; with the mutex held, which is released meanwhile. */
static void serve(struct loader *loader)
{
    uint64_t looked_ns = uv_hrtime();
    while (!atomic_load(&loader->stopping)) {
        loader->working = loader->waits; /* a disk may hang */
        uv_mutex_unlock(&loader->mutex);
        bool some_leave = repository_reap(&loader->repository), spare = has_spare(loader);
        bool waited = loader->waits;
        loader->waits = waited && waits_for_list(loader, NULL);
        uint64_t poll_ns = until_poll(loader, looked_ns);
        uv_mutex_lock(&loader->mutex);
        loader->asked |= waited && !loader->waits;
        loader->working = false;
        uint64_t patience_ns = some_leave      ? LOOK_AGAIN_NS
                               : spare         ? SPARE_NS
                               : loader->waits ? TRY_AGAIN_NS
                                               : UINT64_MAX;
        if (!atomic_load(&loader->stopping))
            await_work(loader, poll_ns < patience_ns ? poll_ns : patience_ns);
        if (!atomic_load(&loader->stopping))
            work(loader, &looked_ns);
    }
}

static void thread_main(void *argument)
{
    struct loader *loader = argument;
    bool started = start(loader);
    uv_mutex_lock(&loader->mutex);
    loader->working = false;
    if (started)
        serve(loader);
    while (!atomic_load(&loader->stopping))
        uv_cond_wait(&loader->wake, &loader->mutex);
    refuse_rest(loader);
    uv_mutex_unlock(&loader->mutex);
}

void loader_look(struct loader *loader)
{
    uv_mutex_lock(&loader->mutex);
    loader->asked = true;
    uv_cond_signal(&loader->wake);
    uv_mutex_unlock(&loader->mutex);
}

void loader_check(struct loader *loader)
{
    uv_mutex_lock(&loader->mutex);
    loader->damaged = true;
    uv_cond_signal(&loader->wake);
    uv_mutex_unlock(&loader->mutex);
}

void loader_submit(struct loader *loader, struct loader_change *change)
{
    uv_mutex_lock(&loader->mutex);
    TAILQ_INSERT_TAIL(&loader->changes, change, link);
    uv_cond_signal(&loader->wake);
    uv_mutex_unlock(&loader->mutex);
}

/* ---- life ---- */

void loader_init(struct loader *loader, const struct loader_options *options)
{
    *loader = (struct loader){.options = *options};
    struct repository_options *repository = &loader->options.repository;
    repository->stopping = &loader->stopping;
    repository->on_change = on_change;
    repository->context = loader;
    repository_init(&loader->repository, repository);
    TAILQ_INIT(&loader->changes);
    loader->newest = catalog_new(NULL, 0);
    loader->taken = xcalloc(options->loops, sizeof *loader->taken);
    if (uv_mutex_init(&loader->mutex) != 0 || uv_cond_init(&loader->wake) != 0)
        out_of_memory();
}

int loader_start(struct loader *loader, struct error *err)
{
    loader->working = true;
    int status = uv_thread_create(&loader->thread, thread_main, loader);
    if (status == 0)
        return 0;
    return error_set(err, ERROR_INTERNAL, "cannot start the loader thread: %s",
                     uv_strerror(status));
}

/* A look is over in milliseconds, a large model is not. */
enum { STOP_PATIENCE_MS = 500, STOP_STEP_MS = 5 };

bool loader_stop(struct loader *loader)
{
    uv_mutex_lock(&loader->mutex);
    atomic_store(&loader->stopping, true);
    uv_cond_signal(&loader->wake);
    for (unsigned ms = 0; loader->working && ms < STOP_PATIENCE_MS; ms += STOP_STEP_MS) {
        uv_mutex_unlock(&loader->mutex);
        uv_sleep(STOP_STEP_MS);
        uv_mutex_lock(&loader->mutex);
    }
    bool working = loader->working;
    uv_mutex_unlock(&loader->mutex);
    if (working)
        return false;
    uv_thread_join(&loader->thread);
    return true;
}

/* Nobody serves any more: the holds of the loops are gone. */
void loader_close(struct loader *loader)
{
    if (!loader->newest)
        return;
    catalog_release(loader->newest);
    repository_close(&loader->repository);
    moed_keep_spare_memory(false);
    free(loader->taken);
    uv_cond_destroy(&loader->wake);
    uv_mutex_destroy(&loader->mutex);
}
