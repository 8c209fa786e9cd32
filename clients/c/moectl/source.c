/* Fetches snapshots in a thread; see source.h. What both threads touch is under the mutex. */
#include "clients/c/moectl/source.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "clients/c/moectl/run.h"

struct source {
    struct settings settings; /* the thread's own, but for model and window */
    struct moed_client *client;
    char *busiest; /* the thread's own: shown where no model is wanted; NULL: none has rows */
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int event;
    atomic_bool stop;
    bool asked;         /* fetch at once */
    char *model;        /* wanted; owned */
    const char *window; /* wanted; static */
    struct snapshot *newest;
};

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void snapshot_free(struct snapshot *snapshot)
{
    if (!snapshot)
        return;
    json_decref(snapshot->names);
    document_free(snapshot->document);
    free(snapshot->model);
    free(snapshot);
}

/* ---- the thread ---- */

static bool is_served(json_t *names, const char *model)
{
    json_t *name;
    size_t i;
    json_array_foreach(names, i, name)
    {
        if (strcmp(json_string_value(name), model) == 0)
            return true;
    }
    return false;
}

/* Of several the first; NULL: there are no models. */
static const char *find_busiest(json_t *names, const char *metrics, double *most)
{
    const char *busiest = json_string_value(json_array_get(names, 0));
    json_t *name;
    size_t i;
    *most = 0;
    json_array_foreach(names, i, name)
    {
        const double rows = metrics_rows(metrics, json_string_value(name));
        if (rows > *most) {
            busiest = json_string_value(name);
            *most = rows;
        }
    }
    return busiest;
}

/* It stays the same as long as it is served, once it has rows: a picture that jumps shows nothing.
 * The caller frees it. */
static char *busiest_model(struct source *source, json_t *names, const char *metrics)
{
    double rows;
    if (source->busiest && is_served(names, source->busiest))
        return xstrdup(source->busiest);
    const char *busiest = find_busiest(names, metrics, &rows);
    free(source->busiest);
    source->busiest = busiest && rows > 0 ? xstrdup(busiest) : NULL;
    return busiest ? xstrdup(busiest) : NULL;
}

/* Takes over `model`. The metrics are worth having, but not needed. */
static struct snapshot *fetch(struct source *source, char *model, const char *window)
{
    struct snapshot *snapshot = xcalloc(1, sizeof *snapshot);
    snapshot->names = fetch_names(source->client, &snapshot->err);
    char *text = snapshot->names ? moed_client_metrics(source->client, NULL) : NULL;
    const char *metrics = text ? text : "";
    snapshot->model =
        model || !snapshot->names ? model : busiest_model(source, snapshot->names, metrics);
    if (snapshot->names && !snapshot->model)
        fail_with(&snapshot->err, "the server has no models");
    if (snapshot->model && snapshot->names) {
        source->settings.window = window;
        snapshot->document = document_of_model(&source->settings, source->client, snapshot->model,
                                               NULL, &snapshot->err);
        metrics_read(&snapshot->metrics, metrics, snapshot->model);
    }
    free(text);
    snapshot->time = now();
    return snapshot;
}

/* Waits until it is time for the next one. Under the mutex. */
static void wait_turn(struct source *source)
{
    struct timespec until;
    double due = now() + source->settings.interval;
    until.tv_sec = (time_t)due;
    until.tv_nsec = (long)((due - (double)until.tv_sec) * 1e9);
    int result = 0;
    while (!source->asked && !atomic_load(&source->stop) && result != ETIMEDOUT)
        result = pthread_cond_timedwait(&source->wake, &source->mutex, &until);
    source->asked = false;
}

static void publish(struct source *source, struct snapshot *snapshot)
{
    snapshot_free(source->newest);
    source->newest = snapshot;
    if (eventfd_write(source->event, 1) != 0)
        abort(); /* only a closed descriptor or a full counter */
}

static void *work(void *context)
{
    struct source *source = context;
    pthread_mutex_lock(&source->mutex);
    while (!atomic_load(&source->stop)) {
        char *model = source->model ? xstrdup(source->model) : NULL;
        const char *window = source->window;
        pthread_mutex_unlock(&source->mutex);
        struct snapshot *snapshot = fetch(source, model, window);
        pthread_mutex_lock(&source->mutex);
        publish(source, snapshot);
        wait_turn(source);
    }
    pthread_mutex_unlock(&source->mutex);
    return NULL;
}

/* ---- its life ---- */

static bool is_stopped(void *context)
{
    return atomic_load(&((struct source *)context)->stop);
}

static int start(struct source *source, struct moed_client_error *err)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&source->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&source->mutex, NULL);
    source->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    source->client = connect_with(&source->settings, is_stopped, source, err);
    if (!source->client)
        return -1;
    if (source->event < 0 || pthread_create(&source->thread, NULL, work, source) != 0)
        return fail_with(err, "cannot start a thread: %s", strerror(errno));
    return 0;
}

static void close_all(struct source *source)
{
    moed_client_free(source->client);
    if (source->event >= 0)
        close(source->event);
    pthread_cond_destroy(&source->wake);
    pthread_mutex_destroy(&source->mutex);
    snapshot_free(source->newest);
    free(source->model);
    free(source->busiest);
    free(source);
}

struct source *source_new(const struct settings *settings, struct moed_client_error *err)
{
    struct source *source = xcalloc(1, sizeof *source);
    source->settings = *settings;
    source->window = settings->window;
    source->model = settings->operand_count > 0 ? xstrdup(settings->operands[0]) : NULL;
    if (start(source, err) == 0)
        return source;
    close_all(source);
    return NULL;
}

void source_free(struct source *source)
{
    if (!source)
        return;
    atomic_store(&source->stop, true);
    pthread_mutex_lock(&source->mutex);
    pthread_cond_signal(&source->wake);
    pthread_mutex_unlock(&source->mutex);
    pthread_join(source->thread, NULL);
    close_all(source);
}

int source_fd(const struct source *source)
{
    return source->event;
}

struct snapshot *source_take(struct source *source)
{
    eventfd_t events;
    pthread_mutex_lock(&source->mutex);
    eventfd_read(source->event, &events);
    struct snapshot *snapshot = source->newest;
    source->newest = NULL;
    pthread_mutex_unlock(&source->mutex);
    return snapshot;
}

void source_ask(struct source *source, const char *model, const char *window)
{
    pthread_mutex_lock(&source->mutex);
    free(source->model);
    source->model = model ? xstrdup(model) : NULL;
    source->window = window;
    source->asked = true;
    pthread_cond_signal(&source->wake);
    pthread_mutex_unlock(&source->mutex);
}
