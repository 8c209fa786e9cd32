/* The life of versions: found -> loaded -> replaced or unloaded -> freed. Newer versions of a model
 * are loaded before older ones go, and all changes of one model are shown at once. */
#include "server/models/repository.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "server/log.h"
#include "server/models/repository_scan.h"
#include "server/statistics/state.h"

static bool is_stopping(const struct repository *repository)
{
    return repository->options.stopping && atomic_load(repository->options.stopping);
}

/* Shows what has changed, if anything has. */
static void show(struct repository *repository, bool changed)
{
    for (size_t i = 0; i < repository->count; i++) {
        changed |= repository->models[i]->changed;
        repository->models[i]->changed = false;
    }
    if (changed && repository->options.on_change)
        repository->options.on_change(repository->options.context);
}

static void set_state(struct repository_version *version, enum model_state state,
                      const char *reason)
{
    version->state = state;
    free(version->reason);
    version->reason = xstrdup(reason);
}

/* ---- models that are served no more ---- */

static void replace(struct repository *repository, struct model *model)
{
    repository->replaced =
        xrealloc(repository->replaced, (repository->replaced_count + 1) * sizeof(struct model *));
    repository->replaced[repository->replaced_count++] = model;
}

static void unload(struct repository *repository, struct repository_version *version)
{
    if (version->leaving)
        replace(repository, version->leaving);
    version->leaving = version->model;
    version->model = NULL;
    version->attempted = 0; /* wanted again, it is loaded again */
    set_state(version, MODEL_UNLOADING, "");
    log_message(LOG_INFO, "model_unloaded", "%s version %s", version->leaving->name, version->text);
}

static bool is_unused(const struct model *model)
{
    return atomic_load(&model->holders) == 1;
}

/* A version that has gone, and that nobody else uses, counts no more: what it has counted is kept
 * for whoever loads it again. A version that was loaded again meanwhile has that already. */
static void keep_stats(struct repository *repository, struct repository_version *version)
{
    if (repository->options.state && !version->model &&
        state_save(repository->options.state, version->leaving, NULL) != 0)
        return; /* told and counted */
}

static void free_unused(struct model *model)
{
    log_message(LOG_INFO, "model_freed", "%s version %s", model->name, model->version);
    model_release(model);
}

static void free_version(struct repository_version *version)
{
    free(version->path);
    free(version->reason);
    free(version);
}

static void free_model(struct repository_model *model)
{
    serving_close(&model->serving);
    free(model->versions);
    free(model->fault);
    free(model->told);
    free(model->name);
    free(model);
}

/* Forgets versions and models that are neither on the disk nor in use. Whether there were any. */
static bool forget_unknown(struct repository *repository)
{
    size_t kept = 0, forgotten = 0;
    for (size_t i = 0; i < repository->count; i++) {
        struct repository_model *model = repository->models[i];
        size_t left = 0;
        for (size_t j = 0; j < model->count; j++) {
            if (repository_knows(model->versions[j]))
                model->versions[left++] = model->versions[j];
            else
                free_version(model->versions[j]);
        }
        forgotten += model->count - left;
        model->count = left;
        if (left > 0 || model->found || model->wanted)
            repository->models[kept++] = model;
        else
            free_model(model);
    }
    forgotten += repository->count - kept;
    repository->count = kept;
    return forgotten > 0;
}

bool repository_reap(struct repository *repository)
{
    bool changed = false, some = false;
    for (size_t i = repository->replaced_count; i-- > 0;)
        if (is_unused(repository->replaced[i])) {
            free_unused(repository->replaced[i]);
            repository->replaced[i] = repository->replaced[--repository->replaced_count];
        }
    for (size_t i = 0; i < repository->count; i++)
        for (size_t j = 0; j < repository->models[i]->count; j++) {
            struct repository_version *version = repository->models[i]->versions[j];
            if (!version->leaving || !is_unused(version->leaving)) {
                some |= version->leaving != NULL;
                continue;
            }
            keep_stats(repository, version);
            free_unused(version->leaving);
            changed = true;
            version->leaving = NULL;
            if (version->state == MODEL_UNLOADING)
                set_state(version, MODEL_UNAVAILABLE, "unloaded");
        }
    if (changed)
        forget_unknown(repository);
    show(repository, changed);
    return some || repository->replaced_count > 0;
}

/* ---- loading ---- */

/* Memory, descriptors or a disk, which may be back the next time. */
static bool is_the_machine(enum error_code cause)
{
    return cause == ERROR_UNAVAILABLE || cause == ERROR_INTERNAL;
}

/* Each time twice as long: trying may cost the memory and the disk that others lack. */
static uint64_t longer(uint64_t patience_ns)
{
    enum { LEAST_MS = 500, MOST_MS = 300000 };
    const uint64_t least = UINT64_C(1000000) * LEAST_MS, most = UINT64_C(1000000) * MOST_MS;
    patience_ns = patience_ns ? 2 * patience_ns : least;
    return patience_ns < most ? patience_ns : most;
}

