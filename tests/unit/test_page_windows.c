/* Pages of layers with a window: given back behind it, found again where a prefix needs them, and
 * never short for a sequence that was promised them. */
#include "pages_fixture.h"

enum { WINDOW = 40 };

/* A window in the first of two layers, in both, and so small a one that it is less than a page. */
static const struct attention_options models[] = {
    {"alternating", 2, 1, 8, .window = WINDOW, .alternates = true, .causal = true, .rotary = 8},
    {"windowed", 2, 2, 4, .window = WINDOW, .causal = true},
    {"narrow", 2, 1, 4, .window = 7, .alternates = true, .causal = true, .moe = true},
};
enum { MODELS = sizeof models / sizeof *models };

/* Those that a session between forward passes holds. */
static size_t seen(size_t window, size_t length)
{
    const size_t first = length >= window ? (length - window + 1) / PAGE : 0;
    return (length + PAGE - 1) / PAGE - first;
}

START_TEST(pages_behind_a_window_are_given_back)
{
    static float y[LONGEST * WIDTH];
    const struct attention_options *options = &models[_i];
    struct arena *arena = new_arena(options, &(struct moed_room){.positions = LONGEST});
    int32_t tokens[LONGEST];
    fill_tokens(tokens, LONGEST, 8);
    float *expected = expected_of(arena, tokens, LONGEST);
    struct moed_session *session = open_session(arena);
    for (size_t done = 0; done < LONGEST; done++) {
        ck_assert_int_eq(moed_session_reserve(session, done + 1), 0);
        run(arena, session, tokens, 1, y + done * WIDTH);
        moed_session_share(session);
        const size_t windows = seen(options->window, done + 1), all = (done + PAGE) / PAGE;
        ck_assert_uint_eq(check_kind(arena->pages, 0, &session, 1), all);
        ck_assert_uint_eq(check_kind(arena->pages, 1, &session, 1), windows);
        ck_assert_uint_eq(moed_pages_used(arena->pages), windows + (options->alternates ? all : 0));
    }
    ck_assert_mem_eq(y, expected, LONGEST * WIDTH * sizeof *y);
    moed_session_truncate(session, 0); /* which gives back none of them again */
    ck_assert_uint_eq(moed_pages_used(arena->pages), 0);
    moed_session_free(session);
    free(expected);
    free_arena(arena);
}
END_TEST

/* ---- how many pages there are ---- */

START_TEST(a_window_needs_few_pages_whatever_the_length)
{
    /* As gpt-oss-20b: 12 layers that see everything, 12 that see 128 positions. */
    const struct moed_model_info info = {
        .position_bytes = 49152, .kind_count = 2, .kinds = {{0, 24576}, {128, 24576}}};
    struct moed_room room = {.positions = 8192};
    ck_assert_uint_eq(moed_room_bytes(&info, &room), 8192 * 49152);
    room.sequences = 1; /* which spans 6 pages, and takes 8 for a step */
    room.step_rows = 256;
    ck_assert_uint_eq(moed_room_pages(&info.kinds[1], &room), 14);
    ck_assert_uint_eq(moed_room_bytes(&info, &room), (8192 + 14 * PAGE) * 24576);
    room.positions = 3 * PAGE;
    ck_assert_uint_eq(moed_room_bytes(&info, &room), 3 * PAGE * 49152);
    room.positions = SIZE_MAX;
    ck_assert_uint_eq(moed_room_bytes(&info, &room), UINT64_MAX);
}
END_TEST

