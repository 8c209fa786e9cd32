/* Pages: admission, prefixes found again, reference counts, and a random life of many sessions
 * against what they should give. What layers with a window need: test_page_windows.c. */
#include "core/intervention.h"
#include "pages_fixture.h"

static const struct attention_options plain = {"plain",        2,           1,          8,
                                               .causal = true, .rotary = 8, .moe = true};

static struct arena *new_pages(size_t pages)
{
    return new_arena(&plain, &(struct moed_room){.positions = pages * PAGE});
}

/* ---- admission ---- */

START_TEST(what_does_not_fit_is_refused_when_it_is_reserved)
{
    struct arena *arena = new_pages(4);
    struct moed_session *a = open_session(arena), *b = open_session(arena);
    ck_assert_uint_eq(moed_pages_total(arena->pages), 4);
    ck_assert_int_eq(moed_session_reserve(a, 3 * PAGE - 1), 0);
    ck_assert_uint_eq(moed_pages_used(arena->pages), 3);
    ck_assert_int_eq(moed_session_reserve(a, 1), 0); /* has more */
    ck_assert_int_eq(moed_session_reserve(b, PAGE + 1), -1);
    ck_assert_uint_eq(moed_pages_used(arena->pages), 3);
    ck_assert_int_eq(moed_session_reserve(b, PAGE), 0);
    ck_assert_int_eq(moed_session_reserve(a, 3 * PAGE + 1), -1);
    moed_session_free(b);
    ck_assert_int_eq(moed_session_reserve(a, 3 * PAGE + 1), 0);
    ck_assert_int_eq(moed_session_reserve(a, SEQUENCE_CONTEXT + 1), -1);
    moed_session_free(a);
    free_arena(arena);
}
END_TEST

/* ---- prefixes ---- */

/* Computes the tokens in a session of its own and closes it. */
static void compute(const struct arena *arena, const int32_t *tokens, size_t count)
{
    static float y[LONGEST * WIDTH];
    struct moed_session *session = open_session(arena);
    ck_assert_int_eq(moed_session_reserve(session, count), 0);
    run(arena, session, tokens, count, y);
    moed_session_free(session);
}

/* Expects that so many positions are found, and that the rest gives what it should. */
static void expect_prefix(const struct arena *arena, const int32_t *tokens, size_t count,
                          size_t found)
{
    static float y[LONGEST * WIDTH];
    struct moed_session *session = open_session(arena);
    float *expected = expected_of(arena, tokens, count);
    ck_assert_uint_eq(moed_session_find_prefix(session, tokens, count), found);
    ck_assert_uint_eq(moed_session_length(session), found);
    ck_assert_int_eq(moed_session_reserve(session, count), 0);
    run(arena, session, tokens, count - found, y);
    ck_assert_mem_eq(y, expected + found * WIDTH, (count - found) * WIDTH * sizeof *y);
    moed_session_free(session);
    free(expected);
}

START_TEST(a_prefix_is_found_by_its_tokens)
{
    struct arena *arena = new_pages(16);
    int32_t tokens[LONGEST];
    fill_tokens(tokens, LONGEST, 3);
    expect_prefix(arena, tokens, 100, 0);
    ck_assert_uint_eq(moed_pages_idle(arena->pages), 3);
    expect_prefix(arena, tokens, 100, 96);
    expect_prefix(arena, tokens, 97, 96);
    expect_prefix(arena, tokens, 96, 64); /* one row is left */
    expect_prefix(arena, tokens, 65, 64);
    expect_prefix(arena, tokens, 32, 0);
    expect_prefix(arena, tokens + 1, 100, 0);
    tokens[70] = (tokens[70] + 1) % SEQUENCE_TOKENS;
    expect_prefix(arena, tokens, 100, 64);
    tokens[0] = (tokens[0] + 1) % SEQUENCE_TOKENS;
    expect_prefix(arena, tokens, 100, 0);
    free_arena(arena);
}
END_TEST

/* A running sequence's full pages are found too, once they are shared; and only those. */
START_TEST(running_sequences_share)
{
    static float y[LONGEST * WIDTH];
    struct arena *arena = new_pages(5);
    int32_t tokens[LONGEST];
    fill_tokens(tokens, LONGEST, 9);
    struct moed_session *first = open_session(arena), *second = open_session(arena);
    ck_assert_int_eq(moed_session_reserve(first, 3 * PAGE), 0);
    run(arena, first, tokens, 2 * PAGE + 5, y);
    ck_assert_uint_eq(moed_session_find_prefix(second, tokens, 3 * PAGE), 0);
    moed_session_share(first);
    ck_assert_uint_eq(moed_session_find_prefix(second, tokens, 3 * PAGE), 2 * PAGE);
    ck_assert_uint_eq(moed_pages_used(arena->pages), 3);
    ck_assert_int_eq(moed_session_reserve(second, 4 * PAGE), 0);
    ck_assert_uint_eq(moed_pages_used(arena->pages), 5);
    moed_session_free(first);
    ck_assert_uint_eq(moed_pages_used(arena->pages), 4);
    moed_session_free(second);
    ck_assert_uint_eq(moed_pages_idle(arena->pages), 2);
    free_arena(arena);
}
END_TEST