static void fail_version(const struct repository_model *model, struct repository_version *version,
                         const struct error *err)
{
    version->failed = true;
    version->cause = err->code;
    version->failures++;
    version->patience_ns = is_the_machine(err->code) ? longer(version->patience_ns) : 0;
    version->again_ns = uv_hrtime() + version->patience_ns;
    log_message(LOG_ERROR, "model_failed", "%s version %s: %s", model->name, version->text,
                err->text);
    if (!version->model) {
        set_state(version, MODEL_UNAVAILABLE, err->text);
        return;
    }
    char text[ERROR_TEXT_BYTES + 64];
    snprintf(text, sizeof text, "what was loaded before is served: %s", err->text);
    set_state(version, MODEL_READY, text);
}

/* Goes on counting where the version before does, or what is kept of one that has gone: what still
 * leaves is kept last of all. */
static void go_on_counting(struct repository *repository, const struct repository_version *version,
                           struct model *loaded)
{
    const struct model *before = version->model;
    if (!before && repository->options.state && state_is_used(repository->options.state))
        before = version->leaving;
    if (!before || !model_adopt_stats(loaded, before))
        state_restore(repository->options.state, loaded);
}

static void load_version(struct repository *repository, const struct repository_model *model,
                         struct repository_version *version)
{
    struct error err = ERROR_INIT;
    version->attempted = version->found;
    if (!version->found) {
        error_set(&err, ERROR_NOT_FOUND, "serving.json wants this version, and it is not there");
        fail_version(model, version, &err);
        return;
    }
    struct model *loaded = model_load(version->path, model->name, version->text,
                                      &repository->options.models, &model->serving, &err);
    if (!loaded) {
        fail_version(model, version, &err);
        return;
    }
    go_on_counting(repository, version, loaded);
    if (version->model)
        replace(repository, version->model);
    version->model = loaded;
    version->failed = false;
    version->patience_ns = 0;
    set_state(version, MODEL_READY, "");
    model_tell_loaded(loaded);
}

static bool needs_load(const struct repository_model *model,
                       const struct repository_version *version, enum repository_look why)
{
    if (model->fault || !version->selected)
        return false;
    if (version->found == version->attempted && (version->model || version->failed))
        return version->failed &&
               (why == LOOK_ASKED || (version->patience_ns && uv_hrtime() >= version->again_ns));
    return why != LOOK_POLL || version->settled || !version->found;
}

/* What is to be loaded and serves nothing yet says so from now on. */
static void mark_loading(struct repository_model *model, enum repository_look why)
{
    for (size_t i = 0; i < model->count; i++) {
        struct repository_version *version = model->versions[i];
        if (!needs_load(model, version, why))
            continue;
        if (!version->model)
            set_state(version, MODEL_LOADING, "");
        model->changed = true;
    }
}

/* Versions that are not wanted any more go, unless nothing of what is wanted instead works. */
static void unload_others(struct repository *repository, struct repository_model *model)
{
    bool wanted = false, served = false;
    for (size_t i = 0; i < model->count; i++) {
        wanted |= model->versions[i]->selected;
        served |= model->versions[i]->selected && model->versions[i]->model;
    }
    for (size_t i = 0; i < model->count && (served || !wanted); i++)
        if (!model->versions[i]->selected && model->versions[i]->model) {
            unload(repository, model->versions[i]);
            model->changed = true;
        }
}

static void update(struct repository *repository, struct repository_model *model,
                   enum repository_look why)
{
    if (model->fault)
        return;
    for (size_t i = 0; i < model->count && !is_stopping(repository); i++)
        if (needs_load(model, model->versions[i], why)) {
            load_version(repository, model, model->versions[i]);
            model->changed = true;
        }
    if (!is_stopping(repository))
        unload_others(repository, model);
}

static void drop_damaged(struct repository *repository, struct repository_model *model,
                         struct repository_version *version)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_INVALID,
              "%.256s: a file was truncated while it was served: replace files by renaming others "
              "onto them, or use --load copy",
              version->path);
    const uint64_t attempted = version->attempted;
    unload(repository, version);
    version->attempted = attempted;
    fail_version(model, version, &err);
    model->changed = true;
}

void repository_drop_damaged(struct repository *repository)
{
    for (size_t i = 0; i < repository->count; i++) {
        struct repository_model *model = repository->models[i];
        for (size_t j = 0; j < model->count; j++)
            if (model->versions[j]->model &&
                moed_model_is_damaged(model->versions[j]->model->engine))
                drop_damaged(repository, model, model->versions[j]);
    }
    show(repository, false);
}

/* ---- looking ---- */

