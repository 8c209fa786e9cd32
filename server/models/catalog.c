/* Names are found by hash, whatever their number; versions of one name lie side by side. Labels and
 * pinned versions are few, and searched from the front. */
#include "server/models/catalog.h"

#include <stdlib.h>
#include <string.h>

#include "core/hash.h"
#include "core/memory.h"

const char *model_state_word(enum model_state state)
{
    static const char *const WORDS[MODEL_STATES] = {"UNAVAILABLE", "LOADING", "READY", "UNLOADING"};
    return WORDS[state];
}

static int by_name_and_version(const void *a, const void *b)
{
    const struct model *x = *(struct model *const *)a, *y = *(struct model *const *)b;
    int order = strcmp(x->name, y->name);
    if (order == 0)
        order = x->version_number < y->version_number ? -1 : x->version_number > y->version_number;
    return order;
}

/* Where the name is, or the free slot where it would be. */
static size_t *slot_of(const struct catalog *catalog, const char *name)
{
    size_t at = hash_text(name) & (catalog->slot_count - 1);
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

static void free_labels(struct catalog_label *labels, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(labels[i].name);
        free(labels[i].label);
        free(labels[i].version);
    }
    free(labels);
}

static void free_statuses(struct model_status *statuses, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(statuses[i].name);
        free(statuses[i].version);
        free(statuses[i].reason);
    }
    free(statuses);
}

void catalog_release(struct catalog *catalog)
{
    if (!catalog || atomic_fetch_sub(&catalog->holders, 1) > 1)
        return;
    for (size_t i = 0; i < catalog->count; i++)
        model_release(catalog->models[i]);
    free(catalog->models);
    free(catalog->slots);
    free_statuses(catalog->statuses, catalog->status_count);
    free_labels(catalog->labels, catalog->label_count);
    free_labels(catalog->pinned, catalog->pinned_count);
    free(catalog);
}

void catalog_versions(const struct catalog *catalog, const char *name, size_t *first, size_t *last)
{
    size_t found = *slot_of(catalog, name);
    *first = *last = found ? found - 1 : 0;
    while (found && *last < catalog->count && strcmp(catalog->models[*last]->name, name) == 0)
        ++*last;
}

/* ---- finding one ---- */

static int by_name_and_label(const void *left, const void *right)
{
    const struct catalog_label *one = left, *other = right;
    int order = strcmp(one->name, other->name);
    return order ? order : strcmp(one->label, other->label);
}

static void sort_labels(struct catalog_label *labels, size_t count)
{
    if (count > 0)
        qsort(labels, count, sizeof *labels, by_name_and_label);
}

void catalog_sort_labels(struct catalog *catalog)
{
    sort_labels(catalog->labels, catalog->label_count);
    sort_labels(catalog->pinned, catalog->pinned_count);
}

/* The version that a label of the name stands for; NULL: none. */
static const char *labelled(const struct catalog_label *labels, size_t count, const char *name,
                            const char *label)
{
    const struct catalog_label wanted = {.name = (char *)name, .label = (char *)label};
    const struct catalog_label *found =
        count ? bsearch(&wanted, labels, count, sizeof *labels, by_name_and_label) : NULL;
    return found ? found->version : NULL;
}

/* The number behind what a request names; NULL: the highest. */
static const char *number_of(const struct catalog *catalog, const char *name, const char *version)
{
    if (!version)
        return labelled(catalog->pinned, catalog->pinned_count, name, "");
    const char *number = labelled(catalog->labels, catalog->label_count, name, version);
    return number ? number : version;
}

/* Of the version, or if no version is served of the model as a whole; NULL: not known. `version`
 * NULL: the first one that is not served, as the others would have been found. */
static const struct model_status *status_of(const struct catalog *catalog, const char *name,
                                            const char *version, bool none_served)
{
    for (size_t i = 0; i < catalog->status_count; i++) {
        const struct model_status *status = &catalog->statuses[i];
        if (strcmp(status->name, name) == 0 && status->state != MODEL_READY &&
            (!version || (none_served && !*status->version) ||
             strcmp(status->version, version) == 0))
            return status;
    }
    return NULL;
}

/* Why a known version does not answer; -1 with an error, 0 when there is nothing to say of it. */
static int explain(const struct model_status *status, struct error *err)
{
    const char *space = *status->version ? " version " : "";
    if (status->state == MODEL_LOADING)
        return error_set(err, ERROR_UNAVAILABLE, "model '%s'%s%s is being loaded", status->name,
                         space, status->version);
    if (status->state == MODEL_UNAVAILABLE && status->failed)
        return error_set(err, ERROR_UNAVAILABLE,
                         "model '%s'%s%s cannot be served; POST /v2/repository/index says why",
                         status->name, space, status->version);
    return 0;
}

static void not_found(const struct catalog *catalog, const char *name, const char *version,
                      struct error *err)
{
    size_t first, last;
    catalog_versions(catalog, name, &first, &last);
    const struct model_status *status = status_of(catalog, name, version, first == last);
    if (status && explain(status, err) != 0)
        return;
    if (first < last)
        error_set(err, ERROR_NOT_FOUND, "model '%s' has no version '%.40s'; the latest is %s", name,
                  version, catalog->models[last - 1]->version);
    else if (status)
        error_set(err, ERROR_NOT_FOUND, "model '%s' is not loaded", name);
    else if (!catalog->complete)
        error_set(err, ERROR_UNAVAILABLE, "model '%.128s' is not known yet: the server is starting",
                  name);
    else
        error_set(err, ERROR_NOT_FOUND, "unknown model '%.128s'; GET /v1/models lists the models",
                  name);
}

struct model *catalog_find(const struct catalog *catalog, const char *name, const char *version,
                           struct error *err)
{
    size_t first, last;
    const char *number = number_of(catalog, name, version);
    catalog_versions(catalog, name, &first, &last);
    for (size_t i = first; number && i < last; i++)
        if (strcmp(catalog->models[i]->version, number) == 0)
            return catalog->models[i];
    if (first < last && !number)
        return catalog->models[last - 1];
    not_found(catalog, name, number, err);
    return NULL;
}

bool catalog_has(const struct catalog *catalog, const struct model *model)
{
    size_t first, last;
    catalog_versions(catalog, model->name, &first, &last);
    for (size_t i = first; i < last; i++)
        if (catalog->models[i] == model)
            return true;
    return false;
}

bool catalog_is_ready(const struct catalog *catalog)
{
    bool failed = false;
    for (size_t i = 0; i < catalog->status_count; i++)
        failed |= catalog->statuses[i].failed;
    return catalog->complete && (catalog->count > 0 || !failed);
}
