/* Reads the cases of golden/cases, whose files golden/generate.py describes. */
#ifndef GOLDEN_H
#define GOLDEN_H

#include <unistd.h>

#include "core/moed.h"
#include "support.h"

/* One gate's decisions and their sums. */
struct golden_gate {
    const struct moed_gate_info *info;
    int32_t *expert; /* [items, top_k] */
    float *weight;   /* [items, top_k] */
    double *sums;    /* [sum_count]: as in the file */
    size_t items, sum_count;
    uint64_t dropped;
};

/* The outputs and routing that the reference expects, or those of a run; rows are in the order of
 * the input files. */
struct result {
    float **output;            /* [output_count]: [rows, elements] */
    struct golden_gate *gates; /* [gate_count] */
};

struct golden {
    const char *name;
    struct moed_model *model;
    const struct moed_model_info *info;
    size_t rows;
    void **input;         /* [input_count]: [rows, elements] */
    size_t *request_rows; /* [request_count] */
    size_t request_count;
    bool limited; /* a row depends on its request; otherwise every row is a request */
    struct result expected;
};

static char cases_directory[] = MOED_TEST_DATA "/golden/cases";

static void *read_whole(const char *name, const char *file, size_t *bytes)
{
    char path[PATH_MAX];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s/%s", cases_directory, name, file);
    FILE *stream = fopen(path, "rb");
    ck_assert_msg(stream && fstat(fileno(stream), &status) == 0, "%s: cannot open", path);
    *bytes = (size_t)status.st_size;
    void *memory = xmalloc(*bytes + 1);
    ck_assert_msg(fread(memory, 1, *bytes, stream) == *bytes, "%s: cannot read", path);
    fclose(stream);
    return memory;
}

static void *read_exactly(const char *name, const char *file, size_t expected)
{
    size_t bytes;
    void *memory = read_whole(name, file, &bytes);
    ck_assert_msg(bytes == expected, "%s/%s: %zu bytes, expected %zu", name, file, bytes, expected);
    return memory;
}

static void *read_routing(const char *name, const char *gate, const char *what, size_t expected)
{
    char file[NAME_MAX];
    snprintf(file, sizeof file, "routing.%s.%s", gate, what);
    return read_exactly(name, file, expected);
}

/* input.f32, or input.<name>.f32 if there are several. */
static const char *file_of(const char *kind, const struct moed_tensor_info *tensor, size_t count)
{
    static char file[NAME_MAX];
    snprintf(file, sizeof file, "%s%s%s.f32", kind, count > 1 ? "." : "",
             count > 1 ? tensor->name : "");
    return file;
}

static struct golden_gate read_gate(const struct golden *golden, const struct moed_gate_info *info)
{
    const char *name = golden->name, *gate = info->name;
    const size_t items = golden->rows * info->items_per_row, pairs = items * info->top_k;
    const size_t sums = 4 * info->experts + 1;
    struct golden_gate expected = {
        .info = info,
        .expert = read_routing(name, gate, "experts.i32", pairs * sizeof(int32_t)),
        .weight = read_routing(name, gate, "weights.f32", pairs * sizeof(float)),
        .sums = read_routing(name, gate, "sums.f64", sums * sizeof(double)),
        .items = items,
        .sum_count = sums,
    };
    /* Of the items that were routed, which padding is not: every one has a first choice. */
    double dropped = 0;
    for (size_t e = 0; e < info->experts; e++)
        dropped += expected.sums[info->experts + e] * (double)info->top_k - expected.sums[e];
    expected.dropped = (uint64_t)dropped;
    return expected;
}

static struct result read_expected(const struct golden *golden)
{
    const struct moed_model_info *info = golden->info;
    struct result result = {.output = xcalloc(info->output_count, sizeof *result.output),
                            .gates = xcalloc(info->gate_count + 1, sizeof *result.gates)};
    for (size_t i = 0; i < info->output_count; i++)
        result.output[i] =
            read_exactly(golden->name, file_of("output", &info->outputs[i], info->output_count),
                         golden->rows * info->outputs[i].elements * sizeof(float));
    for (size_t i = 0; i < info->gate_count; i++)
        result.gates[i] = read_gate(golden, &info->gates[i]);
    return result;
}