/* Attention layers of one number with these windows; NULL: they are refused. */
static struct moed_model *load_windows(const size_t *windows, size_t count, struct error *err)
{
    static const float ones[] = {1, 1, 1};
    char *text, *directory = new_directory(), names[8][2][48];
    struct stored tensors[2 * 8 + 1] = {STORED("e.weight", DIMS(2, 1), 1, 2)};
    size_t length;
    FILE *config = open_memstream(&text, &length);
    fprintf(config, "{'model_type':'moed','format_version':3,'context':1000,'inputs':[{'name':'t',"
                    "'shape':[],'categories':2,'layers':[{'op':'embedding','name':'e'}]}],"
                    "'layers':[");
    for (size_t i = 0; i < count; i++) {
        fprintf(config,
                "%s{'op':'attention','name':'a%zu','heads':1,'over':'sequence','window':%zu}",
                i ? "," : "", i, windows[i]);
        snprintf(names[i][0], sizeof names[i][0], "a%zu.in_proj_weight", i);
        snprintf(names[i][1], sizeof names[i][1], "a%zu.out_proj.weight", i);
        tensors[2 * i + 1] = (struct stored){names[i][0], 2, {3, 1}, ones, NULL};
        tensors[2 * i + 2] = (struct stored){names[i][1], 2, {1, 1}, ones, NULL};
    }
    fprintf(config, "]}");
    fclose(config);
    write_checkpoint(directory, text, tensors, 2 * count + 1);
    struct moed_model *model = moed_model_load(directory, NULL, err);
    free(text);
    free(directory);
    return model;
}

