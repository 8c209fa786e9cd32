/* What is in the repository's directory: private to repository*.c. */
#ifndef SERVER_REPOSITORY_SCAN_H
#define SERVER_REPOSITORY_SCAN_H

#include "server/models/repository_state.h"

/* Looks at all directories: marks what is there and what is to be served. `tell`: what is passed
 * over is told in the log. Returns how many models there are; -1 with an error when the directory
 * cannot be read. */
MUST_CHECK int scan_repository(struct repository *repository, bool tell, struct error *err);

/* The same of one model. NULL with an error when there is none of that name. */
MUST_CHECK struct repository_model *scan_model(struct repository *repository, const char *name,
                                               struct error *err);

/* The error of a repository without models. Returns -1. */
int scan_no_models(const char *directory, struct error *err);

/* What is known of a name, found or made, in its place. */
struct repository_model *scan_model_of(struct repository *repository, const char *name);

#endif
