/* The engine against the reference: every case of golden/cases, on every kernel this machine has,
 * in every way a batch can be run.
 *
 * golden/reference.py computed the expected numbers in float64; golden/generate.py describes the
 * files. Each case is run with all rows at once, in pairs, one by one and reversed, alone and on
 * teams of threads. Every run must come near the reference, and all of them must give a row the
 * same bits: what a client receives does not depend on who else is in the batch. */
#include "support.h"

#include <dirent.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/gemm.h"
#include "core/moed.h"

/* float32 sums of a few hundred terms of size 1 come this near to float64. */
static const double TOLERANCE = 1e-5;

struct golden_layer {
    const struct moed_moe_info *info;
    int32_t *expert; /* [rows, top_k] */
    float *weight;   /* [rows, top_k] */
    double *sums;    /* [sum_count]: as in the file */
    size_t sum_count;
};

/* What the reference expects, or what a run gave; rows in the order of input.f32. */
struct result {
    float *output;               /* [rows, out] */
    struct golden_layer *layers; /* [moe_count] */
};

struct golden {
    const char *name;
    struct moed_model *model;
    const struct moed_model_info *info;
    size_t rows, in, out;
    float *input; /* [rows, in] */
    struct result expected;
};

/* One way to run a case. */
struct plan {
    const char *name;
    size_t batch; /* rows at a time; 0: all */
    bool reversed;
    unsigned threads; /* 0: no team */
};

static const struct plan PLANS[] = {
    {"all rows", 0, false, 0},
    {"all rows, reversed", 0, true, 0},
    {"pairs of rows", 2, false, 0},
    {"one row at a time", 1, false, 0},
    {"all rows, team of 2", 0, false, 2},
    {"all rows, reversed, team of 3", 0, true, 3},
    {"threes of rows, team of 2", 3, false, 2},
    {"one row at a time, team of 3", 1, false, 3},
};

/* OpenBLAS sums one row in another order than many (core/kernel_openblas.c). */
static bool rows_are_independent(void)
{
    return strcmp(moed_kernel_name(), "openblas") != 0;
}

/* ---- the cases ---- */

static char cases_directory[] = MOED_TEST_DATA "/golden/cases";
static struct dirent **entries;
static int entry_count;