START_TEST(layers_have_few_different_windows)
{
    static const size_t windows[] = {7, 1000, 20, 7, 1200, 30, 20, 999};
    struct error err = ERROR_INIT;
    struct moed_model *model = load_windows(windows, 7, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    const struct moed_model_info *info = moed_model_info(model);
    ck_assert_uint_eq(info->kind_count, 4);
    for (size_t i = 0; i < 4; i++) {
        static const size_t kinds[] = {0, 7, 20, 30}, layers[] = {2, 2, 2, 1};
        ck_assert_uint_eq(info->kinds[i].window, kinds[i]);
        ck_assert_uint_eq(info->kinds[i].position_bytes, layers[i] * 2 * sizeof(uint16_t));
    }
    moed_model_free(model);
    ck_assert_ptr_null(load_windows(windows, 8, &err));
    expect_text(err.text, "layers[7]: layers with more than 3 different windows");
}
END_TEST

START_TEST(what_a_window_is_promised_is_bounded)
{
    /* Windows of two sequences, 4 pages each, and 2 for a step. */
    const struct moed_room room = {.positions = 40 * PAGE, .sequences = 2, .step_rows = 2 * PAGE};
    struct arena *arena = new_arena(&models[0], &room);
    struct moed_session *sessions[3];
    for (size_t i = 0; i < 3; i++)
        sessions[i] = open_session(arena);
    ck_assert_int_eq(moed_session_promise(sessions[0], 12 * PAGE), 0);
    ck_assert_int_eq(moed_session_promise(sessions[1], 12 * PAGE), 0);
    ck_assert_int_eq(moed_session_promise(sessions[2], 1), -1);
    ck_assert_int_eq(moed_session_reserve(sessions[2], 1), -1);
    ck_assert_uint_eq(moed_pages_used(arena->pages), 24); /* none of a window yet */
    moed_session_free(sessions[0]);
    ck_assert_int_eq(moed_session_promise(sessions[2], 12 * PAGE), 0);
    ck_assert_int_eq(moed_session_promise(sessions[2], 28 * PAGE + 1), -1); /* of 40 */
    ck_assert_int_eq(moed_session_promise(sessions[1], SEQUENCE_CONTEXT), 0);
    moed_session_free(sessions[1]);
    moed_session_free(sessions[2]);
    free_arena(arena);
}
END_TEST

/* ---- prefixes ---- */

/* Goes on with the tokens as a server does, in chunks, and returns how many were found. */
static size_t compute(const struct arena *arena, const int32_t *tokens, size_t count, size_t chunk)
{
    static float y[LONGEST * WIDTH];
    struct moed_session *session = open_session(arena);
    float *expected = expected_of(arena, tokens, count);
    const size_t found = moed_session_find_prefix(session, tokens, count);
    ck_assert_int_eq(moed_session_promise(session, count), 0);
    for (size_t done = found, rows; done < count; done += rows) {
        rows = count - done < chunk ? count - done : chunk;
        ck_assert_int_eq(moed_session_reserve(session, done + rows), 0);
        run(arena, session, tokens, rows, y);
        ck_assert_mem_eq(y, expected + done * WIDTH, rows * WIDTH * sizeof *y);
        moed_session_share(session);
    }
    moed_session_free(session);
    check_kind(arena->pages, 0, NULL, 0);
    check_kind(arena->pages, 1, NULL, 0);
    free(expected);
    return found;
}

/* Of the nine pages that there are of the window's kind, those that were left first give way. */
START_TEST(a_prefix_is_found_where_its_window_still_is)
{
    const struct moed_room room = {.positions = 32 * PAGE, .sequences = 2, .step_rows = PAGE};
    struct arena *arena = new_arena(&models[_i], &room);
    int32_t tokens[LONGEST], others[LONGEST];
    fill_tokens(tokens, LONGEST, 21);
    fill_tokens(others, LONGEST, 22);
    ck_assert_uint_eq(arena->pages->kinds[1].total, 9);
    ck_assert_uint_eq(compute(arena, tokens, 8 * PAGE, 7), 0);
    ck_assert_uint_eq(compute(arena, others, 4 * PAGE, PAGE), 0); /* instead of pages 0 to 2 */
    ck_assert_uint_eq(compute(arena, tokens, 5 * PAGE + 1, 9), 5 * PAGE); /* it sees 3 and 4 */
    ck_assert_uint_eq(compute(arena, tokens, 9 * PAGE, 30), 8 * PAGE);
    ck_assert_uint_eq(compute(arena, tokens, 3 * PAGE + 1, PAGE), 0); /* it would see 1 and 2 */
    ck_assert_uint_eq(compute(arena, tokens, 3 * PAGE + 1, PAGE), 3 * PAGE);
    ck_assert_uint_eq(compute(arena, others, 9 * PAGE, PAGE), 0); /* takes all */
    ck_assert_uint_eq(compute(arena, tokens, 9 * PAGE, 32), 0);
    ck_assert_uint_eq(compute(arena, tokens, 9 * PAGE, 1), 8 * PAGE);
    free_arena(arena);
}
END_TEST

/* Pages of both kinds for the tokens: first[i] is that of the first kind. */
static void find_pages(const struct moed_pages *pages, const int32_t *tokens, size_t count,
                       uint32_t *first)
{
    uint64_t parent = 0;
    for (size_t i = 0; i < count; i++) {
        first[i] = pages_find(pages, parent, tokens + i * PAGE);
        ck_assert_uint_ne(first[i], NO_PAGE);
        parent = pages->kinds[0].list[first[i]].serial;
    }
}

/* A window's page that is gone is missed wherever the window sees it, and nowhere else. */
START_TEST(a_shorter_prefix_is_found_where_a_longer_has_lost_its_window)
{
    enum { BLOCKS = 7, LOST = 5 };
    const struct moed_room room = {.positions = 32 * PAGE, .sequences = 2, .step_rows = PAGE};
    struct arena *arena = new_arena(&models[0], &room);
    struct moed_pages *pages = arena->pages;
    int32_t tokens[LONGEST];
    uint32_t first[BLOCKS], taken[9];
    size_t count = 0;
    fill_tokens(tokens, LONGEST, 24);
    compute(arena, tokens, BLOCKS * PAGE, PAGE);
    find_pages(pages, tokens, BLOCKS, first);
    for (size_t i = 0; i < BLOCKS; i++) { /* all others are used once more */
        if (i == LOST)
            continue;
        pages_hold(pages, 1, pages->kinds[1].found[first[i]]);
        pages_release(pages, 1, pages->kinds[1].found[first[i]]);
    }
    while (pages->kinds[1].found[first[LOST]] != NO_PAGE)
        taken[count++] = pages_take(pages, 1);
    while (count > 0)
        pages_release(pages, 1, taken[--count]);
    ck_assert_uint_eq(compute(arena, tokens, 8 * PAGE, PAGE), 5 * PAGE);
    ck_assert_uint_eq(compute(arena, tokens, 8 * PAGE, PAGE), 7 * PAGE);
    free_arena(arena);
}
END_TEST

/* A page that is found no more takes those with it that were found by it, also one that a session
 * holds, which goes on. */
START_TEST(what_is_found_by_a_page_goes_with_it)
{
    static float y[LONGEST * WIDTH];
    struct arena *arena = new_arena(&models[0], &(struct moed_room){.positions = 5 * PAGE});
    int32_t tokens[LONGEST], others[LONGEST];
    fill_tokens(tokens, LONGEST, 25);
    fill_tokens(others, LONGEST, 26);
    float *expected = expected_of(arena, tokens, 3 * PAGE);
    /* Two compute the same at the same time: the pages of the first are found, those of the second
     * are not; the first has taken its window's pages away before it shared. */
    struct moed_session *a = open_session(arena), *b = open_session(arena);
    ck_assert_int_eq(moed_session_reserve(a, PAGE), 0);
    ck_assert_int_eq(moed_session_reserve(b, 2 * PAGE), 0);
    run(arena, a, tokens, PAGE, y);
    run(arena, b, tokens, PAGE, y);
    moed_session_share(a);
    const uint32_t first = pages_find(arena->pages, 0, tokens);
    ck_assert_uint_ne(first, NO_PAGE);
    pages_forget(arena->pages, first);
    moed_session_share(b); /* which is found from now on */
    ck_assert_uint_ne(pages_find(arena->pages, 0, tokens), first);
    moed_session_free(a);
    run(arena, b, tokens, PAGE, y);
    ck_assert_mem_eq(y, expected + PAGE * WIDTH, PAGE * WIDTH * sizeof *y);
    moed_session_free(b);
    ck_assert_uint_eq(moed_pages_idle(arena->pages), 4); /* two of each kind */
    ck_assert_uint_eq(compute(arena, others, 4 * PAGE, PAGE), 0);
    ck_assert_uint_eq(compute(arena, tokens, 3 * PAGE, PAGE), PAGE);
    free(expected);
    free_arena(arena);
}
END_TEST

/* ---- a random life ---- */

enum { LIVES = 7, STRINGS = 6, LENGTH = 9 * PAGE + 11, STEP = 2 * PAGE, STEPS = 1500 };

struct life {
    struct moed_session *session; /* NULL: none now */
    size_t string, limit;
};

/* Sequences as a server has them: promised when they begin, ended whenever they like. */
struct world {
    struct arena *arena;
    int32_t tokens[STRINGS][LENGTH]; /* with beginnings in common */
    float *expected[STRINGS];
    struct life lives[LIVES];
    size_t begun, refused, found;
    uint32_t state;
};

static size_t draw(struct world *world, size_t below)
{
    return next_random(&world->state) % below;
}

static void begin_life(struct world *world, struct life *life)
{
    life->string = draw(world, STRINGS);
    life->limit = 1 + draw(world, LENGTH);
    life->session = open_session(world->arena);
    world->found +=
        moed_session_find_prefix(life->session, world->tokens[life->string], life->limit) > 0;
    world->begun++;
    if (moed_session_promise(life->session, life->limit) == 0)
        return;
    world->refused++;
    moed_session_free(life->session);
    life->session = NULL;
}

/* Some of them take part in a step, whose rows are bounded. */
static size_t compose(struct world *world, struct moed_span *spans, struct life **whose)
{
    size_t count = 0, left = 1 + draw(world, STEP);
    for (size_t i = 0; i < LIVES && left > 0; i++) {
        struct life *life = &world->lives[i];
        const size_t length = life->session ? moed_session_length(life->session) : 0;
        if (!life->session || draw(world, 3) == 0)
            continue;
        const size_t todo = life->limit - length;
        const size_t rows = draw(world, 2) ? 1 : todo < left ? todo : left;
        ck_assert_int_eq(moed_session_reserve(life->session, length + rows), 0);
        spans[count] =
            (struct moed_span){.rows = rows, .position = length, .session = life->session};
        whose[count++] = life;
        left -= rows;
    }
    return count;
}

static void run_step(struct world *world, const struct moed_span *spans, struct life **whose,
                     size_t count)
{
    static float y[STEP * WIDTH];
    int32_t tokens[STEP];
    size_t rows = 0;
    for (size_t i = 0; i < count; rows += spans[i++].rows)
        memcpy(tokens + rows, world->tokens[whose[i]->string] + spans[i].position,
               spans[i].rows * sizeof *tokens);
    const void *const inputs[] = {tokens};
    float *const outputs[] = {y};
    moed_forward(world->arena->model, world->arena->engine.scratch, NULL,
                 &(struct moed_batch){spans, count, inputs, outputs, NULL});
    rows = 0;
    for (size_t i = 0; i < count; rows += spans[i++].rows)
        ck_assert_mem_eq(y + rows * WIDTH,
                         world->expected[whose[i]->string] + spans[i].position * WIDTH,
                         spans[i].rows * WIDTH * sizeof *y);
}

static void end_life(struct life *life)
{
    moed_session_free(life->session);
    life->session = NULL;
}

static void check_pages(const struct world *world)
{
    struct moed_session *sessions[LIVES];
    for (size_t i = 0; i < LIVES; i++)
        sessions[i] = world->lives[i].session;
    check_kind(world->arena->pages, 0, sessions, LIVES);
    check_kind(world->arena->pages, 1, sessions, LIVES);
}

static void step(struct world *world)
{
    struct moed_span spans[LIVES];
    struct life *whose[LIVES];
    for (size_t i = 0; i < LIVES; i++)
        if (!world->lives[i].session && draw(world, 2))
            begin_life(world, &world->lives[i]);
    const size_t count = compose(world, spans, whose);
    check_pages(world);
    if (count > 0)
        run_step(world, spans, whose, count);
    for (size_t i = 0; i < count; i++) {
        moed_session_share(whose[i]->session);
        if (moed_session_length(whose[i]->session) == whose[i]->limit)
            end_life(whose[i]);
    }
    struct life *any = &world->lives[draw(world, LIVES)]; /* given up */
    if (any->session && draw(world, 4) == 0)
        end_life(any);
    check_pages(world);
}

START_TEST(whoever_was_promised_pages_has_them)
{
    /* So few pages of the first kind, or of the window's, that many sequences must wait. */
    const struct moed_room few = {.positions = 24 * PAGE, .sequences = 3, .step_rows = STEP};
    const struct moed_room narrow = {.positions = 60 * PAGE, .sequences = 2, .step_rows = STEP};
    struct world world = {.arena = new_arena(&models[_i / 2], _i % 2 ? &few : &narrow),
                          .state = 11};
    for (size_t i = 0; i < STRINGS; i++) {
        fill_tokens(world.tokens[i], LENGTH, 90 + (uint32_t)i);
        if (i > 0)
            memcpy(world.tokens[i], world.tokens[i - 1], (i * 83 + 70) % LENGTH * sizeof(int32_t));
        world.expected[i] = expected_of(world.arena, world.tokens[i], LENGTH);
    }
    for (int i = 0; i < STEPS; i++)
        step(&world);
    for (size_t i = 0; i < LIVES; i++)
        moed_session_free(world.lives[i].session);
    for (size_t i = 0; i < STRINGS; i++)
        free(world.expected[i]);
    ck_assert_uint_gt(world.refused, 20);
    ck_assert_uint_gt(world.begun - world.refused, 200);
    ck_assert_uint_gt(world.found, 20);
    free_arena(world.arena);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("page windows");
    tcase_set_timeout(tests, TEST_SECONDS);
    tcase_add_loop_test(tests, pages_behind_a_window_are_given_back, 0, MODELS);
    tcase_add_test(tests, a_window_needs_few_pages_whatever_the_length);
    tcase_add_test(tests, layers_have_few_different_windows);
    tcase_add_test(tests, what_a_window_is_promised_is_bounded);
    tcase_add_loop_test(tests, a_prefix_is_found_where_its_window_still_is, 0, 2);
    tcase_add_test(tests, a_shorter_prefix_is_found_where_a_longer_has_lost_its_window);
    tcase_add_test(tests, what_is_found_by_a_page_goes_with_it);
    tcase_add_loop_test(tests, whoever_was_promised_pages_has_them, 0, 2 * MODELS);
    return run_suite("page windows", tests);
}
