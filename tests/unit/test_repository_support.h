/* A repository in a directory of its own, whose models multiply by a number that tells them apart.
 */
#ifndef TEST_REPOSITORY_SUPPORT_H
#define TEST_REPOSITORY_SUPPORT_H

#include "repository_fixture.h"
#include "server/log.h"
#include "support.h"

static char *directory;
static struct repository kept;
static struct catalog *catalog;
static struct error err;

static inline void begin(void)
{
    log_set_level(LOG_ERROR);
    directory = new_directory();
    kept = (struct repository){0};
    catalog = NULL;
    err = (struct error)ERROR_INIT;
}

static inline void end(void)
{
    catalog_release(catalog);
    repository_close(&kept);
    free(directory);
}

static inline void make_directory(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    ck_assert_int_eq(mkdir(path, 0700), 0);
}

/* Writes a model that multiplies by `factor`, which distinguishes versions. */
static inline void put_model(const char *name, int factor)
{
    char path[PATH_MAX], layers[64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    snprintf(layers, sizeof layers, "[{'op':'scale','value':%d}]", factor);
    char *config = config_of("[1]", layers);
    write_checkpoint(path, config, NO_TENSORS);
    free(config);
}

static inline int try_open(size_t max_batch_rows)
{
    const struct model_options options = {
        .loops = 1, .max_batch_rows = max_batch_rows, .threads = 1};
    catalog = load_repository(directory, &options, &err);
    return catalog ? 0 : -1;
}

/* The same, and goes on with it: look(). */
static inline void open_and_keep(const struct repository_options *more)
{
    struct repository_options options = *more;
    options.directory = directory;
    options.models = (struct model_options){
        .loops = 1, .max_batch_rows = 4, .threads = 1, .quarantine = more->models.quarantine};
    repository_init(&kept, &options);
    ck_assert_int_eq(repository_look(&kept, LOOK_START, &err), 0);
    catalog = repository_catalog(&kept);
}

static inline void show(void)
{
    catalog_release(catalog);
    catalog = repository_catalog(&kept);
}

static inline void look(enum repository_look why)
{
    ck_assert_msg(repository_look(&kept, why, &err) == 0, "%s", err.text);
    show();
}

static inline const struct model_status *status_of(const char *name, const char *version)
{
    for (size_t i = 0; i < catalog->status_count; i++)
        if (strcmp(catalog->statuses[i].name, name) == 0 &&
            strcmp(catalog->statuses[i].version, version) == 0)
            return &catalog->statuses[i];
    return NULL;
}

static inline void expect_state(const char *name, const char *version, enum model_state state,
                                const char *reason)
{
    const struct model_status *status = status_of(name, version);
    ck_assert_msg(status != NULL, "%s %s is not known", name, version);
    ck_assert_str_eq(model_state_word(status->state), model_state_word(state));
    if (*reason)
        expect_text(status->reason, reason);
    else
        ck_assert_str_eq(status->reason, "");
}

static inline void remove_model(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    nftw(path, support_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static inline void open_repository(void)
{
    ck_assert_msg(try_open(4) == 0, "%s", err.text);
}

static inline void expect_open_fails(const char *part)
{
    ck_assert_int_eq(try_open(4), -1);
    expect_text(err.text, part);
}

static inline int factor_of(const char *name, const char *version)
{
    const struct model *model = catalog_find(catalog, name, version, NULL);
    ck_assert_ptr_nonnull(model);
    const float x = 1;
    float y;
    run_forward(model->engine, 1, 1, &x, &y);
    return (int)y;
}

static inline void write_in(const char *name, const char *file, const char *text)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    write_json(path, file, text);
}

#endif
