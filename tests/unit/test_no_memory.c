/* Memory sized by a client or a file may run out: every such allocation is made to fail in turn.
 * Each time there must be an error, no leak and no half-made state. Small allocations never fail
 * here, because their failure ends the process on purpose (core/memory.h). */
#include <jansson.h>

#include "core/parse_json.h"
#include "proto/envelope.h"
#include "proto/text/detokenizer.h"
#include "proto/text/tokenizer.h"
#include "server/compute/queue.h"
#include "support.h"

/* ---- an allocator that fails on purpose ---- */

#ifdef MOED_SANITIZED
#define REAL(function) __interceptor_##function
void *REAL(aligned_alloc)(size_t alignment, size_t bytes);
#else
#define REAL(function)       __libc_##function
void *REAL(memalign)(size_t alignment, size_t bytes);
#define __libc_aligned_alloc __libc_memalign
#endif
void *REAL(malloc)(size_t bytes);
void *REAL(calloc)(size_t count, size_t bytes);
void *REAL(realloc)(void *memory, size_t bytes);

/* The first calls come before a sanitizer is ready. */
#define UNWATCHED __attribute__((no_sanitize("address"), no_sanitize("thread")))

enum { LARGE = 32 << 10 };
static size_t least = LARGE; /* bytes of an allocation that may fail */
static size_t fail_at;       /* which large allocation fails, counted from 1; 0: none */
static size_t large_count;

UNWATCHED static bool fails(size_t bytes)
{
    return fail_at > 0 && bytes >= least && ++large_count == fail_at;
}

UNWATCHED void *malloc(size_t bytes)
{
    return fails(bytes) ? NULL : REAL(malloc)(bytes);
}

UNWATCHED void *calloc(size_t count, size_t bytes)
{
    return fails(count * bytes) ? NULL : REAL(calloc)(count, bytes);
}

UNWATCHED void *realloc(void *memory, size_t bytes)
{
    return fails(bytes) ? NULL : REAL(realloc)(memory, bytes);
}

UNWATCHED void *aligned_alloc(size_t alignment, size_t bytes)
{
    return fails(bytes) ? NULL : REAL(aligned_alloc)(alignment, bytes);
}

static void *never_fails(size_t bytes)
{
    return REAL(malloc)(bytes);
}

/* Jansson's own allocations end the process; what is allocated before to see whether there is room
 * may fail. */
static void spare_jansson(void)
{
    struct json_fault fault;
    json_decref(parse_json("{}", 2, 0, 1 << 10, &fault)); /* sets the server's allocator */
    json_set_alloc_funcs(never_fails, free);
}

static void fail_large(size_t which)
{
    if (which == 1)
        spare_jansson();
    fail_at = which;
    large_count = 0;
}

/* Whether the requested failure has happened. */
static bool failed(void)
{
    const bool happened = large_count >= fail_at;
    fail_at = 0;
    return happened;
}

/* ---- models ---- */

/* Loads again and again until no allocation is left to fail; returns their number. */
static size_t expect_load_survives(const char *config, const struct stored *tensors, size_t count)
{
    char *directory = new_directory();
    write_checkpoint(directory, config, tensors, count);
    for (size_t which = 1;; which++) {
        struct error err = ERROR_INIT;
        fail_large(which);
        struct moed_model *model = moed_model_load(directory, NULL, &err);
        if (!failed()) {
            ck_assert_msg(model != NULL, "%s", err.text);
            moed_model_free(model);
            free(directory);
            return which - 1;
        }
        ck_assert_msg(!model, "loaded without its allocation %zu", which);
        ck_assert_int_eq(err.code, ERROR_UNAVAILABLE);
        expect_text(err.text, "memory");
    }
}