/* A page that two sequences have is copied for the one that goes back into it. */
START_TEST(going_back_into_a_shared_page_changes_no_other)
{
    static float y[LONGEST * WIDTH];
    struct arena *arena = new_pages(6);
    int32_t tokens[LONGEST], others[LONGEST];
    fill_tokens(tokens, LONGEST, 12);
    memcpy(others, tokens, sizeof tokens);
    fill_tokens(others + 40, LONGEST - 40, 13);
    float *expected = expected_of(arena, tokens, 3 * PAGE), *other = expected_of(arena, others, 60);
    compute(arena, tokens, 2 * PAGE);
    struct moed_session *a = open_session(arena), *b = open_session(arena);
    ck_assert_uint_eq(moed_session_find_prefix(a, tokens, 3 * PAGE), 2 * PAGE);
    ck_assert_uint_eq(moed_session_find_prefix(b, tokens, 3 * PAGE), 2 * PAGE);
    moed_session_truncate(b, 40);
    ck_assert_int_eq(moed_session_reserve(b, 60), 0);
    ck_assert_uint_eq(moed_pages_used(arena->pages), 3);
    run(arena, b, others, 20, y);
    ck_assert_mem_eq(y, other + 40 * WIDTH, 20 * WIDTH * sizeof *y);
    ck_assert_int_eq(moed_session_reserve(a, 3 * PAGE), 0);
    run(arena, a, tokens, PAGE, y);
    ck_assert_mem_eq(y, expected + 2 * PAGE * WIDTH, PAGE * WIDTH * sizeof *y);
    moed_session_free(a);
    /* Alone, the page is not copied, but not found any more either. */
    moed_session_truncate(b, 0);
    ck_assert_uint_eq(moed_session_find_prefix(b, tokens, 3 * PAGE + 1), 3 * PAGE);
    moed_session_truncate(b, 40);
    ck_assert_int_eq(moed_session_reserve(b, 60), 0);
    run(arena, b, others, 20, y);
    ck_assert_mem_eq(y, other + 40 * WIDTH, 20 * WIDTH * sizeof *y);
    moed_session_free(b);
    expect_prefix(arena, tokens, 3 * PAGE, PAGE);
    free(expected);
    free(other);
    free_arena(arena);
}
END_TEST

/* What goes on in the middle of a page that it found is found by all of the page's tokens. */
START_TEST(a_found_page_is_gone_on_with)
{
    static float y[LONGEST * WIDTH];
    struct arena *arena = new_pages(8);
    int32_t tokens[LONGEST], others[LONGEST];
    fill_tokens(tokens, LONGEST, 14);
    memcpy(others, tokens, sizeof tokens);
    fill_tokens(others + 40, LONGEST - 40, 15);
    compute(arena, tokens, 2 * PAGE);
    struct moed_session *session = open_session(arena);
    ck_assert_uint_eq(moed_session_find_prefix(session, tokens, 3 * PAGE), 2 * PAGE);
    moed_session_truncate(session, 40);
    ck_assert_int_eq(moed_session_reserve(session, 2 * PAGE), 0);
    run(arena, session, others, 2 * PAGE - 40, y);
    moed_session_free(session);
    expect_prefix(arena, others, 3 * PAGE, 2 * PAGE);
    free_arena(arena);
}
END_TEST

/* Of pages that nobody has, those that were left first give way; of one sequence, the last first.
 */
