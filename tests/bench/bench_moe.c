/* The MoE layer through the engine's public face, driven by bench_moe.py:
 *
 *   bench_moe CHECKPOINT INPUTS OUTPUTS
 *
 * INPUTS holds rows of floats. Every line "ROWS" on standard input times forwards of that many rows,
 * each call taking the next rows of INPUTS (the same row again and again would keep its experts in the
 * cache), and answers with nanoseconds per call. OUTPUTS gets the model's answer to all rows, for the
 * driver to check. */
#include <stdio.h>
#include <stdlib.h>

#include "bench.h"
#include "core/gemm.h"
#include "core/moed.h"

struct run {
    const struct moed_model *model;
    struct moed_scratch *scratch;
    size_t total, rows, next; /* rows of INPUTS, of a call, where the next call begins */
    size_t in, out;           /* floats per row */
    float *x, *y;
};

static void forward(void *context)
{
    struct run *run = context;
    if (run->next + run->rows > run->total)
        run->next = 0;
    const float *const inputs[] = {run->x + run->next * run->in};
    float *const outputs[] = {run->y + run->next * run->out};
    moed_forward(run->model, run->scratch, NULL, run->rows, inputs, outputs);
    run->next += run->rows;
}

static int read_inputs(struct run *run, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0)
        return -1;
    run->total = (size_t)ftell(file) / (run->in * sizeof *run->x);
    rewind(file);
    run->x = bench_memory(run->total * run->in * sizeof *run->x);
    run->y = bench_memory(run->total * run->out * sizeof *run->y);
    const size_t got = fread(run->x, run->in * sizeof *run->x, run->total, file);
    fclose(file);
    return got == run->total ? 0 : -1;
}

static int write_outputs(struct run *run, const char *path)
{
    FILE *file = fopen(path, "wb");
    if (!file)
        return -1;
    run->rows = run->total;
    forward(run);
    const size_t put = fwrite(run->y, run->out * sizeof *run->y, run->total, file);
    return fclose(file) == 0 && put == run->total ? 0 : -1;
}

static int fail(const char *what)
{
    fprintf(stderr, "bench_moe: %s\n", what);
    return EXIT_FAILURE;
}

int main(int argc, char *argv[])
{
    if (argc != 4)
        return fail("usage: bench_moe CHECKPOINT INPUTS OUTPUTS");
    struct error err = ERROR_INIT;
    struct moed_model *model = moed_model_load(argv[1], &err);
    if (!model)
        return fail(err.text);
    const struct moed_model_info *info = moed_model_info(model);
    struct run run = {
        .model = model, .in = info->inputs[0].elements, .out = info->outputs[0].elements};
    if (read_inputs(&run, argv[2]) != 0)
        return fail("cannot read the inputs");
    run.scratch = moed_scratch_new(model, run.total, 1, &err);
    if (!run.scratch)
        return fail(err.text);
    if (write_outputs(&run, argv[3]) != 0)
        return fail("cannot write the outputs");
    printf("%s\n", moed_kernel_name());
    fflush(stdout);
    while (scanf("%zu", &run.rows) == 1 && run.rows > 0 && run.rows <= run.total) {
        run.next = 0;
        printf("%.0f\n", bench_time(forward, &run) * 1e9);
        fflush(stdout);
    }
    moed_scratch_free(run.scratch);
    moed_model_free(model);
    free(run.x);
    free(run.y);
    return EXIT_SUCCESS;
}
