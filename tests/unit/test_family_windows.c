/* gpt_oss, whose layers see everything and a window in turns, and lfm2_moe, whose convolutions see
 * the last few positions: a prompt of many windows gives the same bits however it is cut, whether
 * its beginning was found, and whoever takes the pages that it gives back. */
#include <jansson.h>
#include <limits.h>
#include <unistd.h>

#include "core/model.h"
#include "core/session.h"
#include "support.h"

enum {
    CONTEXT = 1024,
    WINDOW = 20,
    COUNT = 700, /* 35 windows */
    STEP = 96,
    PAGE = MOED_PAGE_POSITIONS,
    VOCABULARY = 128,
    OTHERS = 3, /* sequences beside */
};

static struct moed_model *model;
static struct moed_scratch *scratch;
static struct moed_pages *pages;
static int32_t tokens[COUNT];
static float expected[COUNT * VOCABULARY];

/* A tiny model of tests/data/families with a longer context. */
static struct moed_model *load(const char *family, int window)
{
    struct error err = ERROR_INIT;
    char from[PATH_MAX], path[2 * PATH_MAX], to[PATH_MAX], *directory = new_directory();
    snprintf(from, sizeof from, "%s/data/families/%s", MOED_TEST_DATA, family);
    snprintf(path, sizeof path, "%s/config.json", from);
    json_t *config = json_load_file(path, 0, NULL);
    ck_assert_ptr_nonnull(config);
    json_object_set_new(config, "max_position_embeddings", json_integer(CONTEXT));
    if (json_object_get(config, "sliding_window")) {
        json_object_set_new(config, "sliding_window", json_integer(window));
        json_object_set_new(json_object_get(config, "rope_parameters"),
                            "original_max_position_embeddings", json_integer(CONTEXT / 4));
    }
    snprintf(to, sizeof to, "%s/config.json", directory);
    ck_assert_int_eq(json_dump_file(config, to, 0), 0);
    json_decref(config);
    snprintf(path, sizeof path, "%s/model.safetensors", from);
    snprintf(to, sizeof to, "%s/model.safetensors", directory);
    ck_assert_int_eq(symlink(path, to), 0);
    struct moed_model *loaded = moed_model_load(directory, NULL, &err);
    ck_assert_msg(loaded != NULL, "%s", err.text);
    free(directory);
    return loaded;
}

static struct moed_pages *new_pages(const struct moed_room *room)
{
    struct error err = ERROR_INIT;
    struct moed_pages *made = moed_pages_new(model, room, &err);
    ck_assert_msg(made != NULL, "%s", err.text);
    return made;
}

/* Goes on with some of a sequence's tokens; y: their logits. */
static void run(struct moed_session *session, const int32_t *all, size_t rows, float *y)
{
    const size_t done = moed_session_length(session);
    const struct moed_span span = {.rows = rows, .position = done, .session = session};
    const void *const inputs[] = {all + done};
    float *const outputs[] = {y};
    ck_assert_int_eq(moed_session_reserve(session, done + rows), 0);
    moed_forward(model, scratch, NULL, &(struct moed_batch){&span, 1, inputs, outputs, NULL});
    moed_session_share(session);
}

static void fill_tokens(int32_t *all, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++)
        all[i] = (int32_t)(next_random(&seed) % VOCABULARY);
}

/* Room for a few windows: what one sequence gives back is what another takes. */
static void begin(const char *family)
{
    const struct moed_room room = {
        .positions = 4 * CONTEXT, .sequences = OTHERS + 1, .step_rows = STEP};
    model = load(family, WINDOW);
    scratch = new_scratch(model, COUNT, 1, NULL);
    fill_tokens(tokens, COUNT, 5);
    pages = new_pages(&(struct moed_room){.positions = COUNT});
    struct moed_session *session = moed_session_new(pages);
    run(session, tokens, COUNT, expected);
    moed_session_free(session);
    moed_pages_free(pages);
    pages = new_pages(&room);
}

static void end(void)
{
    ck_assert_uint_eq(moed_pages_used(pages), 0);
    moed_pages_free(pages);
    moed_scratch_free(scratch);
    moed_model_free(model);
}

