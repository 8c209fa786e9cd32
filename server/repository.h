/* The model repository: a directory of checkpoint directories, <name>/config.json, served as
 * version 1, or <name>/<version>/config.json for any number of positive integer versions. A request
 * that names no version gets the highest. Names that begin with a dot are passed over. */
#ifndef SERVER_REPOSITORY_H
#define SERVER_REPOSITORY_H

#include "server/catalog.h"

/* Longest model name: it becomes a metric label and part of every log line. */
enum { MAX_MODEL_NAME = 128 };

/* Loads everything below `directory`. All or nothing: a checkpoint that cannot be served fails the
 * start, where an operator sees it, rather than the first request. NULL with an error. */
MUST_CHECK struct catalog *repository_load(const char *directory,
                                           const struct model_options *options, struct error *err);

/* What is below `directory` now. A model whose files have not changed is the same as before; one
 * that cannot be loaded is logged, and served as before if it was. Ends early, with NULL and no
 * error, once `stopping` is true; NULL with an error when the directory cannot be read. */
MUST_CHECK struct catalog *repository_reload(const char *directory,
                                             const struct model_options *options,
                                             const struct catalog *before,
                                             const atomic_bool *stopping, struct error *err);

#endif
