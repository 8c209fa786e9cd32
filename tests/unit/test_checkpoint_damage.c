/* Checkpoints are untrusted input: loading a bad one reports what is wrong and where, and any that
 * loads can run.
 *
 * Those in tests/data/checkpoints/good are loaded and run; those in bad are refused with the words
 * of their file `error` (make.py there writes both). The good ones are then truncated at every
 * byte, and bits of their JSON are flipped: every bit in the smallest, some of every byte in the
 * others. The sanitizers watch; without them, a limit on memory. */
#include <ctype.h>
#include <dirent.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "core/text.h"
#include "support.h"

#define CHECKPOINTS MOED_TEST_DATA "/data/checkpoints"

/* ---- memory ---- */

/* A false size in a file must not become an allocation: larger ones than this fail. */
static void limit_memory(void)
{
#ifndef MOED_SANITIZED
    const struct rlimit limit = {(rlim_t)4 << 30, (rlim_t)4 << 30};
    ck_assert_int_eq(setrlimit(RLIMIT_AS, &limit), 0);
#endif
}

/* ---- files ---- */

struct bytes {
    unsigned char *at;
    size_t count;
};

static char *path_of(const char *directory, const char *name)
{
    char *path;
    ck_assert_int_gt(asprintf(&path, "%s/%s", directory, name), 0);
    return path;
}

static struct bytes read_file(const char *directory, const char *name)
{
    char *path = path_of(directory, name);
    struct bytes bytes = {xmalloc(1 << 16), 0};
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "cannot open %s", path);
    bytes.count = fread(bytes.at, 1, 1 << 16, file);
    ck_assert_uint_lt(bytes.count, 1 << 16);
    fclose(file);
    free(path);
    return bytes;
}

/* A copy of a good checkpoint. One of its files is damaged repeatedly: it is kept in memory, and
 * its name in the directory is a link to it. */
struct patient {
    char *directory;
    struct bytes original;
    int fd;
};

static void copy_files(const char *from, const char *to)
{
    struct dirent *entry;
    DIR *directory = opendir(from);
    ck_assert_msg(directory != NULL, "cannot open %s", from);
    while ((entry = readdir(directory))) {
        if (*entry->d_name == '.')
            continue;
        struct bytes bytes = read_file(from, entry->d_name);
        write_file(to, entry->d_name, bytes.at, bytes.count);
        free(bytes.at);
    }
    closedir(directory);
}

static void patient_init(struct patient *patient, const char *good, const char *file)
{
    char *from = path_of(CHECKPOINTS "/good", good);
    patient->directory = new_directory();
    copy_files(from, patient->directory);
    patient->original = read_file(patient->directory, file);
    patient->fd = memfd_create(file, MFD_CLOEXEC);
    const ssize_t written = pwrite(patient->fd, patient->original.at, patient->original.count, 0);
    ck_assert_uint_eq((size_t)written, patient->original.count);
    char *path = path_of(patient->directory, file), memory[32];
    snprintf(memory, sizeof memory, "/proc/self/fd/%d", patient->fd);
    ck_assert(unlink(path) == 0 && symlink(memory, path) == 0);
    free(path);
    free(from);
}

static void patient_close(struct patient *patient)
{
    close(patient->fd);
    free(patient->original.at);
    free(patient->directory);
}

static void cut_off(const struct patient *patient, size_t count)
{
    ck_assert_int_eq(ftruncate(patient->fd, (off_t)count), 0);
}

static void put_byte(const struct patient *patient, size_t at, unsigned char byte)
{
    ck_assert_int_eq(pwrite(patient->fd, &byte, 1, (off_t)at), 1);
}

/* ---- what must hold ---- */

/* Expects a message, in text that is safe in any terminal, log or JSON document. */
static void expect_told(const struct error *err, const char *where)
{
    ck_assert_msg(err->code != ERROR_NONE && *err->text, "%s: refused without a word", where);
    for (const char *c = err->text; *c; c += utf8_character(c))
        ck_assert_msg(utf8_character(c) > 0 && !iscntrl((unsigned char)*c),
                      "%s: not printable UTF-8: %s", where, err->text);
}