START_TEST(loading_large_weights)
{
    enum { N = 200, CHANNELS = 20000, KERNEL = 5000 };
    void *halves = xcalloc(N * N, 2), *floats = xcalloc(CHANNELS, sizeof(float));
    float *ones = xmalloc(CHANNELS * sizeof *ones);
    for (size_t i = 0; i < CHANNELS; i++)
        ones[i] = 1;
    const struct stored tensors[] = {{"l.weight", 2, {N, N}, halves, "F16"},
                                     {"b.running_mean", 1, {CHANNELS}, floats, NULL},
                                     {"b.running_var", 1, {CHANNELS}, ones, NULL},
                                     {"c.weight", 3, {4, 1, KERNEL}, floats, NULL}};
    char *linear = config_of("[200]", "[{'op':'linear','name':'l'}]");
    char *norm = config_of("[20000]", "[{'op':'batch_norm','name':'b'}]");
    char *conv = config_of("[1,5000]", "[{'op':'conv1d','name':'c'}]");
    ck_assert_uint_ge(expect_load_survives(linear, tensors, 1), 1);
    ck_assert_uint_ge(expect_load_survives(norm, tensors + 1, 2), 2);
    ck_assert_uint_ge(expect_load_survives(conv, tensors + 3, 1), 1);
    free(linear);
    free(norm);
    free(conv);
    free(halves);
    free(floats);
    free(ones);
}
END_TEST

START_TEST(loading_a_large_configuration)
{
    enum { COUNT = 9000 };
    char *config;
    size_t length;
    FILE *text = open_memstream(&config, &length);
    fprintf(text,
            "{'model_type':'moed','format_version':1,"
            "'input':{'shape':[%d],'preprocess':{'mean':[",
            COUNT);
    for (int i = 0; i < COUNT; i++)
        fputs(i ? ",0" : "0", text);
    fputs("]}},'layers':[{'op':'relu'}", text);
    for (int i = 0; i < 300; i++)
        fputs(",{'op':'relu'}", text);
    fputs("],'output':{'labels':[", text);
    for (int i = 0; i < COUNT; i++)
        fputs(i ? ",'l'" : "'l'", text);
    fputs("]}}", text);
    fclose(text);
    ck_assert_uint_ge(expect_load_survives(config, NO_TENSORS), 4);
    free(config);
}
END_TEST

START_TEST(loading_many_tensors)
{
    enum { COUNT = 600 };
    struct stored *tensors = xcalloc(COUNT, sizeof *tensors);
    char(*names)[24] = xcalloc(COUNT, sizeof *names), *config;
    const float weight = 1;
    size_t length;
    FILE *text = open_memstream(&config, &length);
    fputs("{'model_type':'moed','format_version':1,'input':{'shape':[1]},'layers':[", text);
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "l%d.weight", i);
        tensors[i] = (struct stored){names[i], 2, {1, 1}, &weight, NULL};
        fprintf(text, "%s{'op':'linear','name':'l%d'}", i ? "," : "", i);
    }
    fputs("]}", text);
    fclose(text);
    ck_assert_uint_ge(expect_load_survives(config, tensors, COUNT), 2);
    free(config);
    free(names);
    free(tensors);
}
END_TEST

/* Where there is no room for the tree the text is not to blame. */
START_TEST(parsing_requests)
{
    char *body;
    size_t length;
    FILE *text = open_memstream(&body, &length);
    fputs("{\"a\":[null", text);
    for (int i = 0; i < 20000; i++)
        fputs(",null", text);
    fputs("],\"b\":[1", text);
    for (int i = 0; i < 20000; i++)
        fputs(",2", text);
    fputs("]}", text);
    fclose(text);
    for (size_t which = 1;; which++) {
        struct envelope envelope;
        struct error err = ERROR_INIT;
        fail_large(which);
        int result = envelope_init(&envelope, body, length, &err);
        if (result == 0) {
            result = envelope_check_rest(&envelope, &err);
            envelope_close(&envelope);
        }
        if (!failed()) {
            ck_assert_msg(result == 0, "%s", err.text);
            ck_assert_uint_ge(which - 1, 2);
            break;
        }
        ck_assert_int_eq(err.code, ERROR_UNAVAILABLE);
        expect_text(err.text, "memory");
    }
    free(body);
}
END_TEST

