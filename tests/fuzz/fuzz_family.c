/* Fuzzes the translation of published configs: one that loads must run, at once and token by token
 * with the same bits.
 *
 * An input is a line that names a directory of tests/data/families, whose weights are used, and a
 * config.json. Mutations change one member at a time, because nearly every other change only breaks
 * the JSON. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/moed.h"
#include "fuzz_directory.h"
#include "libfuzzer.h"

enum { MAX_NAME = 32, TOKENS = 3, MAX_SCRATCH_BYTES = 64 << 20, MAX_STEPS = 1 << 24 };

static char directory[FUZZ_DIRECTORY_BYTES];

static void require(int condition)
{
    if (!condition)
        abort();
}

static const char *path_of(const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void remove_directory(void)
{
    remove(path_of("config.json"));
    remove(path_of("model.safetensors"));
    remove(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    make_fuzz_directory(directory);
    atexit(remove_directory);
    return 0;
}

/* ---- mutations ---- */

static json_t *any_value(unsigned seed)
{
    static const json_int_t integers[] = {0, 1, 2, 3, 5, 24, 128, 1 << 20, INT64_MAX, -1};
    static const double reals[] = {0, 0.5, 1, -1, 1e-30, 1e30, 1e300};
    static const char *const texts[] = {"",        "silu",    "yarn",
                                        "llama3",  "linear",  "none",
                                        "gelu",    "default", "sliding_attention",
                                        "longrope"};
    switch (seed % 6) {
    case 0:
    case 1:
        return json_integer(integers[seed / 6 % 10]);
    case 2:
        return json_real(reals[seed / 6 % 7]);
    case 3:
        return json_string(texts[seed / 6 % 10]);
    case 4:
        return seed / 6 % 2 ? json_true() : json_false();
    default:
        return seed / 6 % 2 ? json_pack("[s, s]", "full_attention", "sliding_attention")
                            : json_null();
    }
}

/* Changes a member of the object or of one in it. */
static void change_member(json_t *object, unsigned seed)
{
    size_t count = json_object_size(object), at = count ? seed / 7 % count : 0;
    void *member = json_object_iter(object);
    while (member && at-- > 0)
        member = json_object_iter_next(object, member);
    if (!member)
        return;
    json_t *value = json_object_iter_value(member);
    if (json_is_object(value) && seed % 4)
        change_member(value, seed / 3);
    else if (seed % 7 == 0)
        json_object_del(object, json_object_iter_key(member));
    else
        json_object_iter_set_new(object, member, any_value(seed / 11));
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    const uint8_t *end = memchr(data, '\n', size < MAX_NAME ? size : MAX_NAME);
    if (!end || seed % 32 == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    size_t head = (size_t)(end + 1 - data);
    json_t *config = json_loadb((const char *)end + 1, size - head, 0, NULL);
    if (!json_is_object(config)) {
        json_decref(config);
        return LLVMFuzzerMutate(data, size, max_size);
    }
    for (unsigned i = 0; i <= seed % 3; i++)
        change_member(config, seed / 5 + 977 * i);
    size_t written = json_dumpb(config, (char *)data + head, max_size - head, JSON_COMPACT);
    json_decref(config);
    return written <= max_size - head ? head + written : size;
}

/* ---- running ---- */

/* Runs the tokens in chunks; y: [TOKENS, elements]. */
static void run(const struct moed_model *model, size_t chunk, float *y)
{
    struct error err = ERROR_INIT;
    const struct moed_model_info *info = moed_model_info(model);
    const struct moed_scratch_options options = {TOKENS, 1, .distributions = true};
    struct moed_scratch *scratch = moed_scratch_new(model, &options, &err);
    struct moed_pages *pages =
        moed_pages_new(model, &(struct moed_room){.positions = TOKENS}, &err);
    struct moed_session *session = pages ? moed_session_new(pages) : NULL;
    int32_t tokens[TOKENS];
    for (int i = 0; i < TOKENS; i++)
        tokens[i] = (int32_t)((size_t)i * 37 % info->inputs[0].categories);
    if (!scratch || !session || moed_session_reserve(session, TOKENS) != 0)
        chunk = 0; /* no memory, or a context of fewer tokens */
    for (size_t at = 0; chunk > 0 && at < TOKENS; at += chunk) {
        const struct moed_span span = {.rows = chunk, .position = at, .session = session};
        const void *const inputs[] = {tokens + at};
        float *const outputs[] = {y + at * info->outputs[0].elements};
        moed_forward(model, scratch, NULL,
                     &(struct moed_batch){
                         .spans = &span, .span_count = 1, .inputs = inputs, .outputs = outputs});
    }
    moed_session_free(session);
    moed_pages_free(pages);
    moed_scratch_free(scratch);
}

static void check(const struct moed_model *model)
{
    const struct moed_model_info *info = moed_model_info(model);
    size_t count = TOKENS * info->outputs[0].elements;
    float *at_once = calloc(count, sizeof *at_once), *by_token = calloc(count, sizeof *by_token);
    require(info->sequence && info->context > 0 && info->input_count == 1 && at_once && by_token);
    if (info->position_bytes > 0) {
        run(model, TOKENS, at_once);
        run(model, 1, by_token);
    }
    for (size_t i = 0; i < count; i++)
        require(at_once[i] == by_token[i] || (isnan(at_once[i]) && isnan(by_token[i])));
    free(at_once);
    free(by_token);
}

static int link_weights(const uint8_t *name, size_t length)
{
    char path[512];
    for (size_t i = 0; i < length; i++)
        if (!(name[i] == '_' || (name[i] >= 'a' && name[i] <= 'z') ||
              (name[i] >= '0' && name[i] <= '9')))
            return -1;
    snprintf(path, sizeof path, MOED_TEST_DATA "/data/families/%.*s/model.safetensors", (int)length,
             (const char *)name);
    remove(path_of("model.safetensors"));
    return symlink(path, path_of("model.safetensors"));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = ERROR_INIT;
    const uint8_t *end = memchr(data, '\n', size < MAX_NAME ? size : MAX_NAME);
    if (!end || link_weights(data, (size_t)(end - data)) != 0)
        return -1;
    FILE *file = fopen(path_of("config.json"), "wb");
    require(file != NULL);
    size_t count = size - (size_t)(end + 1 - data);
    require(fwrite(end + 1, 1, count, file) == count && fclose(file) == 0);
    const struct moed_load_options options = {.weights = (enum moed_weights)(size % 3),
                                              .activations = (enum moed_activations)(size / 3 % 3)};
    struct moed_model *model = moed_model_load(directory, &options, &err);
    require(model ? err.code == ERROR_NONE : err.code != ERROR_NONE && *err.text);
    if (model && moed_model_info(model)->family &&
        moed_model_info(model)->macs_per_row <= MAX_STEPS &&
        moed_model_info(model)->scratch_bytes_per_row <= MAX_SCRATCH_BYTES / TOKENS)
        check(model);
    moed_model_free(model);
    return 0;
}
