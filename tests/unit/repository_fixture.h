/* A repository that is looked at once, on the test's own thread. */
#ifndef TEST_REPOSITORY_FIXTURE_H
#define TEST_REPOSITORY_FIXTURE_H

#include "server/models/repository.h"

/* What it holds; the caller releases it. NULL with an error when any of it cannot be served. */
static inline struct catalog *load_repository(const char *directory,
                                              const struct model_options *models, struct error *err)
{
    struct repository repository;
    struct catalog *catalog = NULL;
    const struct repository_options options = {.directory = directory, .models = *models};
    repository_init(&repository, &options);
    if (repository_look(&repository, LOOK_START, err) == 0 &&
        repository_check(&repository, err) == 0)
        catalog = repository_catalog(&repository);
    repository_close(&repository);
    return catalog;
}

#endif