START_TEST(making_a_scratch)
{
    struct moed_model *model = load_model(
        "{'model_type':'moed','format_version':1,'input':{'shape':[64],'preprocess':{'scale':2}},"
        "'layers':[{'op':'moe','name':'m','gate':{'layers':[{'op':'flatten'}]},"
        "'experts':{'count':64,'layers':[{'op':'relu'}]}}]}",
        NO_TENSORS);
    for (size_t which = 1;; which++) {
        struct error err = ERROR_INIT;
        fail_large(which);
        struct moed_scratch *scratch = new_scratch(model, 256, 1, &err);
        if (!failed()) {
            ck_assert_ptr_nonnull(scratch);
            moed_scratch_free(scratch);
            ck_assert_uint_ge(which - 1, 6); /* input, arena, four arrays of pairs */
            break;
        }
        ck_assert_ptr_null(scratch);
        ck_assert_int_eq(err.code, ERROR_UNAVAILABLE);
        expect_text(err.text, "no memory");
    }
    moed_model_free(model);
}
END_TEST

/* ---- the queue ---- */

enum { WIDTH = 4096, ROWS = 7 };
static const struct moed_tensor_info wide[] = {
    {.name = "x", .shape = {1, {WIDTH}}, .elements = WIDTH}};
static const struct moed_model_info info = {
    .input_count = 1, .inputs = wide, .output_count = 1, .outputs = wide};

START_TEST(queueing_a_job)
{
    const struct signature_tensor tensor = {
        .name = "x", .rank = 1, .dims = (const size_t[]){WIDTH}, .elements = WIDTH};
    const struct signature signature = {.input_count = 1, .inputs = &tensor};
    float *body = xcalloc(ROWS * WIDTH, sizeof *body);
    struct infer_input input = {.where = "data",
                                .data = (const char *)body,
                                .length = ROWS * WIDTH * sizeof *body,
                                .binary = true,
                                .datatype = DATATYPE_FP32};
    struct job job = {
        .request = {
            .signature = &signature, .body = (const char *)body, .rows = ROWS, .inputs = &input}};
    for (size_t which = 1;; which++) {
        struct queue queue;
        struct error err = ERROR_INIT;
        queue_init(&queue, &info, 2, 100);
        fail_large(which);
        const int result = queue_read(&queue, &job, &err);
        const bool done = !failed();
        ck_assert_int_eq(result, done ? 0 : -1);
        ck_assert_int_eq(job.values != NULL, done);
        if (!done) {
            ck_assert_int_eq(err.code, ERROR_UNAVAILABLE);
            ck_assert_int_eq(queue_read(&queue, &job, NULL), 0); /* there is memory again */
        }
        free(job.values);
        job.values = NULL;
        queue_close(&queue);
        if (done) {
            ck_assert_uint_ge(which - 1, 3); /* a batch of an input and an output, the numbers */
            break;
        }
    }
    free(body);
}
END_TEST

/* ---- text ---- */

/* Here small ones fail, too: a token that lacked them had no bytes, and nobody was told. */
START_TEST(decoding_tokens)
{
    static const int32_t ids[] = {300, 301, 302};
    struct error err = ERROR_INIT;
    struct tokenizer *tokenizer = tokenizer_load(MOED_TEST_DATA "/data/text/qwen2.json", &err);
    ck_assert_msg(tokenizer != NULL, "%s", err.text);
    least = 1;
    for (size_t which = 1, happened = true; happened; which++) {
        struct buffer bytes, text;
        struct error decoding = ERROR_INIT;
        buffer_init(&bytes, SIZE_MAX);
        buffer_init(&text, SIZE_MAX);
        fail_large(which);
        tokenizer_token_bytes(tokenizer, ids[0], &bytes);
        const int result = tokenizer_decode(tokenizer, ids, 3, false, &text, &decoding);
        happened = failed();
        ck_assert(happened == (bytes.failed || result != 0));
        ck_assert(result == 0 || decoding.code == ERROR_UNAVAILABLE);
        ck_assert(!happened || which < 100);
        buffer_close(&bytes);
        buffer_close(&text);
    }
    least = LARGE;
    tokenizer_free(tokenizer);
}
END_TEST

