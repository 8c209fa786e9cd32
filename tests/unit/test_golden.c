/* Compares the engine with the reference: every case of golden/cases, on every kernel of this
 * machine, in every way to run a batch.
 *
 * golden/reference.py computed the expected numbers in float64; golden/generate.py describes the
 * files. Each case runs with all rows at once, in pairs, one by one and reversed, on one thread and
 * on teams. Every run must be close to the reference, and all runs must give a row the same bits:
 * an answer does not depend on the other rows of the batch. If experts have a capacity, a row does
 * depend on the rows of its own request; such batches consist of whole requests. */
#include <dirent.h>
#include <sys/wait.h>

#include "core/dense/gemm.h"
#include "core/dense/team.h"
#include "core/gate_counts.h"
#include "golden.h"

/* Float32 sums of a few hundred terms of size 1 are this close to float64. */
static const double TOLERANCE = 1e-5;

/* One way to run a case. */
struct plan {
    const char *name;
    size_t batch; /* requests at a time; 0: all */
    bool reversed;
    unsigned threads; /* 0: no team */
    bool apart;       /* as separate requests, even if it does not matter */
};

static const struct plan PLANS[] = {
    {"all rows", 0, false, 0, false},
    {"all rows, reversed", 0, true, 0, true},
    {"pairs of rows", 2, false, 0, false},
    {"one row at a time", 1, false, 0, false},
    {"all rows, team of 2", 0, false, 2, true},
    {"all rows, reversed, team of 3", 0, true, 3, false},
    {"threes of rows, team of 2", 3, false, 2, true},
    {"one row at a time, team of 3", 1, false, 3, false},
};

/* OpenBLAS sums one row in a different order than several (core/dense/kernel_openblas.c). */
static bool rows_are_independent(void)
{
    return strcmp(moed_kernel_name(), "openblas") != 0;
}

/* ---- running one ---- */

/* Some requests of a case, run in one batch. */
struct batch {
    const struct moed_span *requests; /* [request_count] */
    size_t request_count;
    const size_t *order; /* [rows] the case's row that each of the batch's rows is */
    size_t rows;
    bool apart;
};

/* Copies one batch's routing to its rows, and adds its counts. */
static void keep_routing(const struct moed_routing *routing, const struct batch *batch,
                         struct golden_gate *gate)
{
    const size_t k = routing->top_k, experts = routing->experts;
    const size_t per_row = gate->info->items_per_row, pairs = per_row * k;
    ck_assert_uint_eq(k, gate->info->top_k);
    ck_assert_uint_eq(experts, gate->info->experts);
    ck_assert_uint_eq(routing->items, batch->rows * per_row);
    for (size_t row = 0; row < batch->rows; row++) {
        const size_t to = batch->order[row] * pairs, from = row * pairs;
        memcpy(gate->expert + to, routing->expert + from, pairs * sizeof(int32_t));
        memcpy(gate->weight + to, routing->weight + from, pairs * sizeof(float));
    }
    struct moed_gate_counts *counts = moed_gate_counts_new(experts);
    moed_gate_counts_count(counts, routing, 0, routing->items, 1);
    for (size_t e = 0; e < experts; e++) {
        gate->sums[e] += (double)counts->expert[e].selected;
        gate->dropped += counts->expert[e].dropped;
        gate->sums[experts + e] += (double)counts->expert[e].top1;
        gate->sums[2 * experts + e] += moed_sum_value(counts->expert[e].weight);
        gate->sums[3 * experts + e] += moed_sum_value(counts->expert[e].probability);
    }
    gate->sums[4 * experts] += moed_sum_value(counts->entropy);
    moed_gate_counts_free(counts);
}

/* Buffers have exactly the required size, so that the address sanitizer detects every overrun. */
static void **gather(const struct golden *golden, const struct batch *batch)
{
    const struct moed_model_info *info = golden->info;
    void **inputs = xcalloc(info->input_count, sizeof *inputs);
    for (size_t i = 0; i < info->input_count; i++) {
        const size_t width = info->inputs[i].elements * MOED_ELEMENT_BYTES;
        const char *from = golden->input[i];
        char *to = inputs[i] = xmalloc(batch->rows * width);
        for (size_t row = 0; row < batch->rows; row++)
            memcpy(to + row * width, from + batch->order[row] * width, width);
    }
    return inputs;
}

static float **new_outputs(const struct golden *golden, size_t rows)
{
    const struct moed_model_info *info = golden->info;
    float **outputs = xcalloc(info->output_count, sizeof *outputs);
    for (size_t i = 0; i < info->output_count; i++) {
        const size_t bytes = rows * info->outputs[i].elements * sizeof(float);
        outputs[i] = memset(xmalloc(bytes), 0xff, bytes); /* NaN, so that unwritten numbers show */
    }
    return outputs;
}

