/* The commands: each returns 0, -1 with an error, or EXIT_USAGE with an error. What they write to
 * standard output is flushed and checked by main(). */
#ifndef MOECTL_RUN_H
#define MOECTL_RUN_H

#include <jansson.h>

#include "clients/c/moectl/settings.h"

enum { EXIT_USAGE = 2 };

int run_models(const struct settings *settings, struct moed_client_error *err);
int run_routing(const struct settings *settings, struct moed_client_error *err);
int run_generate(const struct settings *settings, struct moed_client_error *err);
int run_predict(const struct settings *settings, struct moed_client_error *err);
int run_ablate(const struct settings *settings, struct moed_client_error *err);
int run_bench(const struct settings *settings, struct moed_client_error *err);
int run_top(const struct settings *settings, struct moed_client_error *err);
int run_report(const struct settings *settings, struct moed_client_error *err);
int run_merge(const struct settings *settings, struct moed_client_error *err);
int run_export(const struct settings *settings, struct moed_client_error *err);
int run_help(const struct settings *settings, struct moed_client_error *err);

/* A handle as the settings say; the caller frees. */
MUST_CHECK struct moed_client *connect_client(const struct settings *settings,
                                              struct moed_client_error *err);

/* The same, whose calls end when `cancelled` says so. */
MUST_CHECK struct moed_client *connect_with(const struct settings *settings,
                                            bool (*cancelled)(void *context), void *context,
                                            struct moed_client_error *err);

/* The names of what is served: a list of strings, from the repository's index, which the role
 * metrics may read. The caller decrefs. */
MUST_CHECK json_t *fetch_names(struct moed_client *client, struct moed_client_error *err);

#endif