static int is_case(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

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

static void *read_routing(const char *name, const char *layer, const char *what, size_t expected)
{
    char file[NAME_MAX];
    snprintf(file, sizeof file, "routing.%s.%s", layer, what);
    return read_exactly(name, file, expected);
}

static struct result read_expected(const struct golden *golden)
{
    const struct moed_model_info *info = golden->info;
    struct result result = {.layers = xcalloc(info->moe_count + 1, sizeof *result.layers)};
    result.output =
        read_exactly(golden->name, "output.f32", golden->rows * golden->out * sizeof(float));
    for (size_t i = 0; i < info->moe_count; i++) {
        const struct moed_moe_info *moe = &info->moe[i];
        const size_t pairs = golden->rows * moe->top_k, sums = 4 * moe->experts + 1;
        result.layers[i] = (struct golden_layer){
            .info = moe,
            .expert = read_routing(golden->name, moe->name, "experts.i32", pairs * sizeof(int32_t)),
            .weight = read_routing(golden->name, moe->name, "weights.f32", pairs * sizeof(float)),
            .sums = read_routing(golden->name, moe->name, "sums.f64", sums * sizeof(double)),
            .sum_count = sums,
        };
    }
    return result;
}

static struct golden load_case(const char *name)
{
    char path[PATH_MAX];
    struct error err = ERROR_INIT;
    size_t bytes;
    snprintf(path, sizeof path, "%s/%s", cases_directory, name);
    struct golden golden = {.name = name, .model = moed_model_load(path, &err)};
    ck_assert_msg(golden.model != NULL, "%s", err.text);
    golden.info = moed_model_info(golden.model);
    golden.in = golden.info->inputs[0].elements;
    golden.out = golden.info->outputs[0].elements;
    golden.input = read_whole(name, "input.f32", &bytes);
    golden.rows = bytes / sizeof(float) / golden.in;
    ck_assert_msg(bytes == golden.rows * golden.in * sizeof(float), "%s/input.f32: %zu bytes", name,
                  bytes);
    golden.expected = read_expected(&golden);
    return golden;
}

static struct result new_result(const struct golden *golden)
{
    const size_t layers = golden->info->moe_count;
    struct result result = {.output = xcalloc(golden->rows * golden->out, sizeof(float)),
                            .layers = xcalloc(layers + 1, sizeof *result.layers)};
    for (size_t i = 0; i < layers; i++) {
        const struct golden_layer *expected = &golden->expected.layers[i];
        const size_t pairs = golden->rows * expected->info->top_k;
        result.layers[i] = *expected;
        result.layers[i].expert = xcalloc(pairs, sizeof(int32_t));
        result.layers[i].weight = xcalloc(pairs, sizeof(float));
        result.layers[i].sums = xcalloc(expected->sum_count, sizeof(double));
    }
    return result;
}

static void free_result(const struct golden *golden, struct result *result)
{
    for (size_t i = 0; i < golden->info->moe_count; i++) {
        free(result->layers[i].expert);
        free(result->layers[i].weight);
        free(result->layers[i].sums);
    }
    free(result->layers);
    free(result->output);
}

static void free_case(struct golden *golden)
{
    free_result(golden, &golden->expected);
    free(golden->input);
    moed_model_free(golden->model);
}

/* ---- running one ---- */

/* Copies one batch's routing to the rows it belongs to, and adds up its sums. */
static void keep_routing(const struct moed_routing *routing, const size_t *order,
                         struct golden_layer *layer)
{
    const size_t k = routing->top_k, experts = routing->experts;
    ck_assert_uint_eq(k, layer->info->top_k);
    ck_assert_uint_eq(experts, layer->info->experts);
    for (size_t item = 0; item < routing->items; item++) {
        memcpy(layer->expert + order[item] * k, routing->expert + item * k, k * sizeof(int32_t));
        memcpy(layer->weight + order[item] * k, routing->weight + item * k, k * sizeof(float));
    }
    for (size_t e = 0; e < experts; e++) {
        layer->sums[e] += (double)routing->selected[e];
        layer->sums[experts + e] += (double)routing->top1[e];
        layer->sums[2 * experts + e] += routing->weight_sum[e];
        layer->sums[3 * experts + e] += routing->probability_sum[e];
    }
    layer->sums[4 * experts] += routing->entropy_sum;
}

/* Runs the rows named by `order` as one batch. Buffers are of exactly that size, so that the
 * address sanitizer sees every overrun. */
static void run_batch(const struct golden *golden, struct moed_scratch *scratch,
                      struct moed_team *team, const size_t *order, size_t rows,
                      struct result *result)
{
    const size_t in = golden->in, out = golden->out;
    float *x = xmalloc(rows * in * sizeof *x), *y = xmalloc(rows * out * sizeof *y);
    for (size_t i = 0; i < rows; i++)
        memcpy(x + i * in, golden->input + order[i] * in, in * sizeof *x);
    memset(y, 0xff, rows * out * sizeof *y); /* NaN: what is not written shows */
    moed_forward(golden->model, scratch, team, rows, (const float *const[]){x},
                 (float *const[]){y});
    for (size_t i = 0; i < rows; i++)
        memcpy(result->output + order[i] * out, y + i * out, out * sizeof *y);
    for (size_t i = 0; i < golden->info->moe_count; i++) {
        const struct moed_routing *routing = moed_routing(scratch, i);
        ck_assert_uint_eq(routing->items, rows);
        keep_routing(routing, order, &result->layers[i]);
    }
    free(x);
    free(y);
}

static struct result run_plan(const struct golden *golden, const struct plan *plan)
{
    struct error err = ERROR_INIT;
    const size_t rows = golden->rows,
                 batch = plan->batch && plan->batch < rows ? plan->batch : rows;
    const unsigned threads = plan->threads ? plan->threads : 1;
    struct result result = new_result(golden);
    struct moed_team *team = plan->threads ? moed_team_new(threads) : NULL;
    struct moed_scratch *scratch = moed_scratch_new(golden->model, batch, threads, &err);
    ck_assert_msg(scratch != NULL, "%s: %s", golden->name, err.text);
    size_t *order = xcalloc(rows, sizeof *order);
    for (size_t i = 0; i < rows; i++)
        order[i] = plan->reversed ? rows - 1 - i : i;
    for (size_t row = 0; row < rows; row += batch)
        run_batch(golden, scratch, team, order + row, rows - row < batch ? rows - row : batch,
                  &result);
    free(order);
    moed_scratch_free(scratch);
    moed_team_free(team);
    return result;
}

/* ---- comparing ---- */

/* What is compared, for messages: "gate_top_2, one row at a time: output". */
struct place {
    const struct golden *golden;
    const struct plan *plan;
    const char *layer, *what;
    size_t per_row; /* 0: not by rows */
};

static void fail_at(const struct place *place, size_t i, double got, double expected,
                    const char *why)
{
    const size_t width = place->per_row ? place->per_row : SIZE_MAX;
    ck_abort_msg("%s, %s, kernel %s: %s%s%s row %zu, element %zu is %.9g, %s %.9g",
                 place->golden->name, place->plan->name, moed_kernel_name(), place->layer,
                 *place->layer ? "." : "", place->what, i / width, i % width, got, why, expected);
}

static void check_close(const struct place *place, size_t i, double got, double expected)
{
    if (!(fabs(got - expected) <= TOLERANCE + TOLERANCE * fabs(expected)))
        fail_at(place, i, got, expected, "expected");
}

static void check_floats(const struct place *place, const float *got, const float *expected,
                         size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_close(place, i, (double)got[i], (double)expected[i]);
}

static void check_sums(const struct place *place, const double *got, const double *expected,
                       size_t count)
{
    for (size_t i = 0; i < count; i++)
        check_close(place, i, got[i], expected[i]);
}

static void check_experts(const struct place *place, const int32_t *got, const int32_t *expected,
                          size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (got[i] != expected[i])
            fail_at(place, i, got[i], expected[i], "expected");
}

/* Layers before the output: the first that differs is where to look. */
static void check_result(const struct golden *golden, const struct plan *plan,
                         const struct result *got)
{
    for (size_t i = 0; i < golden->info->moe_count; i++) {
        const struct golden_layer *expected = &golden->expected.layers[i], *layer = &got->layers[i];
        const size_t k = expected->info->top_k, pairs = golden->rows * k;
        struct place place = {golden, plan, expected->info->name, "experts", k};
        check_experts(&place, layer->expert, expected->expert, pairs);
        place.what = "weights";
        check_floats(&place, layer->weight, expected->weight, pairs);
        place.what = "sums";
        place.per_row = expected->info->experts;
        check_sums(&place, layer->sums, expected->sums, expected->sum_count);
    }
    const struct place place = {golden, plan, "", "output", golden->out};
    check_floats(&place, got->output, golden->expected.output, golden->rows * golden->out);
}

static void check_bits(const struct place *place, const float *got, const float *first,
                       size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (memcmp(&got[i], &first[i], sizeof *got) != 0)
            fail_at(place, i, (double)got[i], (double)first[i], "but with all rows at once");
}

static void check_same_bits(const struct golden *golden, const struct plan *plan,
                            const struct result *got, const struct result *first)
{
    for (size_t i = 0; i < golden->info->moe_count; i++) {
        const struct moed_moe_info *moe = golden->expected.layers[i].info;
        const struct place place = {golden, plan, moe->name, "weights", moe->top_k};
        check_bits(&place, got->layers[i].weight, first->layers[i].weight,
                   golden->rows * moe->top_k);
    }
    const struct place place = {golden, plan, "", "output", golden->out};
    check_bits(&place, got->output, first->output, golden->rows * golden->out);
}

static void run_case(const char *name)
{
    struct golden golden = load_case(name);
    struct result first = run_plan(&golden, &PLANS[0]);
    check_result(&golden, &PLANS[0], &first);
    for (size_t i = 1; i < sizeof PLANS / sizeof *PLANS; i++) {
        struct result result = run_plan(&golden, &PLANS[i]);
        check_result(&golden, &PLANS[i], &result);
        if (rows_are_independent())
            check_same_bits(&golden, &PLANS[i], &result, &first);
        free_result(&golden, &result);
    }
    free_result(&golden, &first);
    free_case(&golden);
}

/* ---- the kernels ---- */

static const char *kernels[] = {"generic", "avx2", "avx512", "openblas"};
static int kernel_count;

/* Whether this machine has it, and MOED_KERNEL does not name another. Asked in a process of its
 * own: the kernel is chosen once per process. */
static bool kernel_is_usable(const char *kernel)
{
    int status = -1;
    const pid_t child = fork();
    if (child == 0) {
        setenv("MOED_KERNEL", kernel, 0);
        _exit(strcmp(moed_kernel_name(), kernel) == 0 ? 0 : 1);
    }
    return waitpid(child, &status, 0) == child && status == 0;
}

static void find_kernels(void)
{
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++)
        if (kernel_is_usable(kernels[i]))
            kernels[kernel_count++] = kernels[i];
}