static void keep_outputs(const struct golden *golden, const struct batch *batch,
                         float *const outputs[], struct result *result)
{
    for (size_t i = 0; i < golden->info->output_count; i++) {
        const size_t width = golden->info->outputs[i].elements;
        for (size_t row = 0; row < batch->rows; row++)
            memcpy(result->output[i] + batch->order[row] * width, outputs[i] + row * width,
                   width * sizeof(float));
    }
}

static void run_batch(const struct golden *golden, struct moed_scratch *scratch,
                      struct moed_team *team, const struct batch *batch, struct result *result)
{
    void **inputs = gather(golden, batch);
    float **outputs = new_outputs(golden, batch->rows);
    const struct moed_span together = {.rows = batch->rows};
    const struct moed_batch spans = {.spans = batch->apart ? batch->requests : &together,
                                     .span_count = batch->apart ? batch->request_count : 1,
                                     .inputs = (const void *const *)inputs,
                                     .outputs = outputs};
    moed_forward(golden->model, scratch, team, &spans);
    keep_outputs(golden, batch, outputs, result);
    for (size_t i = 0; i < golden->info->gate_count; i++)
        keep_routing(moed_routing(scratch, i), batch, &result->gates[i]);
    free_all(inputs, golden->info->input_count);
    free_all((void **)outputs, golden->info->output_count);
}

/* All requests of a case in the order of a plan, with their rows. */
struct schedule {
    struct moed_span *requests; /* [request_count] */
    size_t *order;              /* [rows] */
};

static struct schedule make_schedule(const struct golden *golden, bool reversed)
{
    const size_t requests = golden->request_count;
    struct schedule schedule = {xcalloc(requests, sizeof *schedule.requests),
                                xcalloc(golden->rows, sizeof(size_t))};
    size_t begin = 0;
    for (size_t i = 0; i < requests; i++) {
        const size_t rows = golden->request_rows[i];
        const size_t first = reversed ? golden->rows - begin - rows : begin;
        schedule.requests[reversed ? requests - 1 - i : i].rows = rows;
        for (size_t row = 0; row < rows; row++)
            schedule.order[first + row] = begin + row;
        begin += rows;
    }
    return schedule;
}

static void run_batches(const struct golden *golden, const struct plan *plan,
                        struct moed_scratch *scratch, struct moed_team *team, struct result *result)
{
    const struct schedule schedule = make_schedule(golden, plan->reversed);
    const size_t requests = golden->request_count, most = plan->batch ? plan->batch : requests;
    size_t row = 0;
    for (size_t i = 0; i < requests; i += most) {
        struct batch batch = {schedule.requests + i, requests - i < most ? requests - i : most,
                              schedule.order + row, 0, false};
        for (size_t j = 0; j < batch.request_count; j++)
            batch.rows += batch.requests[j].rows;
        batch.apart = plan->apart || (golden->limited && batch.request_count > 1);
        run_batch(golden, scratch, team, &batch, result);
        row += batch.rows;
    }
    free(schedule.requests);
    free(schedule.order);
}

/* An upper bound on the rows of a batch of `requests` requests. */
static size_t most_rows(const struct golden *golden, size_t requests)
{
    size_t longest = 0;
    for (size_t i = 0; i < golden->request_count; i++)
        longest = golden->request_rows[i] > longest ? golden->request_rows[i] : longest;
    return requests && requests * longest < golden->rows ? requests * longest : golden->rows;
}

static struct result run_plan(const struct golden *golden, const struct plan *plan)
{
    struct error err = ERROR_INIT;
    const unsigned threads = plan->threads ? plan->threads : 1;
    struct result result = new_result(golden);
    struct moed_team *team = plan->threads ? moed_team_new(threads) : NULL;
    if (team)
        team_fork_from(team, 0);
    struct moed_scratch *scratch =
        new_scratch(golden->model, most_rows(golden, plan->batch), threads, &err);
    ck_assert_msg(scratch != NULL, "%s: %s", golden->name, err.text);
    run_batches(golden, plan, scratch, team, &result);
    moed_scratch_free(scratch);
    moed_team_free(team);
    return result;
}

/* ---- comparing ---- */

/* For messages, what is compared: "gate_top_2, one row at a time: output". */
struct place {
    const struct golden *golden;
    const struct plan *plan;
    const char *gate, *what;
    size_t per_row; /* 0: not by rows */
};

