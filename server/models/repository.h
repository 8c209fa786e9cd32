/* The model repository: a directory of checkpoint directories, <name>/config.json, served as
 * version 1, or <name>/<version>/config.json for any number of positive integer versions; with an
 * optional <name>/serving.json (proto/serving.h). What is known of each model and version, and its
 * loading and unloading. One thread uses a repository; what others may see of it is a catalog.
 *
 * What is no model is passed over: names that begin with a dot or hold other characters than a
 * model's name may, directories without a checkpoint, versions that are not there completely. A
 * checkpoint that cannot be served is known with the reason, and harms no other. */
#ifndef SERVER_REPOSITORY_H
#define SERVER_REPOSITORY_H

#include "server/models/repository_state.h"

/* Why the repository is looked at. */
enum repository_look {
    LOOK_START,
    LOOK_ASKED, /* what failed is tried again, what is passed over is told again */
    LOOK_POLL   /* what has changed is loaded, once it is the same at two looks, and what failed for
                   want of memory, descriptors or a disk, at growing distances */
};

void repository_init(struct repository *repository, const struct repository_options *options);

/* Before the first look: asks for a model. */
void repository_want(struct repository *repository, const char *name);

/* Lets go of all models. */
void repository_close(struct repository *repository);

/* Loads what is new or has changed and is to be served, unloads what is gone. A failure of a model
 * is told in the log and known from then on; what was served of it is served on. -1 with an error
 * when the directory cannot be read, or is empty while models are served: nothing is changed then.
 */
MUST_CHECK int repository_look(struct repository *repository, enum repository_look why,
                               struct error *err);

/* The first failure that is known. 0, or -1 with an error. */
MUST_CHECK int repository_check(const struct repository *repository, struct error *err);

/* Wants the model from now on, looks at its directory, loads what has changed. -1 with an error
 * when any version to be served could not be. */
MUST_CHECK int repository_load(struct repository *repository, const char *name, struct error *err);

/* Wants it no more. -1 with an error when it is not known. */
MUST_CHECK int repository_unload(struct repository *repository, const char *name,
                                 struct error *err);

/* Unloads models whose files were truncated while they were served. They are loaded again when
 * somebody asks for a look, or when a poll finds the files changed. */
void repository_drop_damaged(struct repository *repository);

/* Frees models that are served no more and used by nobody. Whether some are still used. */
bool repository_reap(struct repository *repository);

/* What is known now. The caller holds it. */
struct catalog *repository_catalog(const struct repository *repository);

#endif
