/* The model repository; see registry.h. */
#include "server/registry.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "server/log.h"

static int by_name_and_version(const void *a, const void *b)
{
    const struct served *x = *(struct served *const *)a, *y = *(struct served *const *)b;
    int order = strcmp(x->name, y->name);
    if (order == 0)
        order = x->version_number < y->version_number ? -1 : x->version_number > y->version_number;
    return order;
}

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

/* Names appear in paths, labels and logs. */
static bool is_model_name(const char *name)
{
    const char *allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
    return strlen(name) <= MAX_MODEL_NAME && name[strspn(name, allowed)] == '\0';
}

static int add(struct registry *registry, const char *path, const char *name, const char *version,
               const struct served_options *options, struct error *err)
{
    struct served *served = served_new(path, name, version, options, err);
    if (!served)
        return -1;
    registry->items = xrealloc(registry->items, (registry->count + 1) * sizeof(struct served *));
    registry->items[registry->count++] = served;
    log_message(LOG_INFO, "model_loaded", "%s version %s: %llu parameters", name, version,
                (unsigned long long)served->info->parameters);
    return 0;
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

struct scan {
    struct registry *registry;
    const struct served_options *options;
    const char *model;
};

static int scan_version(const char *path, const char *name, void *context, struct error *err)
{
    struct scan *scan = context;
    if (!is_version(name))
        return 0;
    return add(scan->registry, path, scan->model, name, scan->options, err);
}

static int scan_model(const char *path, const char *name, void *context, struct error *err)
{
    struct scan *scan = context;
    if (!is_model_name(name))
        return error_set(err, ERROR_INVALID,
                         "%s: a model's name is at most %d letters, digits, '_', '-' or '.'", path,
                         MAX_MODEL_NAME);
    if (is_checkpoint(path))
        return add(scan->registry, path, name, "1", scan->options, err);
    const size_t before = scan->registry->count;
    scan->model = name;
    if (each_directory(path, scan_version, scan, err) != 0)
        return -1;
    if (scan->registry->count == before)
        return error_set(err, ERROR_INVALID,
                         "%s: neither config.json nor a version directory (1, 2, ...) in it", path);
    return 0;
}

int registry_init(struct registry *registry, const char *directory,
                  const struct served_options *options, struct error *err)
{
    struct scan scan = {.registry = registry, .options = options};
    *registry = (struct registry){0};
    int result = each_directory(directory, scan_model, &scan, err);
    if (result == 0 && registry->count == 0)
        result = error_set(err, ERROR_INVALID,
                           "%s: no models; expected NAME/config.json or "
                           "NAME/VERSION/config.json",
                           directory);
    if (result != 0) {
        registry_close(registry);
        return -1;
    }
    qsort(registry->items, registry->count, sizeof *registry->items, by_name_and_version);
    return 0;
}

int registry_share(struct registry *registry, const struct registry *first,
                   const struct served_options *options, struct error *err)
{
    *registry = (struct registry){.items = xcalloc(first->count, sizeof(struct served *))};
    for (; registry->count < first->count; registry->count++) {
        struct served *served = served_share(first->items[registry->count], options, err);
        if (!served) {
            registry_close(registry);
            return -1;
        }
        registry->items[registry->count] = served;
    }
    return 0;
}

void registry_close(struct registry *registry)
{
    for (size_t i = 0; i < registry->count; i++)
        served_free(registry->items[i]);
    free(registry->items);
    *registry = (struct registry){0};
}

size_t registry_index(const struct registry *registry, const struct served *served)
{
    size_t index = 0;
    while (registry->items[index] != served)
        index++;
    return index;
}

void registry_versions(const struct registry *registry, const struct served *served, size_t *first,
                       size_t *last)
{
    *first = 0;
    while (strcmp(registry->items[*first]->name, served->name) != 0)
        ++*first;
    *last = *first;
    while (*last < registry->count && strcmp(registry->items[*last]->name, served->name) == 0)
        ++*last;
}

struct served *registry_find(const struct registry *registry, const char *name, const char *version,
                             struct error *err)
{
    struct served *latest = NULL;
    for (size_t i = 0; i < registry->count; i++) {
        struct served *served = registry->items[i];
        if (strcmp(served->name, name) != 0)
            continue;
        if (version && strcmp(served->version, version) == 0)
            return served;
        latest = served;
    }
    if (latest && !version)
        return latest;
    if (latest)
        error_set(err, ERROR_NOT_FOUND, "model '%s' has no version '%.40s'; the latest is %s", name,
                  version, latest->version);
    else
        error_set(err, ERROR_NOT_FOUND, "unknown model '%.128s'; GET /v1/models lists the models",
                  name);
    return NULL;
}
