/* Directories are sorted into models, versions, and what is neither. Nothing is loaded here. */
#include "server/models/repository_scan.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/hash.h"
#include "core/memory.h"
#include "core/moed.h"
#include "core/text.h"
#include "server/log.h"
#include "server/models/model_parts.h"
#include "server/models/serving_file.h"

/* ---- one directory ---- */

static void pass_over(bool tell, const char *path, const char *reason)
{
    if (tell)
        log_message(LOG_INFO, "passed_over", "%s: %s", path, reason);
}

/* Whether `path`, of which readdir() says the type, is a directory, or why it is none. One that
 * cannot be looked at now may be: a model that is served must not be taken for gone. */
static bool is_directory(const char *path, unsigned char type, bool tell)
{
    struct stat status;
    if (stat(path, &status) == 0)
        return S_ISDIR(status.st_mode);
    if (!model_is_absent(errno) && type != DT_REG)
        return true;
    pass_over(tell, path, strerror(errno));
    return false;
}

/* Calls `each` for every directory in `path` that is not hidden, in order of names. */
static int each_directory(const char *path, bool tell,
                          void (*each)(const char *path, const char *name, void *context),
                          void *context, struct error *err)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0)
        return error_set(err, error_of_errno(errno), "%s: cannot read the directory: %s", path,
                         strerror(errno));
    for (int i = 0; i < count; i++) {
        char child[PATH_MAX];
        const char *name = entries[i]->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 ||
            snprintf(child, sizeof child, "%s/%s", path, name) >= (int)sizeof child)
            ;
        else if (name[0] == '.')
            pass_over(tell, child, "names that begin with a dot are no models");
        else if (is_directory(child, entries[i]->d_type, tell))
            each(child, name, context);
        free(entries[i]);
    }
    free(entries);
    return 0;
}

/* ---- serving.json ---- */

/* Of what serving.json says about the names of versions: no version is loaded again for it, but it
 * must be shown. */
static uint64_t names_of(const struct serving *serving)
{
    uint64_t sum = serving->default_version;
    for (size_t i = 0; i < serving->label_count; i++) {
        const struct serving_label *label = &serving->labels[i];
        sum = hash_bytes(sum, label->label, strlen(label->label));
        sum = hash_bytes(sum, &label->version, sizeof label->version);
    }
    return sum;
}

/* A change of a limit is a change of the model, which has it for life. */
static uint64_t fingerprint_of(const char *path, const struct serving *serving)
{
    uint64_t sum = model_fingerprint(path) ^ serving->warm_up_rows;
    sum = hash_bytes(sum, &serving->limits, sizeof serving->limits);
    return sum ? sum : 1;
}

/* ---- one model ---- */

static struct repository_model *find_model(const struct repository *repository, const char *name)
{
    for (size_t i = 0; i < repository->count; i++)
        if (strcmp(repository->models[i]->name, name) == 0)
            return repository->models[i];
    return NULL;
}

struct repository_model *scan_model_of(struct repository *repository, const char *name)
{
    struct repository_model *model = find_model(repository, name);
    if (model)
        return model;
    size_t at = repository->count;
    repository->models = xrealloc(repository->models, (at + 1) * sizeof(struct repository_model *));
    for (; at > 0 && strcmp(repository->models[at - 1]->name, name) > 0; at--)
        repository->models[at] = repository->models[at - 1];
    model = repository->models[at] = xcalloc(1, sizeof *model);
    model->name = xstrdup(name);
    model->changed = true;
    serving_init(&model->serving);
    repository->count++;
    return model;
}

