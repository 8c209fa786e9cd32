/* What statistics add to the steps of a language model, in one process:
 *
 *   bench_sequence CHECKPOINT ROUNDS
 *
 * Three sessions go through the same tokens, one row a step, as one that generates does: one keeps
 * distributions and counts as the server does, one keeps them and counts nothing, one keeps and
 * counts nothing. They take turns every BLOCK steps. For each round a line with the nanoseconds of
 * a step of each, of the CPU time. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "core/moed.h"
#include "server/statistics/stats.h"

enum { BLOCK = 64, BLOCKS = 6, STEPS = BLOCK * BLOCKS, SIDES = 3 };

struct side {
    struct moed_scratch *scratch;
    struct moed_session *session;
    double seconds;
    bool counts;
};

struct run {
    const struct moed_model *model;
    const struct moed_model_info *info;
    struct moed_pages *pages;
    struct stats stats;
    float *logits;
    uint64_t now; /* for statistics: a server has read the clock to know what a step took */
    struct side sides[SIDES];
};

static void fail(const char *what)
{
    fprintf(stderr, "bench_sequence: %s\n", what);
    exit(EXIT_FAILURE);
}

/* As server/compute/sequences_step.c does after a step of one generated row. */
static void add_statistics(struct run *run, const struct side *side)
{
    const struct moed_routing *routing[run->info->gate_count + 1]; /* no array of 0 */
    for (size_t i = 0; i < run->info->gate_count; i++)
        routing[i] = moed_routing(side->scratch, i);
    const struct tally_batch batch = {.rows = 1, .routing = routing, .at = run->now};
    struct step_span span = {.end = 1, .tag = TAG_NONE};
    stats_add_step(&run->stats, &batch, &(struct step_counts){1e-4, 0, 0, &span, 1});
    stats_add_token(&run->stats, false, 1e-4);
}

static void step(struct run *run, const struct side *side, size_t position)
{
    const int32_t token = (int32_t)(position * 37 % 1000);
    const void *const inputs[] = {&token};
    float *const outputs[] = {run->logits};
    const struct moed_span span = {.rows = 1, .position = position, .session = side->session};
    moed_forward(run->model, side->scratch, NULL,
                 &(struct moed_batch){&span, 1, inputs, outputs, NULL});
    if (side->counts)
        add_statistics(run, side);
}

static void block(struct run *run, struct side *side, size_t first)
{
    const double begin = bench_seconds();
    run->now = stats_now();
    for (size_t position = first; position < first + BLOCK; position++)
        step(run, side, position);
    side->seconds += bench_seconds() - begin;
}

static void round_of(struct run *run, size_t number)
{
    for (size_t i = 0; i < SIDES; i++) {
        moed_session_truncate(run->sides[i].session, 0);
        if (moed_session_reserve(run->sides[i].session, STEPS) != 0)
            fail("no room for the sequences");
        run->sides[i].seconds = 0;
    }
    for (size_t i = 0; i < BLOCKS; i++)
        for (size_t turn = 0; turn < SIDES; turn++)
            block(run, &run->sides[(number + i + turn) % SIDES], i * BLOCK);
    for (size_t i = 0; i < SIDES; i++)
        printf("%.1f%c", run->sides[i].seconds * 1e9 / STEPS, i + 1 < SIDES ? ' ' : '\n');
}

static void init_side(struct run *run, struct side *side, bool keeps, bool counts)
{
    struct error err = ERROR_INIT;
    const struct moed_scratch_options options = {1, 1, .distributions = keeps};
    side->counts = counts;
    side->scratch = moed_scratch_new(run->model, &options, &err);
    if (!side->scratch)
        fail(err.text);
    side->session = moed_session_new(run->pages);
}

int main(int argc, char *argv[])
{
    struct error err = ERROR_INIT;
    struct run run;
    if (argc != 3)
        fail("usage: bench_sequence CHECKPOINT ROUNDS");
    struct moed_model *model = moed_model_load(argv[1], NULL, &err);
    if (!model)
        fail(err.text);
    run.model = model;
    run.info = moed_model_info(model);
    if (!run.info->sequence)
        fail("this is no language model");
    run.pages = moed_pages_new(model, &(struct moed_room){.positions = 2 * SIDES * STEPS}, &err);
    if (!run.pages)
        fail(err.text);
    run.logits = bench_memory(run.info->outputs[0].elements * sizeof *run.logits);
    stats_init(&run.stats, run.info, 1);
    stats_need_details(&run.stats, run.info, 0);
    init_side(&run, &run.sides[0], true, true);
    init_side(&run, &run.sides[1], true, false);
    init_side(&run, &run.sides[2], false, false);
    for (size_t i = 0, rounds = (size_t)atol(argv[2]); i < rounds; i++)
        round_of(&run, i);
    return EXIT_SUCCESS; /* the system frees the rest */
}