/* Others take pages and leave them. */
struct beside {
    struct moed_session *sessions[OTHERS];
    int32_t tokens[OTHERS][COUNT];
    uint32_t state;
};

static void go_on_beside(struct beside *beside)
{
    static float y[STEP * VOCABULARY];
    const size_t i = next_random(&beside->state) % OTHERS;
    struct moed_session **session = &beside->sessions[i];
    if (*session && moed_session_length(*session) + STEP > COUNT) {
        moed_session_free(*session);
        *session = NULL;
    }
    if (!*session) {
        fill_tokens(beside->tokens[i], COUNT, beside->state);
        *session = moed_session_new(pages);
        ck_assert_int_eq(moed_session_promise(*session, COUNT), 0);
    }
    run(*session, beside->tokens[i], 1 + next_random(&beside->state) % STEP, y);
}

/* Returns how many positions were found. */
static size_t compute(size_t chunk, struct beside *beside)
{
    static float y[STEP * VOCABULARY];
    struct moed_session *session = moed_session_new(pages);
    const size_t found = moed_session_find_prefix(session, tokens, COUNT);
    ck_assert_int_eq(moed_session_promise(session, COUNT), 0);
    for (size_t done = found, rows; done < COUNT; done += rows) {
        rows = COUNT - done < chunk ? COUNT - done : chunk;
        run(session, tokens, rows, y);
        ck_assert_mem_eq(y, expected + done * VOCABULARY, rows * VOCABULARY * sizeof *y);
        /* As many as it sees, and the page that it goes on with. */
        ck_assert_uint_le(session->held - session->kinds[1].first, 2);
        if (beside)
            go_on_beside(beside);
    }
    moed_session_free(session);
    return found;
}

static void check_many_windows(void)
{
    static const size_t chunks[] = {STEP, 1, 7, 31, 33, 64};
    struct beside beside = {.state = 77};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        compute(chunks[i], &beside); /* found or not */
        compute(STEP, NULL);
        ck_assert_uint_eq(compute(chunks[i], NULL), COUNT / PAGE * PAGE);
    }
    for (size_t i = 0; i < OTHERS; i++)
        moed_session_free(beside.sessions[i]);
}

/* What was kept of a prompt has gone to others. */
static void check_windows_gone(void)
{
    struct beside beside = {.state = 78};
    ck_assert_uint_eq(compute(50, NULL), 0);
    ck_assert_uint_eq(compute(STEP, NULL), COUNT / PAGE * PAGE);
    for (int i = 0; i < 60; i++)
        go_on_beside(&beside);
    ck_assert_uint_eq(compute(STEP, &beside), 0);
    for (size_t i = 0; i < OTHERS; i++)
        moed_session_free(beside.sessions[i]);
}

static void with_each_family(void (*check)(void))
{
    static const char *const families[] = {"gpt_oss", "lfm2_moe"};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        begin(families[i]);
        check();
        end();
    }
}

START_TEST(a_prompt_of_many_windows_gives_the_same_bits)
{
    with_each_family(check_many_windows);
}
END_TEST

START_TEST(a_prompt_whose_windows_are_gone_is_computed_anew)
{
    with_each_family(check_windows_gone);
}
END_TEST

START_TEST(a_window_of_all_positions_is_none)
{
    struct moed_model *wide = load("gpt_oss", CONTEXT), *less = load("gpt_oss", CONTEXT - 1);
    const struct moed_model_info *a = moed_model_info(wide), *b = moed_model_info(less);
    ck_assert_uint_eq(a->kind_count, 1);
    ck_assert_uint_eq(a->kinds[0].position_bytes, a->position_bytes);
    ck_assert_uint_eq(b->kind_count, 2);
    ck_assert_uint_eq(b->kinds[0].window, 0);
    ck_assert_uint_eq(b->kinds[1].window, CONTEXT - 1);
    ck_assert_uint_eq(b->kinds[0].position_bytes + b->kinds[1].position_bytes, a->position_bytes);
    moed_model_free(wide);
    moed_model_free(less);
}
END_TEST

TEST_MAIN("family windows", a_prompt_of_many_windows_gives_the_same_bits,
          a_prompt_whose_windows_are_gone_is_computed_anew, a_window_of_all_positions_is_none)