/* Found or made, in its place. */
static struct repository_version *version_of(struct repository_model *model, uint64_t number)
{
    size_t at = 0;
    while (at < model->count && model->versions[at]->number < number)
        at++;
    if (at < model->count && model->versions[at]->number == number)
        return model->versions[at];
    model->versions =
        xrealloc(model->versions, (model->count + 1) * sizeof(struct repository_version *));
    memmove(&model->versions[at + 1], &model->versions[at],
            (model->count - at) * sizeof(struct repository_version *));
    struct repository_version *version = model->versions[at] = xcalloc(1, sizeof *version);
    model->count++;
    model->changed = true;
    version->number = number;
    version->reason = xstrdup("");
    snprintf(version->text, sizeof version->text, "%llu", (unsigned long long)number);
    return version;
}

static void add_version(struct repository_model *model, const char *path, const char *number)
{
    struct repository_version *version = version_of(model, strtoull(number, NULL, 10));
    free(version->path);
    version->path = xstrdup(path);
    version->found = fingerprint_of(path, &model->serving);
    version->settled = version->found == version->seen;
    version->seen = version->found;
}

/* What a model's directory holds. */
struct inside {
    struct repository_model *model; /* NULL: is only looked at */
    bool tell;
    bool complete;       /* a version is */
    char half[PATH_MAX]; /* a version that is not complete; "": none */
    struct error unseen; /* a version that cannot be looked at now */
};

static void look_at_version(const char *path, const char *name, void *context)
{
    struct inside *inside = context;
    const char *lack = model_lacks(path);
    if (!serving_is_version(name)) {
        if (!lack)
            pass_over(inside->tell, path,
                      "a version is a number such as 1 or 12, without leading zeros");
        return;
    }
    if (lack && model_can_be_seen(path, &inside->unseen) != 0)
        return;
    if (lack) {
        pass_over(inside->tell, path, lack);
        snprintf(inside->half, sizeof inside->half, "%s: %s", path, lack);
        return;
    }
    inside->complete = true;
    if (inside->model)
        add_version(inside->model, path, name);
}

static void set_fault(struct repository_model *model, const struct error *err)
{
    model->fault = xstrdup(err->text);
    model->fault_code = err->code;
    model->changed |= !model->told || strcmp(model->told, err->text) != 0;
}

static bool is_specific(const struct serving *serving, uint64_t number)
{
    for (size_t i = 0; i < serving->specific_count; i++)
        if (serving->specific[i] == number)
            return true;
    return false;
}

/* The version policy, over the versions that are there. */
static void select_versions(const struct repository *repository, struct repository_model *model)
{
    const struct serving *serving = &model->serving;
    bool wanted = model->found && (model->wanted || !repository->options.by_name);
    for (size_t i = 0; wanted && i < serving->specific_count; i++)
        (void)version_of(model, serving->specific[i]); /* is known, even where it is not there */
    uint64_t left = serving->latest ? serving->latest : UINT64_MAX;
    for (size_t i = model->count; i-- > 0;) {
        struct repository_version *version = model->versions[i];
        bool there = version->found != 0;
        version->selected = wanted && (serving->specific ? is_specific(serving, version->number)
                                                         : there && left > 0);
        left -= there && left > 0;
        version->failed &= version->selected;
    }
}

static void forget_versions(struct repository_model *model)
{
    for (size_t i = 0; i < model->count; i++) {
        model->versions[i]->found = 0;
        model->versions[i]->selected = false;
    }
    free(model->told);
    model->told = model->fault;
    model->fault = NULL;
    model->found = false;
}

/* Whether it holds a checkpoint, or half of one; NULL, or why not. What may not be read is a model
 * if it is called like one, and else the system's: a new volume has a lost+found of root's. */
static const char *no_model(const char *path, const char *name)
{
    struct inside inside = {.tell = false};
    if (model_has_file(path, "config.json"))
        return NULL;
    if (each_directory(path, false, look_at_version, &inside, NULL) != 0)
        return name_is_valid(name, MAX_MODEL_NAME) ? NULL
                                                   : "it cannot be read, and no model is called so";
    return inside.complete || inside.half[0] || inside.unseen.code != ERROR_NONE
               ? NULL
               : "neither config.json nor a version directory (1, 2, ...) in it";
}