START_TEST(the_oldest_prefix_gives_way)
{
    struct arena *arena = new_pages(6);
    int32_t a[LONGEST], b[LONGEST], c[LONGEST];
    fill_tokens(a, LONGEST, 31);
    fill_tokens(b, LONGEST, 32);
    fill_tokens(c, LONGEST, 33);
    compute(arena, a, 2 * PAGE + 1);
    compute(arena, b, 3 * PAGE);
    ck_assert_uint_eq(moed_pages_idle(arena->pages), 5);
    expect_prefix(arena, a, 2 * PAGE + 1, 2 * PAGE);
    compute(arena, c, 2 * PAGE); /* takes the free page and the last one of b */
    ck_assert_uint_eq(moed_pages_idle(arena->pages), 6);
    struct moed_session *session = open_session(arena);
    ck_assert_uint_eq(moed_session_find_prefix(session, b, LONGEST), 2 * PAGE);
    moed_session_truncate(session, 0);
    ck_assert_uint_eq(moed_session_find_prefix(session, a, LONGEST), 2 * PAGE);
    moed_session_truncate(session, 0);
    ck_assert_uint_eq(moed_session_find_prefix(session, c, LONGEST), 2 * PAGE);
    moed_session_free(session);
    free_arena(arena);
}
END_TEST

/* Pages of one hash are told apart by tokens and the page before. */
START_TEST(a_hash_alone_finds_nothing)
{
    int32_t tokens[PAGE], others[PAGE];
    struct arena *arena = new_pages(4);
    struct moed_pages *pages = arena->pages;
    fill_tokens(tokens, PAGE, 1);
    fill_tokens(others, PAGE, 2);
    struct page *list = pages->kinds[0].list;
    const uint32_t a = pages_take(pages, 0), b = pages_take(pages, 0), c = pages_take(pages, 0);
    ck_assert_uint_eq(pages_keep(pages, a, 0, tokens), a);
    const uint64_t first = list[a].serial;
    ck_assert_uint_eq(pages_keep(pages, b, first, others), b);
    const uint64_t second = list[b].serial;
    ck_assert_uint_ne(first, second);
    ck_assert_uint_eq(pages_find(pages, first, others), b);
    /* Now as if a, b and the page that is looked for had one hash. */
    ck_assert_uint_eq(pages_keep(pages, c, second, others), c);
    const uint64_t hash = list[c].hash;
    pages_forget(pages, c);
    list[a] = (struct page){.holders = 1, .hash = hash, .serial = first, .next = b};
    list[b].hash = hash;
    list[b].next = NO_PAGE;
    for (size_t i = 0; i <= pages->bucket_mask; i++)
        pages->buckets[i] = a;
    ck_assert_uint_eq(pages_find(pages, second, others), NO_PAGE);
    list[b].parent = second;
    ck_assert_uint_eq(pages_find(pages, second, others), b);
    pages_release(pages, 0, a);
    pages_release(pages, 0, b);
    pages_release(pages, 0, c);
    free_arena(arena);
}
END_TEST

/* What an intervention has changed is found by nobody. */
START_TEST(interventions_are_not_shared)
{
    static float y[LONGEST * WIDTH];
    struct error err = ERROR_INIT;
    struct arena *arena = new_pages(4);
    int32_t tokens[2 * PAGE];
    fill_tokens(tokens, 2 * PAGE, 4);
    struct moed_session *session = open_session(arena);
    ck_assert_int_eq(moed_session_reserve(session, 2 * PAGE), 0);
    const struct moed_model_info *info = moed_model_info(arena->model);
    struct moed_intervention *intervention = moed_intervention_new(info);
    moed_intervention_silence(intervention, info, 0, 1);
    ck_assert_int_eq(moed_intervention_finish(intervention, info, &err), 0);
    const struct moed_span span = {
        .rows = 2 * PAGE, .session = session, .intervention = intervention};
    const void *const inputs[] = {tokens};
    float *const outputs[] = {y};
    moed_forward(arena->model, arena->engine.scratch, NULL,
                 &(struct moed_batch){&span, 1, inputs, outputs, NULL});
    moed_session_free(session);
    moed_intervention_free(intervention);
    ck_assert_uint_eq(moed_pages_idle(arena->pages), 0);
    free_arena(arena);
}
END_TEST

/* ---- a random life ---- */

enum { LIVES = 6, STRINGS = 5, LENGTH = 4 * PAGE + 9, ARENA = 14 };

/* A session, the string whose tokens it is given, and what they should give. */
struct life {
    struct moed_session *session; /* NULL: none now */
    size_t string, reserved, promised;
};

struct world {
    struct arena *arena;
    int32_t tokens[STRINGS][LENGTH]; /* with beginnings in common */
    float *expected[STRINGS];
    struct life lives[LIVES];
    uint32_t state;
};

static void check_pages(const struct world *world)
{
    struct moed_session *sessions[LIVES];
    size_t promised = 0;
    for (size_t i = 0; i < LIVES; i++) {
        sessions[i] = world->lives[i].session;
        promised += sessions[i] ? sessions[i]->promised - sessions[i]->held : 0;
    }
    const size_t used = check_kind(world->arena->pages, 0, sessions, LIVES);
    ck_assert_uint_eq(used + promised, moed_pages_used(world->arena->pages));
    ck_assert_uint_le(used + promised, ARENA);
}

