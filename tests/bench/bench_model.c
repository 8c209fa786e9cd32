/* A model through the engine's public face, and, where it is one that they know, the same by oneDNN
 * and by OpenBLAS; driven by bench_model.py:
 *
 *   bench_model CHECKPOINT INPUTS OUTPUTS
 *
 * INPUTS holds rows of floats, OUTPUTS gets the model's answer to all of them, for the driver to
 * check; those of the others are checked against it here. Every line "CONTENDER ROWS" on standard
 * input times forwards of that many rows, each call taking the next rows of INPUTS (the same row
 * again and again would keep its experts in the cache), and answers with nanoseconds per call.
 *
 * As in the server, every forward's decisions are counted; contender "uncounted" keeps no
 * distributions and counts nothing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "core/moed.h"
#include "openblas_conv.h"
#include "server/statistics/stats.h"
#ifdef BENCH_DNNL
#include "onednn_model.h"
#endif

/* Relative to outputs of about one. */
static const float TOLERANCE = 1e-4f;

struct run {
    const struct moed_model *model;
    const struct moed_model_info *info;
    struct moed_scratch *counted, *uncounted; /* with and without distributions */
    bool counts;                              /* which of them the next calls use */
    struct stats stats;
    size_t total, rows, next;         /* rows of INPUTS, of a call, where the next call begins */
    size_t in, out;                   /* floats per row */
    float *x, *y, *timed_y, *rival_y; /* y: of all rows, to check by */
    struct openblas_conv *openblas;   /* NULL: no convolution without groups */
#ifdef BENCH_DNNL
    struct onednn_model *onednn; /* NULL: not a model that it knows */
#endif
};

static void fail(const char *what)
{
    fprintf(stderr, "bench_model: %s\n", what);
    exit(EXIT_FAILURE);
}

/* The first row of this call. */
static size_t advance(struct run *run)
{
    if (run->next + run->rows > run->total)
        run->next = 0;
    run->next += run->rows;
    return run->next - run->rows;
}

/* A row of a model without gates is no prediction that is counted. */
static size_t classes_of(const struct run *run)
{
    return run->info->gate_count > 0 && run->out <= 1000 ? run->out : 0;
}

static void add_statistics(struct run *run)
{
    const struct moed_routing *routing[run->info->gate_count + 1]; /* no array of 0 */
    for (size_t i = 0; i < run->info->gate_count; i++)
        routing[i] = moed_routing(run->counted, i);
    stats_add_batch(&run->stats, run->rows, 0);
    const struct tally_batch batch = {.rows = run->rows,
                                      .routing = routing,
                                      .at = stats_now(),
                                      .scores = run->timed_y,
                                      .classes = classes_of(run)};
    stats_count(&run->stats, TAG_NONE, &batch, 0, run->rows);
}

static void forward(void *context)
{
    struct run *run = context;
    const size_t row = advance(run);
    const void *const inputs[] = {run->x + row * run->in};
    float *const outputs[] = {run->timed_y};
    const struct moed_span span = {.rows = run->rows};
    moed_forward(run->model, run->counts ? run->counted : run->uncounted, NULL,
                 &(struct moed_batch){&span, 1, inputs, outputs, NULL});
    if (run->counts)
        add_statistics(run);
}

/* If two experts tie, each side may pick its own. More than one such row in a thousand is a mistake
 * of the named contender. */
static void check(const struct run *run, const char *contender)
{
    size_t wrong = 0;
    for (size_t row = 0; row < run->total; row++) {
        float most = 0;
        for (size_t i = row * run->out; i < (row + 1) * run->out; i++)
            most = fmaxf(most, fabsf(run->y[i] - run->rival_y[i]));
        wrong += !(most <= TOLERANCE);
    }
    if (wrong > run->total / 1000)
        fail(contender);
}

static void forward_openblas(void *context)
{
    struct run *run = context;
    const size_t row = advance(run);
    openblas_conv_forward(run->openblas, run->rows, run->x + row * run->in, run->rival_y);
}

#ifdef BENCH_DNNL
static void forward_onednn(void *context)
{
    struct run *run = context;
    const size_t row = advance(run);
    onednn_model_run(run->onednn, run->rows, run->x + row * run->in, run->rival_y);
}