/* Fills a model whose versions are forgotten. */
static void scan_inside(struct repository_model *model, const char *path, bool tell)
{
    struct error err = ERROR_INIT;
    struct inside inside = {.model = model, .tell = tell};
    bool flat = model_has_file(path, "config.json");
    const uint64_t names = names_of(&model->serving);
    model->found = true;
    if (model_name_check(model->name, &err) != 0)
        error_prefix(&err, "%s", path);
    else if (serving_read(&model->serving, path, &err) == 0 &&
             each_directory(path, tell, look_at_version, &inside, &err) == 0) {
        if (inside.unseen.code != ERROR_NONE)
            err = inside.unseen;
        else if (flat && inside.complete)
            error_set(&err, ERROR_INVALID,
                      "%s: config.json beside version directories: expected one or the other",
                      path);
        else if (flat && model_lacks(path))
            error_set(&err, ERROR_INVALID, "%s: %s", path, model_lacks(path));
        else if (flat)
            add_version(model, path, "1");
        else if (!inside.complete && inside.half[0])
            error_set(&err, ERROR_INVALID, "%.400s", inside.half);
        else if (!inside.complete)
            error_set(&err, ERROR_INVALID,
                      "%s: neither config.json nor a version directory (1, 2, ...) in it", path);
    }
    model->changed |= names_of(&model->serving) != names;
    if (err.code != ERROR_NONE)
        set_fault(model, &err);
}

struct scan {
    struct repository *repository;
    bool tell;
    int count;
};

static void scan_directory(const char *path, const char *name, void *context)
{
    struct scan *scan = context;
    const char *reason = find_model(scan->repository, name) ? NULL : no_model(path, name);
    if (reason) {
        pass_over(scan->tell, path, reason);
        return;
    }
    struct repository_model *model = scan_model_of(scan->repository, name);
    model->wanted |= scan->repository->options.want_all && !scan->repository->complete;
    scan_inside(model, path, scan->tell);
    scan->count++;
}

int scan_repository(struct repository *repository, bool tell, struct error *err)
{
    struct scan scan = {.repository = repository, .tell = tell};
    for (size_t i = 0; i < repository->count; i++)
        forget_versions(repository->models[i]);
    if (each_directory(repository->options.directory, tell, scan_directory, &scan, err) != 0)
        return -1;
    for (size_t i = 0; i < repository->count; i++) {
        struct repository_model *model = repository->models[i];
        struct error absent = {ERROR_NOT_FOUND,
                               "it was asked for, and there is no such model in the repository"};
        if (model->wanted && !model->found)
            set_fault(model, &absent);
        model->changed |= model->told && !model->fault;
        select_versions(repository, model);
    }
    return scan.count;
}

int scan_no_models(const char *directory, struct error *err)
{
    if (model_has_file(directory, "config.json"))
        return error_set(err, ERROR_INVALID,
                         "%s is itself a model: expected the directory above it, whose directories "
                         "are models",
                         directory);
    return error_set(err, ERROR_INVALID,
                     "%s: no models; expected NAME/config.json or NAME/VERSION/config.json",
                     directory);
}

struct repository_model *scan_model(struct repository *repository, const char *name,
                                    struct error *err)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/%s", repository->options.directory, name);
    if (!name_is_valid(name, MAX_MODEL_NAME) || *name == '.' || !*name ||
        length >= (int)sizeof path || !is_directory(path, DT_UNKNOWN, false) ||
        (!find_model(repository, name) && no_model(path, name))) {
        error_set(err, ERROR_NOT_FOUND, "there is no model '%.128s' in the repository", name);
        return NULL;
    }
    struct repository_model *model = scan_model_of(repository, name);
    forget_versions(model);
    model->wanted = true;
    scan_inside(model, path, true);
    select_versions(repository, model);
    return model;
}
