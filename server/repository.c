/* Directories become models. A start takes all of them or fails; a reload takes what it can. */
#include "server/repository.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/memory.h"
#include "core/text.h"
#include "server/log.h"

struct scan {
    const struct model_options *options;
    const struct catalog *before; /* NULL: the start */
    const atomic_bool *stopping;  /* NULL: it is not asked to stop */
    struct model **models;
    size_t count;
    const char *model; /* whose versions are looked at */
    bool has_version;
};

static bool is_directory(const char *path)
{
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static bool is_checkpoint(const char *path)
{
    char config[PATH_MAX + 16];
    struct stat status;
    snprintf(config, sizeof config, "%s/config.json", path);
    return stat(config, &status) == 0;
}

/* A version is a positive integer as OIP clients write it: digits, no sign, no leading zero. */
static bool is_version(const char *name)
{
    return *name >= '1' && *name <= '9' && strlen(name) <= 18 &&
           name[strspn(name, "0123456789")] == '\0';
}

static bool is_stopping(const struct scan *scan)
{
    return scan->stopping && atomic_load(scan->stopping);
}

static void keep(struct scan *scan, struct model *model)
{
    scan->models = xrealloc(scan->models, (scan->count + 1) * sizeof *scan->models);
    scan->models[scan->count++] = model;
}

/* A fault: the end of a start, a line in the log of a reload. */
static int refuse(const struct scan *scan, struct error *err, const struct error *fault)
{
    if (!scan->before)
        return error_set(err, fault->code, "%s", fault->text);
    log_message(LOG_ERROR, "model_failed", "%s", fault->text);
    return 0;
}

/* A fault of a whole model: what was served of it is served on. */
static int refuse_model(struct scan *scan, const char *name, struct error *err,
                        const struct error *fault)
{
    size_t first = 0, last = 0;
    if (scan->before)
        catalog_versions(scan->before, name, &first, &last);
    for (size_t i = first; i < last; i++)
        keep(scan, model_hold(scan->before->models[i]));
    return refuse(scan, err, fault);
}

static int add(struct scan *scan, const char *path, const char *name, const char *version,
               struct error *err)
{
    struct error fault = ERROR_INIT;
    struct model *old = scan->before ? catalog_find(scan->before, name, version, NULL) : NULL;
    if (is_stopping(scan))
        return -1;
    if (old && old->fingerprint == model_fingerprint(path)) {
        keep(scan, model_hold(old));
        return 0;
    }
    struct model *model = model_load(path, name, version, scan->options, &fault);
    if (model) {
        if (old)
            model_adopt_stats(model, old);
        keep(scan, model);
        log_message(LOG_INFO, "model_loaded", "%s version %s: %llu parameters", name, version,
                    (unsigned long long)model->info->parameters);
        return 0;
    }
    if (old)
        keep(scan, model_hold(old));
    return refuse(scan, err, &fault);
}

/* Calls `each` for every directory in `path` that is not hidden, in order of names. */
static int each_directory(const char *path,
                          int (*each)(const char *path, const char *name, void *context,
                                      struct error *err),
                          void *context, struct error *err)
{
    struct dirent **entries;
    int count = scandir(path, &entries, NULL, alphasort);
    if (count < 0)
        return error_set(err, ERROR_INVALID, "%s: cannot read the directory: %s", path,
                         strerror(errno));
    int result = 0;
    for (int i = 0; i < count; i++) {
        char child[PATH_MAX];
        const char *name = entries[i]->d_name;
        if (result == 0 && name[0] != '.' &&
            snprintf(child, sizeof child, "%s/%s", path, name) < (int)sizeof child &&
            is_directory(child))
            result = each(child, name, context, err);
        free(entries[i]);
    }
    free(entries);
    return result;
}

static int find_version(const char *path, const char *name, void *context, struct error *err)
{
    (void)err;
    bool *found = context;
    *found |= is_version(name) && is_checkpoint(path);
    return 0;
}

static int scan_version(const char *path, const char *name, void *context, struct error *err)
{
    struct scan *scan = context;
    if (!is_version(name)) {
        if (is_checkpoint(path))
            log_message(LOG_WARNING, "version_passed_over",
                        "%s: a version is a number such as 1 or 12, without leading zeros", path);
        return 0;
    }
    scan->has_version = true;
    return add(scan, path, scan->model, name, err);
}

static int scan_model(const char *path, const char *name, void *context, struct error *err)
{
    struct scan *scan = context;
    struct error fault = ERROR_INIT;
    if (!name_is_valid(name, MAX_MODEL_NAME)) {
        error_set(&fault, ERROR_INVALID, "%s: a model's name is at most %d " NAME_ALPHABET, path,
                  MAX_MODEL_NAME);
        return refuse(scan, err, &fault);
    }
    if (is_checkpoint(path)) {
        bool versions = false;
        if (each_directory(path, find_version, &versions, err) != 0)
            return -1;
        if (!versions)
            return add(scan, path, name, "1", err);
        error_set(&fault, ERROR_INVALID,
                  "%s: config.json beside version directories: expected one or the other", path);
        return refuse_model(scan, name, err, &fault);
    }
    scan->model = name;
    scan->has_version = false;
    if (each_directory(path, scan_version, scan, err) != 0)
        return -1;
    if (scan->has_version)
        return 0;
    error_set(&fault, ERROR_INVALID,
              "%s: neither config.json nor a version directory (1, 2, ...) in it", path);
    return refuse_model(scan, name, err, &fault);
}

static struct catalog *scan_all(const char *directory, struct scan *scan, struct error *err)
{
    int result = each_directory(directory, scan_model, scan, err);
    if (result == 0 && scan->count == 0)
        result = error_set(err, ERROR_INVALID,
                           "%s: no models; expected NAME/config.json or "
                           "NAME/VERSION/config.json",
                           directory);
    if (result == 0)
        return catalog_new(scan->models, scan->count);
    for (size_t i = 0; i < scan->count; i++)
        model_release(scan->models[i]);
    free(scan->models);
    return NULL;
}

struct catalog *repository_load(const char *directory, const struct model_options *options,
                                struct error *err)
{
    struct scan scan = {.options = options};
    return scan_all(directory, &scan, err);
}

struct catalog *repository_reload(const char *directory, const struct model_options *options,
                                  const struct catalog *before, const atomic_bool *stopping,
                                  struct error *err)
{
    struct scan scan = {.options = options, .before = before, .stopping = stopping};
    return scan_all(directory, &scan, err);
}
