/* The parts of `moectl bench`: what is sent, of models of rows and of language models, and how the
 * result is told. */
#ifndef MOECTL_BENCH_H
#define MOECTL_BENCH_H

#include "clients/c/moectl/load.h"

/* ---- requests of rows ---- */

struct bench_rows {
    struct moed_client_call *calls; /* sent in turn */
    size_t count, rows;             /* rows in each */
};

MUST_CHECK int bench_rows_make(struct bench_rows *work, const struct settings *settings,
                               const struct moed_client_model *model,
                               struct moed_client_error *err);
void bench_rows_close(struct bench_rows *work);
load_send bench_rows_send;

/* ---- prompts ---- */

struct bench_prompts {
    char *head;  /* of every request, up to its prompt */
    char **list; /* given prompts as JSON, sent in turn; NULL: they are made up */
    size_t count;
    uint64_t tokens, max_tokens; /* of each made-up prompt; of each answer at most */
    uint64_t vocabulary, seed;
};

MUST_CHECK int bench_prompts_make(struct bench_prompts *work, const struct settings *settings,
                                  const struct moed_client_model *model,
                                  struct moed_client_error *err);
void bench_prompts_close(struct bench_prompts *work);
load_send bench_prompts_send;

/* ---- the result ---- */

struct bench {
    const char *model;
    const struct load_plan *plan;
    const struct load_result *result;
    const struct bench_rows *rows; /* either one, the other is NULL */
    const struct bench_prompts *prompts;
};

void bench_print(const struct bench *bench);
void bench_print_json(const struct bench *bench);

#endif
