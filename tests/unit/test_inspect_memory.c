/* What is said of a checkpoint before it is loaded is what it takes when it is. */
#include <dirent.h>
#include <limits.h>
#include <unistd.h>

#include "server/inspect_memory.h"
#include "server/models/serving_file.h"
#include "support.h"

#define DATA MOED_TEST_DATA "/data/"

static struct moed_model *load(const char *directory, enum moed_weights weights,
                               enum moed_activations activations, bool headers_only)
{
    struct error err = ERROR_INIT;
    struct moed_model *model = moed_model_load(
        directory,
        &(struct moed_load_options){
            .weights = weights, .activations = activations, .headers_only = headers_only},
        &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    return model;
}

static uint64_t scratch_bytes(const struct moed_model *model)
{
    struct error err = ERROR_INIT;
    struct moed_scratch *scratch = new_scratch(model, 5, 2, &err);
    ck_assert_msg(scratch != NULL, "%s", err.text);
    const uint64_t bytes = moed_scratch_bytes(scratch);
    moed_scratch_free(scratch);
    return bytes;
}

static void compare(const char *directory, enum moed_weights weights,
                    enum moed_activations activations)
{
    struct moed_model *whole = load(directory, weights, activations, false),
                      *headers = load(directory, weights, activations, true);
    const struct moed_model_info *a = moed_model_info(whole), *b = moed_model_info(headers);
    const uint64_t figures[][2] = {
        {a->weight_bytes, b->weight_bytes},
        {a->mapped_bytes, b->mapped_bytes},
        {a->shared_bytes, b->shared_bytes},
        {a->parameters, b->parameters},
        {a->active_parameters, b->active_parameters},
        {a->macs_per_row, b->macs_per_row},
        {a->scratch_bytes_per_row, b->scratch_bytes_per_row},
        {a->position_bytes, b->position_bytes},
        {scratch_bytes(whole), scratch_bytes(headers)},
    };
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++)
        ck_assert_msg(figures[i][0] == figures[i][1],
                      "%s, weights %d, figure %zu: %llu when loaded, %llu before", directory,
                      (int)weights, i, (unsigned long long)figures[i][0],
                      (unsigned long long)figures[i][1]);
    ck_assert_uint_le(a->mapped_bytes, a->weight_bytes);
    moed_model_free(whole);
    moed_model_free(headers);
}

/* Returns how many there are. */
static int compare_all(const char *parent)
{
    struct dirent **entries;
    int count = scandir(parent, &entries, NULL, alphasort), models = 0;
    ck_assert_int_gt(count, 0);
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX], config[PATH_MAX];
        snprintf(path, sizeof path, "%s%s", parent, entries[i]->d_name);
        if (snprintf(config, sizeof config, "%s/config.json", path) < (int)sizeof config &&
            access(config, F_OK) == 0) {
            for (int form = 0; form < WEIGHT_FORMS; form++)
                compare(path, (enum moed_weights)form, MOED_ACTIVATIONS_INT8);
            compare(path, MOED_WEIGHTS_INT8, MOED_ACTIVATIONS_F32);
            compare(path, MOED_WEIGHTS_STORED, MOED_ACTIVATIONS_BF16);
            models++;
        }
        free(entries[i]);
    }
    free(entries);
    return models;
}

START_TEST(headers_tell_what_families_take)
{
    ck_assert_int_ge(compare_all(DATA "families/"), 28);
}
END_TEST

START_TEST(headers_tell_what_own_checkpoints_take)
{
    ck_assert_int_ge(compare_all(DATA "checkpoints/good/"), 12);
}
END_TEST

/* Of the server's options, all loops included. */
static struct inspect_memory measure(const char *directory, char *arguments[], int count)
{
    struct error err = ERROR_INIT;
    struct options options;
    struct inspect_memory memory;
    struct serving serving;
    struct moed_model *model = load(directory, MOED_WEIGHTS_STORED, MOED_ACTIVATIONS_INT8, true);
    serving_init(&serving);
    ck_assert_int_eq(serving_read_for(&serving, directory, &err), 0);
    ck_assert_msg(options_init(&options, count, arguments, &err) == 0, "%s", err.text);
    ck_assert_msg(inspect_memory(&memory, directory, model, &serving, &options, &err) == 0, "%s",
                  err.text);
    options_close(&options);
    serving_close(&serving);
    moed_model_free(model);
    return memory;
}