/* Loads and encodes until no allocation is left to fail; returns how many there were. */
static size_t expect_encoding_survives(const char *path, const char *text, size_t length)
{
    for (size_t which = 1;; which++) {
        struct error err = ERROR_INIT;
        struct token_ids tokens = {0};
        fail_large(which);
        struct tokenizer *tokenizer = tokenizer_load(path, &err);
        const int result =
            tokenizer ? tokenizer_encode(tokenizer, text, length, true, &tokens, &err) : -1;
        const bool happened = failed();
        ck_assert_msg(result == 0 || (happened && *err.text), "%s: %s", path, err.text);
        token_ids_close(&tokens);
        tokenizer_free(tokenizer);
        if (!happened)
            return which - 1;
        ck_assert_msg(result == -1, "%s: allocation %zu failed and was not missed", path, which);
    }
}

START_TEST(encoding_text)
{
    static const char *const names[] = {"qwen2", "added", "mixtral", "xlm-roberta", "bert"};
    static const char part[] = "It's \xCC\x81\xCC\xA7 1234  universally acknowledged\n";
    enum { COUNT = 2000 };
    const size_t size = sizeof part - 1;
    char *text = xmalloc(COUNT * size);
    for (size_t i = 0; i < COUNT; i++)
        memcpy(text + i * size, part, size);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/data/text/%s.json", MOED_TEST_DATA, names[i]);
        ck_assert_uint_ge(expect_encoding_survives(path, text, COUNT * size), 5);
    }
    free(text);
}
END_TEST

/* A model of sequences of up to 100,000 tokens. */
static struct moed_model *load_tokens(void)
{
    const struct stored tensors[] = {STORED("e.weight", DIMS(2, 1), 1, 2),
                                     STORED("a.in_proj_weight", DIMS(3, 1), 1, 1, 1),
                                     STORED("a.out_proj.weight", DIMS(1, 1), 1)};
    return load_model("{'model_type':'moed','format_version':3,'context':100000,"
                      "'inputs':[{'name':'t','shape':[],'categories':2,'layers':"
                      "[{'op':'embedding','name':'e'}]}],'layers':"
                      "[{'op':'attention','name':'a','heads':1,'over':'sequence'}]}",
                      tensors, 3);
}

START_TEST(making_pages_and_reserving_them)
{
    enum { POSITIONS = 90000, LEAST = 4 };
    struct moed_model *model = load_tokens();
    size_t which;
    for (which = 1;; which++) {
        struct error err = ERROR_INIT;
        fail_large(which);
        struct moed_pages *pages =
            moed_pages_new(model, &(struct moed_room){.positions = POSITIONS}, &err);
        if (!pages) {
            ck_assert(failed());
            ck_assert_int_eq(err.code, ERROR_UNAVAILABLE);
            continue;
        }
        struct moed_session *session = moed_session_new(pages);
        const int reserved = moed_session_reserve(session, POSITIONS);
        const bool happened = failed();
        ck_assert_int_eq(reserved, happened ? -1 : 0);
        ck_assert_uint_eq(moed_pages_used(pages), happened ? 0 : moed_pages_total(pages));
        ck_assert_int_eq(moed_session_reserve(session, POSITIONS), 0);
        moed_session_free(session);
        moed_pages_free(pages);
        if (!happened)
            break;
    }
    ck_assert_uint_gt(which, LEAST);
    moed_model_free(model);
}
END_TEST

TEST_MAIN("no memory", loading_large_weights, loading_a_large_configuration, loading_many_tensors,
          parsing_requests, making_a_scratch, queueing_a_job, encoding_text, decoding_tokens,
          making_pages_and_reserving_them)