static bool is_served(const struct repository_model *model)
{
    for (size_t i = 0; i < model->count; i++)
        if (model->versions[i]->model)
            return true;
    return false;
}

static int check_empty(const struct repository *repository, enum repository_look why,
                       struct error *err)
{
    bool served = false;
    for (size_t i = 0; i < repository->count; i++)
        served |= is_served(repository->models[i]);
    if (!served && (why != LOOK_START || repository->options.may_be_empty))
        return 0;
    return scan_no_models(repository->options.directory, err);
}

/* A fault is told again when somebody asks, else once. */
static void tell_fault(struct repository_model *model, enum repository_look why)
{
    if (!model->fault || (why == LOOK_POLL && !model->changed))
        return;
    model->failures++;
    log_message(LOG_ERROR, "model_failed", "%s: %s", model->name, model->fault);
}

int repository_look(struct repository *repository, enum repository_look why, struct error *err)
{
    int found = scan_repository(repository, why != LOOK_POLL, err);
    if (found < 0 || (found == 0 && check_empty(repository, why, err) != 0))
        return -1;
    for (size_t i = 0; i < repository->count; i++) {
        tell_fault(repository->models[i], why);
        mark_loading(repository->models[i], why);
    }
    show(repository, false);
    for (size_t i = 0; i < repository->count && !is_stopping(repository); i++) {
        update(repository, repository->models[i], why);
        show(repository, false);
    }
    bool completed = !repository->complete && !is_stopping(repository);
    repository->complete |= completed;
    show(repository, forget_unknown(repository) | completed);
    return 0;
}

int repository_check(const struct repository *repository, struct error *err)
{
    for (size_t i = 0; i < repository->count; i++) {
        const struct repository_model *model = repository->models[i];
        if (model->fault && repository_wants(repository, model))
            return error_set(err, ERROR_INVALID, "%s: %s", model->name, model->fault);
        for (size_t j = 0; j < model->count; j++)
            if (model->versions[j]->failed)
                return error_set(err, ERROR_INVALID, "%s", model->versions[j]->reason);
    }
    return 0;
}

/* ---- by name ---- */

/* Who asks is told whether to mend the model, as by Triton, or to ask again. */
static enum error_code code_of_failure(enum error_code cause)
{
    return is_the_machine(cause) ? cause : ERROR_INVALID;
}

int repository_load(struct repository *repository, const char *name, struct error *err)
{
    struct repository_model *model = scan_model(repository, name, err);
    if (!model)
        return -1;
    tell_fault(model, LOOK_ASKED);
    mark_loading(model, LOOK_ASKED);
    show(repository, true);
    update(repository, model, LOOK_ASKED);
    show(repository, false);
    if (model->fault)
        return error_set(err, code_of_failure(model->fault_code), "failed to load '%s': %s", name,
                         model->fault);
    if (is_stopping(repository))
        return error_set(err, ERROR_UNAVAILABLE, "the server is stopping");
    for (size_t i = 0; i < model->count; i++)
        if (model->versions[i]->failed)
            return error_set(err, code_of_failure(model->versions[i]->cause),
                             "failed to load '%s' version %s: %s", name, model->versions[i]->text,
                             model->versions[i]->reason);
    return 0;
}

int repository_unload(struct repository *repository, const char *name, struct error *err)
{
    for (size_t i = 0; i < repository->count; i++) {
        struct repository_model *model = repository->models[i];
        if (strcmp(model->name, name) != 0)
            continue;
        model->wanted = false;
        for (size_t j = 0; j < model->count; j++) {
            struct repository_version *version = model->versions[j];
            version->selected = version->failed = false;
            if (version->model)
                unload(repository, version);
            else if (version->state == MODEL_UNAVAILABLE)
                set_state(version, MODEL_UNAVAILABLE, "unloaded");
        }
        show(repository, true);
        return 0;
    }
    return error_set(err, ERROR_NOT_FOUND, "there is no model '%.128s' in the repository", name);
}

/* ---- life ---- */

void repository_want(struct repository *repository, const char *name)
{
    scan_model_of(repository, name)->wanted = true;
}

void repository_init(struct repository *repository, const struct repository_options *options)
{
    *repository = (struct repository){.options = *options};
}

void repository_close(struct repository *repository)
{
    for (size_t i = 0; i < repository->replaced_count; i++)
        model_release(repository->replaced[i]);
    free(repository->replaced);
    for (size_t i = 0; i < repository->count; i++) {
        struct repository_model *model = repository->models[i];
        for (size_t j = 0; j < model->count; j++) {
            if (model->versions[j]->leaving)
                keep_stats(repository, model->versions[j]);
            model_release(model->versions[j]->model);
            model_release(model->versions[j]->leaving);
            free_version(model->versions[j]);
        }
        free_model(model);
    }
    free(repository->models);
}