static bool has_file(const char *name, const char *file)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s/%s", cases_directory, name, file);
    return access(path, F_OK) == 0;
}

static void read_requests(struct golden *golden)
{
    size_t bytes, rows = 0;
    golden->limited = has_file(golden->name, "requests.i32");
    int32_t *stored = golden->limited ? read_whole(golden->name, "requests.i32", &bytes) : NULL;
    golden->request_count = stored ? bytes / sizeof *stored : golden->rows;
    golden->request_rows = xcalloc(golden->request_count, sizeof *golden->request_rows);
    for (size_t i = 0; i < golden->request_count; i++)
        rows += golden->request_rows[i] = stored ? (size_t)stored[i] : 1;
    ck_assert_uint_eq(rows, golden->rows);
    free(stored);
}

/* Files hold only f32; the engine takes categories as integers. */
static void make_integers(void *numbers, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float number;
        memcpy(&number, (float *)numbers + i, sizeof number);
        memcpy((int32_t *)numbers + i, &(int32_t){(int32_t)number}, sizeof(int32_t));
    }
}

static void read_inputs(struct golden *golden)
{
    const struct moed_model_info *info = golden->info;
    size_t bytes;
    golden->input = xcalloc(info->input_count, sizeof *golden->input);
    for (size_t i = 0; i < info->input_count; i++) {
        const char *file = file_of("input", &info->inputs[i], info->input_count);
        const size_t row_bytes = info->inputs[i].elements * sizeof(float);
        golden->input[i] = read_whole(golden->name, file, &bytes);
        golden->rows = i ? golden->rows : bytes / row_bytes;
        ck_assert_msg(bytes == golden->rows * row_bytes, "%s/%s: %zu bytes", golden->name, file,
                      bytes);
        if (info->inputs[i].categories)
            make_integers(golden->input[i], bytes / sizeof(float));
    }
}

static struct golden load_case(const char *name)
{
    char path[PATH_MAX];
    struct error err = ERROR_INIT;
    snprintf(path, sizeof path, "%s/%s", cases_directory, name);
    struct golden golden = {.name = name, .model = moed_model_load(path, NULL, &err)};
    ck_assert_msg(golden.model != NULL, "%s", err.text);
    golden.info = moed_model_info(golden.model);
    read_inputs(&golden);
    read_requests(&golden);
    golden.expected = read_expected(&golden);
    return golden;
}

static inline struct result new_result(const struct golden *golden)
{
    const struct moed_model_info *info = golden->info;
    struct result result = {.output = xcalloc(info->output_count, sizeof *result.output),
                            .gates = xcalloc(info->gate_count + 1, sizeof *result.gates)};
    for (size_t i = 0; i < info->output_count; i++)
        result.output[i] = xcalloc(golden->rows * info->outputs[i].elements, sizeof(float));
    for (size_t i = 0; i < info->gate_count; i++) {
        const struct golden_gate *expected = &golden->expected.gates[i];
        const size_t pairs = expected->items * expected->info->top_k;
        result.gates[i] = *expected;
        result.gates[i].expert = xcalloc(pairs, sizeof(int32_t));
        result.gates[i].weight = xcalloc(pairs, sizeof(float));
        result.gates[i].sums = xcalloc(expected->sum_count, sizeof(double));
        result.gates[i].dropped = 0;
    }
    return result;
}

static void free_all(void **each, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(each[i]);
    free(each);
}

static void free_result(const struct golden *golden, struct result *result)
{
    for (size_t i = 0; i < golden->info->gate_count; i++) {
        free(result->gates[i].expert);
        free(result->gates[i].weight);
        free(result->gates[i].sums);
    }
    free(result->gates);
    free_all((void **)result->output, golden->info->output_count);
}

static void free_case(struct golden *golden)
{
    free_result(golden, &golden->expected);
    free_all(golden->input, golden->info->input_count);
    free(golden->request_rows);
    moed_model_free(golden->model);
}

#endif