static void begin_life(struct world *world, struct life *life)
{
    life->string = next_random(&world->state) % STRINGS;
    life->session = open_session(world->arena);
    if (next_random(&world->state) % 4)
        moed_session_find_prefix(life->session, world->tokens[life->string],
                                 1 + next_random(&world->state) % LENGTH);
    life->reserved = life->promised = moed_session_length(life->session);
}

/* Succeeds if and only if there are so many pages to promise, or if they were promised. */
static void ask_for(struct world *world, struct life *life, bool now)
{
    const struct moed_session *session = life->session;
    const struct page_kind *kind = &world->arena->pages->kinds[0];
    const size_t length = session->length, whole = length / PAGE;
    const size_t positions = length + next_random(&world->state) % (LENGTH - length + 1);
    const size_t wanted = (positions + PAGE - 1) / PAGE;
    size_t more = wanted > session->promised ? wanted - session->promised : 0;
    if (length % PAGE && kind->list[session->kinds[0].table[whole]].holders > 1)
        more++;
    const bool fits = positions <= life->reserved || more <= pages_to_promise(world->arena->pages);
    ck_assert(fits || positions > life->promised);
    ck_assert_int_eq(now ? moed_session_reserve(life->session, positions)
                         : moed_session_promise(life->session, positions),
                     fits ? 0 : -1);
    if (fits && positions > life->promised)
        life->promised = positions;
    if (fits && now && positions > life->reserved)
        life->reserved = positions;
}

static void go_on(struct world *world, struct life *life)
{
    float y[LENGTH * WIDTH];
    const size_t length = moed_session_length(life->session), left = life->reserved - length;
    if (left == 0)
        return;
    const size_t rows = 1 + next_random(&world->state) % left;
    run(world->arena, life->session, world->tokens[life->string], rows, y);
    ck_assert_mem_eq(y, world->expected[life->string] + length * WIDTH, rows * WIDTH * sizeof *y);
}

/* The next string may be any with the same beginning. */
static void go_back(struct world *world, struct life *life)
{
    const size_t length = moed_session_length(life->session);
    const size_t kept = length ? next_random(&world->state) % (length + 1) : 0;
    const size_t other = next_random(&world->state) % STRINGS;
    moed_session_truncate(life->session, kept);
    life->reserved = life->promised = kept;
    if (memcmp(world->tokens[life->string], world->tokens[other], kept * sizeof(int32_t)) == 0)
        life->string = other;
}

static void live(struct world *world, struct life *life)
{
    if (!life->session) {
        begin_life(world, life);
        return;
    }
    switch (next_random(&world->state) % 16) {
    case 0:
    case 1:
        moed_session_free(life->session);
        life->session = NULL;
        break;
    case 2:
    case 3:
        go_back(world, life);
        break;
    case 4:
    case 5:
    case 6:
        moed_session_share(life->session);
        break;
    case 7:
    case 8:
        ask_for(world, life, false);
        break;
    case 9:
    case 10:
    case 11:
        ask_for(world, life, true);
        break;
    default:
        go_on(world, life);
    }
}

START_TEST(any_life_of_sessions_gives_what_it_should)
{
    struct world world = {.arena = new_pages(ARENA), .state = 5};
    for (size_t i = 0; i < STRINGS; i++) {
        fill_tokens(world.tokens[i], LENGTH, 70 + (uint32_t)i);
        if (i > 0)
            memcpy(world.tokens[i], world.tokens[i - 1], (i * 43 + 5) % LENGTH * sizeof(int32_t));
        world.expected[i] = expected_of(world.arena, world.tokens[i], LENGTH);
    }
    for (int step = 0; step < 6000; step++) {
        live(&world, &world.lives[next_random(&world.state) % LIVES]);
        check_pages(&world);
    }
    for (size_t i = 0; i < LIVES; i++)
        moed_session_free(world.lives[i].session);
    for (size_t i = 0; i < STRINGS; i++)
        free(world.expected[i]);
    free_arena(world.arena);
}
END_TEST

TEST_MAIN("pages", what_does_not_fit_is_refused_when_it_is_reserved,
          a_prefix_is_found_by_its_tokens, running_sequences_share,
          going_back_into_a_shared_page_changes_no_other, a_found_page_is_gone_on_with,
          the_oldest_prefix_gives_way, a_hash_alone_finds_nothing, interventions_are_not_shared,
          any_life_of_sessions_gives_what_it_should)