START_TEST(options_count)
{
    static char *few[] = {"--models", "x", "--threads", "1", "--max-sequences", "2"},
                *many[] = {"--models", "x", "--threads", "4", "--loops", "2", "--kv-cache-mb", "1"};
    const char *directory = DATA "families/qwen3_moe";
    struct inspect_memory a = measure(directory, few, 6), b = measure(directory, many, 8);
    struct moed_model *model = load(directory, MOED_WEIGHTS_STORED, MOED_ACTIVATIONS_INT8, true);
    const struct moed_model_info *info = moed_model_info(model);
    struct error err = ERROR_INIT;
    struct moed_scratch *scratch = new_scratch(model, a.rows, 1, &err);
    ck_assert_uint_eq(a.scratch, moed_scratch_bytes(scratch) + /* logits of 2 and 32 rows */
                                     (2 + 32) * info->outputs[0].elements * sizeof(float));
    moed_scratch_free(scratch);
    ck_assert_uint_eq(a.room.positions, 2 * info->context); /* as many as can be used */
    ck_assert_uint_eq(a.cache, a.room.positions * info->position_bytes);
    ck_assert_uint_eq(a.context, info->context * info->position_bytes);
    ck_assert_uint_eq(a.total, info->weight_bytes + a.scratch + a.cache);
    ck_assert_uint_eq(b.threads, 2);
    ck_assert_uint_eq(b.room.positions, 8 * info->context); /* half of 16 sequences */
    ck_assert_uint_eq(b.total, info->weight_bytes + 2 * (b.scratch + b.cache));
    ck_assert_uint_lt(a.weights[MOED_WEIGHTS_INT8].bytes, a.weights[MOED_WEIGHTS_STORED].bytes);
    ck_assert_uint_lt(a.weights[MOED_WEIGHTS_INT4].bytes, a.weights[MOED_WEIGHTS_INT8].bytes);
    moed_model_free(model);
}
END_TEST

/* A model's own max_batch_rows, which lies beside its versions if it has some. */
START_TEST(a_models_own_limit_counts)
{
    static char *arguments[] = {"--models", "x"};
    char from[PATH_MAX], to[PATH_MAX], *directory = new_directory();
    snprintf(from, sizeof from, "%s", DATA "checkpoints/good/scorer");
    snprintf(to, sizeof to, "%s/7", directory);
    ck_assert_int_eq(symlink(from, to), 0);
    struct inspect_memory plain = measure(from, arguments, 2);
    write_json(directory, "serving.json", "{'limits':{'max_batch_rows':3}}");
    struct inspect_memory limited = measure(to, arguments, 2);
    ck_assert_uint_eq(limited.rows, 3);
    ck_assert_uint_lt(limited.scratch, plain.scratch);
    free(directory);
}
END_TEST

/* A context and layers whose product no number holds. */
START_TEST(sums_end_at_the_largest_number)
{
    struct moed_model_info info = {
        .sequence = true, .context = 1 << 24, .position_bytes = SIZE_MAX};
    char *text, *arguments[] = {"--models", "x"};
    size_t length;
    struct inspect_memory memory = measure(DATA "families/qwen3_moe", arguments, 2);
    memory.total = memory.cache = UINT64_MAX;
    FILE *out = open_memstream(&text, &length);
    inspect_memory_print(&memory, &info, out);
    fclose(out);
    expect_text(text, "16777216.0 TiB in all");
    free(text);
}
END_TEST

TEST_MAIN("inspect_memory", headers_tell_what_families_take, headers_tell_what_own_checkpoints_take,
          options_count, a_models_own_limit_counts, sums_end_at_the_largest_number)