/* check runs every test in a process of its own. */
START_TEST(engine_agrees_with_the_reference)
{
    const char *kernel = kernels[_i % kernel_count];
    setenv("MOED_KERNEL", kernel, 1);
    ck_assert_str_eq(moed_kernel_name(), kernel);
    run_case(entries[_i / kernel_count]->d_name);
}
END_TEST

/* A test case of its own for every case, so that even the report of a crash names it. */
static Suite *new_suite(void)
{
    Suite *suite = suite_create("golden");
    for (int i = 0; i < entry_count; i++) {
        TCase *tests = tcase_create(entries[i]->d_name);
        tcase_set_timeout(tests, 60);
        tcase_add_loop_test(tests, engine_agrees_with_the_reference, i * kernel_count,
                            (i + 1) * kernel_count);
        suite_add_tcase(suite, tests);
    }
    return suite;
}

int main(void)
{
    entry_count = scandir(cases_directory, &entries, is_case, alphasort);
    find_kernels();
    if (entry_count <= 0 || kernel_count == 0) {
        fprintf(stderr, "%s: %d cases for %d kernels\n", cases_directory, entry_count,
                kernel_count);
        return EXIT_FAILURE;
    }
    SRunner *runner = srunner_create(new_suite());
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    for (int i = 0; i < entry_count; i++)
        free(entries[i]);
    free(entries);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