static void fail_at(const struct place *place, size_t i, double got, double expected,
                    const char *why)
{
    const size_t width = place->per_row ? place->per_row : SIZE_MAX;
    ck_abort_msg("%s, %s, kernel %s: %s%s%s row %zu, element %zu is %.9g, %s %.9g",
                 place->golden->name, place->plan->name, moed_kernel_name(), place->gate,
                 *place->gate ? "." : "", place->what, i / width, i % width, got, why, expected);
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

static void check_gate(struct place place, const struct golden_gate *got,
                       const struct golden_gate *expected)
{
    const size_t k = expected->info->top_k, pairs = expected->items * k;
    place.what = "experts";
    place.per_row = expected->info->items_per_row * k;
    check_experts(&place, got->expert, expected->expert, pairs);
    place.what = "weights";
    check_floats(&place, got->weight, expected->weight, pairs);
    place.what = "sums";
    place.per_row = expected->info->experts;
    check_sums(&place, got->sums, expected->sums, expected->sum_count);
    ck_assert_uint_eq(got->dropped, expected->dropped);
    ck_assert(expected->info->limited || expected->dropped == 0);
}

static struct place place_of_output(const struct golden *golden, const struct plan *plan, size_t i)
{
    const struct moed_tensor_info *output = &golden->info->outputs[i];
    return (struct place){golden, plan, "", output->name, output->elements};
}

/* Gates are compared before outputs, so that the first difference is nearest the cause. */
static void check_result(const struct golden *golden, const struct plan *plan,
                         const struct result *got)
{
    for (size_t i = 0; i < golden->info->gate_count; i++)
        check_gate((struct place){golden, plan, golden->info->gates[i].name, "", 0}, &got->gates[i],
                   &golden->expected.gates[i]);
    for (size_t i = 0; i < golden->info->output_count; i++) {
        const struct place place = place_of_output(golden, plan, i);
        check_floats(&place, got->output[i], golden->expected.output[i],
                     golden->rows * place.per_row);
    }
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
    for (size_t i = 0; i < golden->info->gate_count; i++) {
        const struct moed_gate_info *info = &golden->info->gates[i];
        const struct place place = {golden, plan, info->name, "weights",
                                    info->items_per_row * info->top_k};
        check_bits(&place, got->gates[i].weight, first->gates[i].weight,
                   golden->rows * place.per_row);
    }
    for (size_t i = 0; i < golden->info->output_count; i++) {
        const struct place place = place_of_output(golden, plan, i);
        check_bits(&place, got->output[i], first->output[i], golden->rows * place.per_row);
    }
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

/* ---- cases and kernels ---- */

static struct dirent **entries;
static int entry_count;

static int is_case(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static const char *kernels[] = {"generic", "avx2", "avx512", "neon", "openblas"};
static int kernel_count;

/* Whether this machine has the kernel and MOED_KERNEL does not name another. A child process asks,
 * because a process chooses its kernel once. */
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

/* check runs every test in a process of its own, which takes sanitizers longer to begin and to end
 * than a case takes to run. */
enum { CASES_PER_PROCESS = 8 };

/* Loop index: a kernel for every group of cases. */
START_TEST(engine_agrees_with_the_reference)
{
    const char *kernel = kernels[_i % kernel_count];
    setenv("MOED_KERNEL", kernel, 1);
    ck_assert_str_eq(moed_kernel_name(), kernel);
    int first = _i / kernel_count * CASES_PER_PROCESS;
    for (int i = first; i < first + CASES_PER_PROCESS && i < entry_count; i++)
        run_case(entries[i]->d_name);
}
END_TEST

/* Every group is a TCase named after its first case, so that the report of a crash tells where. */
static Suite *new_suite(void)
{
    Suite *suite = suite_create("golden");
    for (int first = 0; first < entry_count; first += CASES_PER_PROCESS) {
        int group = first / CASES_PER_PROCESS;
        TCase *tests = tcase_create(entries[first]->d_name);
        tcase_set_timeout(tests, TEST_SECONDS);
        tcase_add_loop_test(tests, engine_agrees_with_the_reference, group * kernel_count,
                            (group + 1) * kernel_count);
        suite_add_tcase(suite, tests);
    }
    return suite;
}

/* Keeps every n-th case where GOLDEN_EVERY is n: for emulated machines and thread sanitizer,
 * which take minutes for all. Neighbours by name are alike. */
static void thin_out(void)
{
    const char *every = getenv("GOLDEN_EVERY");
    int step = every ? atoi(every) : 1, kept = 0;
    for (int i = 0; i < entry_count; i++) {
        if (step > 1 && i % step != 0)
            free(entries[i]);
        else
            entries[kept++] = entries[i];
    }
    entry_count = kept;
}

int main(void)
{
    entry_count = scandir(cases_directory, &entries, is_case, alphasort);
    thin_out();
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