/* Small integers in buffers of exactly their size, so that the sanitizer detects every overrun. */
static float **new_tensors(const struct moed_tensor_info *tensors, size_t count, size_t rows)
{
    float **values = xcalloc(count, sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = new_integers(rows * tensors[i].elements, (uint32_t)(7 * i + 1));
    return values;
}

static void free_tensors(float **values, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(values[i]);
    free(values);
}

static void run_two_rows(const struct moed_model *model, const char *where)
{
    struct error err = ERROR_INIT;
    const struct moed_model_info *info = moed_model_info(model);
    struct moed_scratch *scratch = new_scratch(model, 2, 1, &err);
    if (!scratch) {
        expect_told(&err, where);
        return;
    }
    float **x = new_tensors(info->inputs, info->input_count, 2);
    float **y = new_tensors(info->outputs, info->output_count, 2);
    forward(model, scratch, NULL, 2, (void *const *)x, y);
    free_tensors(y, info->output_count);
    free_tensors(x, info->input_count);
    moed_scratch_free(scratch);
}

/* Expects the checkpoint to load and run, or to be refused with a message. Returns whether it
 * loaded. */
static bool survives(const struct patient *patient, const char *where)
{
    struct error err = ERROR_INIT;
    struct moed_model *model = moed_model_load(patient->directory, NULL, &err);
    if (model)
        run_two_rows(model, where);
    else
        expect_told(&err, where);
    moed_model_free(model);
    return model != NULL;
}

/* ---- the corpus ---- */

static void expect_finite(const char *path, const struct moed_tensor_info *output, const float *y)
{
    for (size_t i = 0; i < 3 * output->elements; i++)
        ck_assert_msg(isfinite(y[i]), "%s: %s %zu is %g", path, output->name, i, (double)y[i]);
}

/* Runs three rows on a team of two. */
static void expect_finite_outputs(const char *path)
{
    struct error err = ERROR_INIT;
    struct moed_model *model = moed_model_load(path, NULL, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    const struct moed_model_info *info = moed_model_info(model);
    struct moed_scratch *scratch = new_scratch(model, 3, 2, &err);
    struct moed_team *team = moed_team_new(2);
    team_fork_from(team, 0);
    float **x = new_tensors(info->inputs, info->input_count, 3);
    float **y = new_tensors(info->outputs, info->output_count, 3);
    struct moed_pages *pages = NULL;
    struct moed_session *session = NULL;
    if (info->position_bytes > 0)
        session = new_session(model, 3, &pages);
    const struct moed_span span = {.rows = 3, .session = session};
    moed_forward(model, scratch, team,
                 &(struct moed_batch){&span, 1, (const void *const *)x, y, NULL});
    moed_session_free(session);
    moed_pages_free(pages);
    for (size_t i = 0; i < info->output_count; i++)
        expect_finite(path, &info->outputs[i], y[i]);
    free_tensors(y, info->output_count);
    free_tensors(x, info->input_count);
    moed_team_free(team);
    moed_scratch_free(scratch);
    moed_model_free(model);
}

START_TEST(good_checkpoints_run)
{
    expect_finite_outputs(CHECKPOINTS "/good/small");
    expect_finite_outputs(CHECKPOINTS "/good/image");
    expect_finite_outputs(CHECKPOINTS "/good/every_op");
    expect_finite_outputs(CHECKPOINTS "/good/tasks");
    expect_finite_outputs(CHECKPOINTS "/good/encoder");
    expect_finite_outputs(CHECKPOINTS "/good/graph");
    expect_finite_outputs(CHECKPOINTS "/good/functions");
    expect_finite_outputs(CHECKPOINTS "/good/decoder");
    expect_finite_outputs(CHECKPOINTS "/good/histories");
    expect_finite_outputs(CHECKPOINTS "/good/scorer");
    expect_finite_outputs(CHECKPOINTS "/good/sentence");
    expect_finite_outputs(CHECKPOINTS "/good/text");
}
END_TEST

/* Prints what is wrong with the error of a bad checkpoint; returns the number of complaints. */
static int judge(const char *path, const struct error *err)
{
    char line[256], *expected = path_of(path, "error");
    int complaints = 0;
    expect_told(err, path);
    FILE *file = fopen(expected, "r");
    ck_assert_msg(file != NULL, "cannot open %s", expected);
    free(expected);
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (!strstr(err->text, line)) {
            fprintf(stderr, "%s: '%s' is not in: %s\n", path, line, err->text);
            complaints++;
        }
    }
    fclose(file);
    return complaints;
}

START_TEST(bad_checkpoints_are_refused_in_words)
{
    int complaints = 0, cases = 0;
    struct dirent *entry;
    DIR *bad = opendir(CHECKPOINTS "/bad");
    ck_assert_ptr_nonnull(bad);
    while ((entry = readdir(bad))) {
        if (*entry->d_name == '.')
            continue;
        struct error err = ERROR_INIT;
        char *path = path_of(CHECKPOINTS "/bad", entry->d_name);
        struct moed_model *model = moed_model_load(path, NULL, &err);
        if (model)
            fprintf(stderr, "%s: accepted\n", path);
        complaints += model ? 1 : judge(path, &err);
        moed_model_free(model);
        free(path);
        cases++;
    }
    closedir(bad);
    ck_assert_int_eq(complaints, 0);
    ck_assert_int_gt(cases, 400); /* the corpus was found */
}
END_TEST

/* ---- every byte, every bit ---- */

static size_t header_end(const struct bytes *file)
{
    return 8 + (file->at[0] | (size_t)file->at[1] << 8);
}

/* Sanitizers take several times as long for each flip; the release build makes all of them. */
#ifdef MOED_SANITIZED
enum { EVERY_BIT = 7, SOME_BITS = 41 };
#else
enum { EVERY_BIT = 1, SOME_BITS = 5 };
#endif

/* Flips every `step`-th bit of the first `end` bytes, one at a time: a step of 5 flips one or two
 * bits of each byte. */
static void flip_bits(const struct patient *patient, size_t end, size_t step)
{
    size_t loaded = 0;
    for (size_t bit = 0; bit < 8 * end; bit += step) {
        char where[64];
        const unsigned char byte = patient->original.at[bit / 8];
        snprintf(where, sizeof where, "bit %zu of byte %zu", bit % 8, bit / 8);
        put_byte(patient, bit / 8, byte ^ (unsigned char)(1 << bit % 8));
        loaded += survives(patient, where);
        put_byte(patient, bit / 8, byte);
    }
    ck_assert_uint_lt(loaded, 8 * end / step / 2); /* the flips reached the loader */
    ck_assert(survives(patient, "restored"));
}

static void cut_off_everywhere(const struct patient *patient)
{
    for (size_t count = patient->original.count; count-- > 0;) {
        char where[64];
        snprintf(where, sizeof where, "cut off at %zu", count);
        cut_off(patient, count);
        ck_assert_msg(!survives(patient, where), "%s: accepted", where);
    }
}

#define DAMAGE_TEST(test, good, file, damage)                                                      \
    START_TEST(test)                                                                               \
    {                                                                                              \
        struct patient patient;                                                                    \
        patient_init(&patient, good, file);                                                        \
        damage;                                                                                    \
        patient_close(&patient);                                                                   \
    }                                                                                              \
    END_TEST

#define WEIGHTS "model.safetensors"
#define SHARD   "model-00002-of-00002.safetensors"
#define INDEX   "model.safetensors.index.json"
#define HEADER  header_end(&patient.original)
#define ALL     patient.original.count

DAMAGE_TEST(weights_cut_off_anywhere, "small", WEIGHTS, cut_off_everywhere(&patient))
DAMAGE_TEST(a_shard_cut_off_anywhere, "every_op", SHARD, cut_off_everywhere(&patient))
DAMAGE_TEST(a_config_cut_off_anywhere, "every_op", "config.json", cut_off_everywhere(&patient))
DAMAGE_TEST(an_index_cut_off_anywhere, "every_op", INDEX, cut_off_everywhere(&patient))
DAMAGE_TEST(any_bit_of_a_header, "small", WEIGHTS, flip_bits(&patient, HEADER, EVERY_BIT))
DAMAGE_TEST(any_bit_of_a_config, "small", "config.json", flip_bits(&patient, ALL, EVERY_BIT))
DAMAGE_TEST(bits_of_an_image_header, "image", WEIGHTS, flip_bits(&patient, HEADER, SOME_BITS))
DAMAGE_TEST(bits_of_an_image_config, "image", "config.json", flip_bits(&patient, ALL, SOME_BITS))
DAMAGE_TEST(bits_of_every_op, "every_op", "config.json", flip_bits(&patient, ALL, SOME_BITS))
DAMAGE_TEST(bits_of_tasks, "tasks", "config.json", flip_bits(&patient, ALL, SOME_BITS))
DAMAGE_TEST(bits_of_an_encoder, "encoder", "config.json", flip_bits(&patient, ALL, SOME_BITS))
DAMAGE_TEST(bits_of_an_index, "every_op", INDEX, flip_bits(&patient, ALL, SOME_BITS))

/* ---- too large to be kept as files ---- */

static void expect_patient_refused(const struct patient *patient, const char *part)
{
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(moed_model_load(patient->directory, NULL, &err));
    expect_told(&err, part);
    expect_text(err.text, part);
}

DAMAGE_TEST(a_config_without_bound, "small", "config.json", {
    cut_off(&patient, (64 << 20) + 1);
    expect_patient_refused(&patient, "config.json: larger than");
})

DAMAGE_TEST(an_index_without_bound, "every_op", INDEX, {
    cut_off(&patient, (64 << 20) + 1);
    expect_patient_refused(&patient, "index.json: larger than");
})

/* The file is as long as its header claims, but that is longer than any real header. */
DAMAGE_TEST(a_header_without_bound, "small", WEIGHTS, {
    cut_off(&patient, 200 << 20);
    for (size_t i = 0; i < 4; i++)
        put_byte(&patient, i, (unsigned char)(100000001u >> 8 * i));
    expect_patient_refused(&patient, "model.safetensors: header of 100000001 bytes");
})

/* `part` repeated after `begin`, with its number in place of #; the caller frees it. */
static char *repeat(const char *begin, const char *part, size_t times, const char *end)
{
    char *text;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    fputs(begin, stream);
    for (size_t i = 0; i < times; i++) {
        const char *number = strchr(part, '#');
        fprintf(stream, "%s%.*s", i ? "," : "", (int)strcspn(part, "#"), part);
        if (number)
            fprintf(stream, "%zu%s", i, number + 1);
    }
    fputs(end, stream);
    fclose(stream);
    return text;
}

/* Below the limit on bytes, but eighty times as large once parsed. */
START_TEST(empty_objects_without_bound)
{
    struct error err = ERROR_INIT;
    char *directory = new_directory();
    char *config = repeat("{'layers':[", "{}", 20000000, "]}");
    write_checkpoint(directory, config, NO_TENSORS);
    ck_assert_ptr_null(moed_model_load(directory, NULL, &err));
    expect_text(err.text, "config.json: line 1, column ");
    expect_text(err.text, "too many values");
    /* The eight bytes before the header are its length. */
    char *header = repeat("########{'a':[", "{}", 30000000, "]}");
    const size_t length = strlen(header) - 8;
    for (size_t i = 0; i < 8; i++)
        header[i] = (char)(length >> 8 * i & 0xFF);
    write_json(directory, "config.json", "{}");
    write_file(directory, "model.safetensors", header, length + 8);
    err = (struct error)ERROR_INIT;
    ck_assert_ptr_null(moed_model_load(directory, NULL, &err));
    expect_text(err.text, "model.safetensors: header cannot be read at byte ");
    expect_text(err.text, "too many values");
    free(header);
    free(config);
    free(directory);
}
END_TEST

/* Every expert has its own copy of its layers: a few bytes of config must not become thousands of
 * layers. */
START_TEST(layers_times_experts_are_bounded)
{
    char *layers = repeat("[{'op':'moe','name':'m','gate':{'layers':[{'op':'relu'}]},"
                          "'experts':{'count':4096,'layers':[",
                          "{'op':'relu'}", 20000, "]}}]");
    expect_refused("[4096]", layers, NO_TENSORS, "layers[0].experts.layers: ");
    free(layers);
}
END_TEST

/* Every name is compared with every other. */
START_TEST(moe_layers_are_bounded)
{
    char *layers = repeat("[",
                          "{'op':'moe','name':'m#','gate':{'layers':[{'op':'relu'}]},"
                          "'experts':{'count':1,'layers':[{'op':'relu'}]}}",
                          1025, "]");
    expect_refused("[1]", layers, NO_TENSORS,
                   "layers[1024].gate: the model has more than 1024 gates");
    free(layers);
}
END_TEST

START_TEST(nothing_there_is_refused)
{
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(moed_model_load(CHECKPOINTS "/none", NULL, &err));
    expect_text(err.text, "none/config.json");
    ck_assert_ptr_null(moed_model_load(CHECKPOINTS "/none", NULL, NULL));
}
END_TEST

TEST_MAIN_WITH("checkpoint_damage", limit_memory, NULL, good_checkpoints_run,
               bad_checkpoints_are_refused_in_words, weights_cut_off_anywhere,
               a_shard_cut_off_anywhere, a_config_cut_off_anywhere, an_index_cut_off_anywhere,
               any_bit_of_a_header, any_bit_of_a_config, bits_of_an_image_header,
               bits_of_an_image_config, bits_of_every_op, bits_of_tasks, bits_of_an_encoder,
               bits_of_an_index, a_config_without_bound, an_index_without_bound,
               a_header_without_bound, empty_objects_without_bound,
               layers_times_experts_are_bounded, moe_layers_are_bounded, nothing_there_is_refused)
