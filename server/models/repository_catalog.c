/* What is known of a repository, as a catalog that others may see. */
#include <stdio.h>
#include <string.h>

#include "core/memory.h"
#include "server/models/repository.h"

static void add_status(struct catalog *catalog, struct model_status status)
{
    catalog->statuses =
        xrealloc(catalog->statuses, (catalog->status_count + 1) * sizeof *catalog->statuses);
    status.name = xstrdup(status.name);
    status.version = xstrdup(status.version);
    status.reason = xstrdup(status.reason);
    catalog->statuses[catalog->status_count++] = status;
}

static void add_label(struct catalog_label **labels, size_t *count, const char *name,
                      const char *label, uint64_t version)
{
    char number[24];
    snprintf(number, sizeof number, "%llu", (unsigned long long)version);
    *labels = xrealloc(*labels, (*count + 1) * sizeof **labels);
    (*labels)[(*count)++] = (struct catalog_label){xstrdup(name), xstrdup(label), xstrdup(number)};
}

/* Why it is not served, where loading it has not been tried. */
static const char *reason_of(const struct repository *repository,
                             const struct repository_model *model,
                             const struct repository_version *version)
{
    if (version->state != MODEL_UNAVAILABLE || *version->reason || !version->found)
        return version->reason;
    if (!repository_wants(repository, model))
        return "nobody has asked for it";
    return version->selected ? "new: it is loaded once a poll finds it unchanged"
                             : "left out by the version policy";
}

static void show_model(const struct repository *repository, const struct repository_model *model,
                       struct catalog *catalog)
{
    const struct serving *serving = &model->serving;
    if (model->fault)
        add_status(catalog, (struct model_status){.name = model->name,
                                                  .version = (char[]){""},
                                                  .reason = model->fault,
                                                  .failed = repository_wants(repository, model),
                                                  .failures = model->failures});
    for (size_t i = 0; i < model->count; i++) {
        struct repository_version *version = model->versions[i];
        if (repository_knows(version))
            add_status(catalog, (struct model_status){
                                    .name = model->name,
                                    .version = version->text,
                                    .version_number = version->number,
                                    .state = version->state,
                                    .reason = (char *)reason_of(repository, model, version),
                                    .failed = version->failed,
                                    .failures = version->failures});
    }
    for (size_t i = 0; i < serving->label_count; i++)
        add_label(&catalog->labels, &catalog->label_count, model->name, serving->labels[i].label,
                  serving->labels[i].version);
    if (serving->default_version)
        add_label(&catalog->pinned, &catalog->pinned_count, model->name, "",
                  serving->default_version);
}

static struct model **held_models(const struct repository *repository, size_t *count)
{
    struct model **models = NULL;
    *count = 0;
    for (size_t i = 0; i < repository->count; i++)
        for (size_t j = 0; j < repository->models[i]->count; j++) {
            struct model *model = repository->models[i]->versions[j]->model;
            if (!model)
                continue;
            models = xrealloc(models, (*count + 1) * sizeof(struct model *));
            models[(*count)++] = model_hold(model);
        }
    return models;
}

struct catalog *repository_catalog(const struct repository *repository)
{
    size_t count;
    struct model **models = held_models(repository, &count);
    struct catalog *catalog = catalog_new(models, count);
    for (size_t i = 0; i < repository->count; i++)
        show_model(repository, repository->models[i], catalog);
    catalog_sort_labels(catalog);
    catalog->complete = repository->complete;
    return catalog;
}
