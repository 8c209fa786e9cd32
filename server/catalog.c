/* Names are found by hash, whatever their number; versions of one name lie side by side. */
#include "server/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"

static int by_name_and_version(const void *a, const void *b)
{
    const struct model *x = *(struct model *const *)a, *y = *(struct model *const *)b;
    int order = strcmp(x->name, y->name);
    if (order == 0)
        order = x->version_number < y->version_number ? -1 : x->version_number > y->version_number;
    return order;
}

/* FNV-1a, which need not withstand an attacker: names are the operator's. */
static uint64_t hash_of(const char *name)
{
    uint64_t hash = 0xCBF29CE484222325;
    for (; *name; name++)
        hash = (hash ^ (unsigned char)*name) * 0x100000001B3;
    return hash ^ hash >> 32;
}

/* Where the name is, or the free slot where it would be. */
static size_t *slot_of(const struct catalog *catalog, const char *name)
{
    size_t at = hash_of(name) & (catalog->slot_count - 1);
    while (catalog->slots[at] && strcmp(catalog->models[catalog->slots[at] - 1]->name, name) != 0)
        at = (at + 1) & (catalog->slot_count - 1);
    return &catalog->slots[at];
}

struct catalog *catalog_new(struct model **models, size_t count)
{
    struct catalog *catalog = xcalloc(1, sizeof *catalog);
    atomic_init(&catalog->holders, 1);
    catalog->models = models;
    catalog->count = count;
    if (count > 0)
        qsort(models, count, sizeof *models, by_name_and_version);
    for (catalog->slot_count = 2; catalog->slot_count < 2 * count;)
        catalog->slot_count *= 2;
    catalog->slots = xcalloc(catalog->slot_count, sizeof *catalog->slots);
    for (size_t i = 0; i < count; i++) {
        size_t *slot = slot_of(catalog, models[i]->name);
        if (!*slot)
            *slot = i + 1;
    }
    return catalog;
}

struct catalog *catalog_hold(struct catalog *catalog)
{
    atomic_fetch_add_explicit(&catalog->holders, 1, memory_order_relaxed);
    return catalog;
}

void catalog_release(struct catalog *catalog)
{
    if (!catalog || atomic_fetch_sub(&catalog->holders, 1) > 1)
        return;
    for (size_t i = 0; i < catalog->count; i++)
        model_release(catalog->models[i]);
    free(catalog->models);
    free(catalog->slots);
    free(catalog);
}

void catalog_versions(const struct catalog *catalog, const char *name, size_t *first, size_t *last)
{
    const size_t found = *slot_of(catalog, name);
    *first = *last = found ? found - 1 : 0;
    while (found && *last < catalog->count && strcmp(catalog->models[*last]->name, name) == 0)
        ++*last;
}

struct model *catalog_find(const struct catalog *catalog, const char *name, const char *version,
                           struct error *err)
{
    size_t first, last;
    catalog_versions(catalog, name, &first, &last);
    for (size_t i = first; version && i < last; i++)
        if (strcmp(catalog->models[i]->version, version) == 0)
            return catalog->models[i];
    if (first < last && !version)
        return catalog->models[last - 1];
    if (first < last)
        error_set(err, ERROR_NOT_FOUND, "model '%s' has no version '%.40s'; the latest is %s", name,
                  version, catalog->models[last - 1]->version);
    else
        error_set(err, ERROR_NOT_FOUND, "unknown model '%.128s'; GET /v1/models lists the models",
                  name);
    return NULL;
}

bool catalog_has(const struct catalog *catalog, const struct model *model)
{
    return catalog_find(catalog, model->name, model->version, NULL) == model;
}
