/* Asked, it reloads; while there are retired models, it looks at them from time to time. */
#include "server/loader.h"

#include <stdlib.h>

#include "core/memory.h"
#include "server/log.h"
#include "server/repository.h"

/* How often retired models are looked at. */
static const uint64_t RETIRED_NS = 50 * 1000 * 1000;

/* ---- what is served no more ---- */

static void retire(struct loader *loader, const struct catalog *before, const struct catalog *after)
{
    for (size_t i = 0; i < before->count; i++) {
        if (catalog_has(after, before->models[i]))
            continue;
        loader->retired =
            xrealloc(loader->retired, (loader->retired_count + 1) * sizeof *loader->retired);
        loader->retired[loader->retired_count++] = model_hold(before->models[i]);
    }
}

static void free_retired(struct loader *loader)
{
    for (size_t i = loader->retired_count; i-- > 0;) {
        struct model *model = loader->retired[i];
        if (atomic_load(&model->holders) > 1)
            continue;
        log_message(LOG_INFO, "model_freed", "%s version %s", model->name, model->version);
        model_release(model);
        loader->retired[i] = loader->retired[--loader->retired_count];
    }
}

/* ---- reloading ---- */

static struct catalog *swap(struct loader *loader, struct catalog *catalog)
{
    uv_mutex_lock(&loader->mutex);
    struct catalog *before = loader->newest;
    loader->newest = catalog;
    uv_mutex_unlock(&loader->mutex);
    return before;
}

static void reload(struct loader *loader)
{
    struct error err = ERROR_INIT;
    struct catalog *before = loader_newest(loader);
    struct catalog *after =
        repository_reload(loader->directory, &loader->options, before, &loader->stopping, &err);
    if (after) {
        retire(loader, before, after);
        catalog_release(swap(loader, catalog_hold(after)));
        loader->on_published(loader->context);
        log_message(LOG_INFO, "reloaded", "%zu models", after->count);
    } else if (err.code != ERROR_NONE) {
        log_message(LOG_ERROR, "reload_failed", "%s; what was served is served on", err.text);
    }
    catalog_release(after);
    catalog_release(before);
}

static void thread_main(void *argument)
{
    struct loader *loader = argument;
    uv_mutex_lock(&loader->mutex);
    while (!atomic_load(&loader->stopping)) {
        if (!loader->asked && loader->retired_count > 0)
            uv_cond_timedwait(&loader->wake, &loader->mutex, RETIRED_NS);
        else if (!loader->asked)
            uv_cond_wait(&loader->wake, &loader->mutex);
        const bool asked = loader->loading = loader->asked;
        loader->asked = false;
        uv_mutex_unlock(&loader->mutex);
        if (asked)
            reload(loader);
        free_retired(loader);
        uv_mutex_lock(&loader->mutex);
        loader->loading = false;
    }
    uv_mutex_unlock(&loader->mutex);
}

void loader_reload(struct loader *loader)
{
    uv_mutex_lock(&loader->mutex);
    loader->asked = true;
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

/* ---- life ---- */

int loader_init(struct loader *loader, const char *directory, const struct model_options *options,
                struct error *err)
{
    *loader = (struct loader){.directory = directory, .options = *options};
    loader->newest = repository_load(directory, options, err);
    if (!loader->newest)
        return -1;
    if (uv_mutex_init(&loader->mutex) != 0 || uv_cond_init(&loader->wake) != 0)
        out_of_memory();
    return 0;
}

int loader_start(struct loader *loader, void (*on_published)(void *context), void *context,
                 struct error *err)
{
    loader->on_published = on_published;
    loader->context = context;
    const int status = uv_thread_create(&loader->thread, thread_main, loader);
    if (status == 0)
        return 0;
    return error_set(err, ERROR_INTERNAL, "cannot start the loader thread: %s",
                     uv_strerror(status));
}

bool loader_stop(struct loader *loader)
{
    uv_mutex_lock(&loader->mutex);
    atomic_store(&loader->stopping, true);
    const bool loading = loader->loading;
    uv_cond_signal(&loader->wake);
    uv_mutex_unlock(&loader->mutex);
    if (loading)
        return false;
    uv_thread_join(&loader->thread);
    return true;
}

/* Nobody serves any more: the holds of the loops are gone. */
void loader_close(struct loader *loader)
{
    if (!loader->newest)
        return;
    for (size_t i = 0; i < loader->retired_count; i++)
        model_release(loader->retired[i]);
    free(loader->retired);
    catalog_release(loader->newest);
    uv_cond_destroy(&loader->wake);
    uv_mutex_destroy(&loader->mutex);
}