/* Runs all of INPUTS once, which builds what is built on first use, and checks the results. */
static void prepare_onednn(struct run *run)
{
    if (!onednn_model_size(run->onednn, run->rows))
        return;
    for (size_t row = 0; row + run->rows <= run->total; row += run->rows)
        onednn_model_forward(run->onednn, run->rows, run->x + row * run->in,
                             run->rival_y + row * run->out);
    check(run, "oneDNN's answers differ from ours");
}
#endif

/* Nanoseconds per forward pass of run->rows rows; 0 if the contender cannot run this model. */
static double measure(struct run *run, const char *contender)
{
    run->next = 0;
    run->counts = strcmp(contender, "uncounted") != 0;
    if (strcmp(contender, "moed") == 0 || !run->counts)
        return bench_time(forward, run) * 1e9;
    if (strcmp(contender, "OpenBLAS") == 0 && run->openblas) {
        openblas_conv_forward(run->openblas, run->total, run->x, run->rival_y);
        check(run, "OpenBLAS' answers differ from ours");
        return bench_time(forward_openblas, run) * 1e9;
    }
#ifdef BENCH_DNNL
    if (strcmp(contender, "oneDNN") == 0 && run->onednn) {
        prepare_onednn(run);
        return bench_time(forward_onednn, run) * 1e9;
    }
#endif
    return 0;
}

static void read_inputs(struct run *run, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        fail("cannot open the inputs");
    run->total = (size_t)ftell(file) / (run->in * sizeof *run->x);
    rewind(file);
    run->x = bench_memory(run->total * run->in * sizeof *run->x);
    run->y = bench_memory(run->total * run->out * sizeof *run->y);
    run->timed_y = bench_memory(run->total * run->out * sizeof *run->timed_y);
    const size_t got = fread(run->x, run->in * sizeof *run->x, run->total, file);
    fclose(file);
    if (got != run->total)
        fail("cannot read the inputs");
}

static void write_outputs(struct run *run, const char *path)
{
    FILE *file = fopen(path, "wb");
    run->rows = run->total;
    forward(run);
    memcpy(run->y, run->timed_y, run->total * run->out * sizeof *run->y);
    if (!file || fwrite(run->y, run->out * sizeof *run->y, run->total, file) != run->total ||
        fclose(file) != 0)
        fail("cannot write the outputs");
}

static struct moed_scratch *new_scratch(const struct moed_model *model, size_t rows, bool counted)
{
    struct error err = ERROR_INIT;
    const struct moed_scratch_options options = {rows, 1, .distributions = counted};
    struct moed_scratch *scratch = moed_scratch_new(model, &options, &err);
    if (!scratch)
        fail(err.text);
    return scratch;
}

int main(int argc, char *argv[])
{
    if (argc != 4)
        fail("usage: bench_model CHECKPOINT INPUTS OUTPUTS");
    struct error err = ERROR_INIT;
    struct moed_model *model = moed_model_load(argv[1], NULL, &err);
    if (!model)
        fail(err.text);
    const struct moed_model_info *info = moed_model_info(model);
    struct run run = {.model = model,
                      .info = info,
                      .counts = true,
                      .in = info->inputs[0].elements,
                      .out = info->outputs[0].elements};
    char contender[16];
    read_inputs(&run, argv[2]);
    run.counted = new_scratch(model, run.total, true);
    run.uncounted = new_scratch(model, run.total, false);
    stats_init(&run.stats, info, 1);
    stats_need_details(&run.stats, info, classes_of(&run));
    write_outputs(&run, argv[3]);
    struct safetensors *weights = safetensors_open(argv[1], false, &err);
    struct conv_steps steps;
    if (!weights)
        fail(err.text);
    run.rival_y = bench_memory(run.total * run.out * sizeof *run.rival_y);
    if (conv_read_steps(argv[1], weights, &steps))
        run.openblas = openblas_conv_new(info, weights, &steps);
#ifdef BENCH_DNNL
    run.onednn = onednn_model_open(argv[1], info, run.total);
#endif
    printf("%s\n", moed_kernel_name());
    fflush(stdout);
    while (scanf("%15s %zu", contender, &run.rows) == 2 && run.rows > 0 && run.rows <= run.total) {
        printf("%.0f\n", measure(&run, contender));
        fflush(stdout);
    }
    return EXIT_SUCCESS; /* the system frees the rest */
}
