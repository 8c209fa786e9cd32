/* A small model of sequences with an arena of pages, and what its sessions should give. */
#ifndef TEST_PAGES_FIXTURE_H
#define TEST_PAGES_FIXTURE_H

#include "core/model.h"
#include "core/session.h"
#include "sequence_model.h"

enum { PAGE = MOED_PAGE_POSITIONS };

/* A model, an engine and pages. */
struct arena {
    struct sequence_weights weights;
    struct moed_model *model;
    struct moed_pages *pages;
    struct engine engine;
};

static inline struct arena *new_arena(const struct attention_options *options,
                                      const struct moed_room *room)
{
    struct error err = ERROR_INIT;
    struct arena *arena = xcalloc(1, sizeof *arena);
    arena->model = new_sequence_model(options, MOED_KV_F16, &arena->weights);
    arena->pages = moed_pages_new(arena->model, room, &err);
    ck_assert_msg(arena->pages != NULL, "%s", err.text);
    arena->engine = new_engine(arena->model, LONGEST, 1);
    return arena;
}

static inline void free_arena(struct arena *arena)
{
    ck_assert_uint_eq(moed_pages_used(arena->pages), 0);
    moed_pages_free(arena->pages);
    free_engine(&arena->engine);
    free_weights(&arena->weights);
    moed_model_free(arena->model);
    free(arena);
}

static inline struct moed_session *open_session(const struct arena *arena)
{
    return moed_session_new(arena->pages);
}

/* Runs the next `rows` of these tokens; y: those rows' logits. */
static inline void run(const struct arena *arena, struct moed_session *session,
                       const int32_t *tokens, size_t rows, float *y)
{
    const size_t done = moed_session_length(session);
    const struct moed_span span = {.rows = rows, .position = done, .session = session};
    const void *const inputs[] = {tokens + done};
    float *const outputs[] = {y};
    moed_forward(arena->model, arena->engine.scratch, NULL,
                 &(struct moed_batch){&span, 1, inputs, outputs, NULL});
}

/* [count, WIDTH] what the tokens should give; the caller frees. */
static inline float *expected_of(const struct arena *arena, const int32_t *tokens, size_t count)
{
    struct moed_pages *pages;
    struct moed_session *session = new_session(arena->model, count, &pages);
    float *y = xmalloc(count * WIDTH * sizeof *y);
    run(arena, session, tokens, count, y);
    moed_session_free(session);
    moed_pages_free(pages);
    return y;
}

/* Every page's holders are the sessions that have it; what nobody has is free, or idle and kept.
 * Returns how many are held. */
static inline size_t check_kind(const struct moed_pages *pages, size_t index,
                                struct moed_session *const *sessions, size_t count)
{
    const struct page_kind *kind = &pages->kinds[index];
    uint32_t *holders = xcalloc(kind->total, sizeof *holders);
    size_t used = 0, free_pages = 0, idle = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t j = sessions[i] ? sessions[i]->kinds[index].first : 0;
             sessions[i] && j < sessions[i]->held; j++)
            holders[sessions[i]->kinds[index].table[j]]++;
    for (size_t i = 0; i < kind->total; i++) {
        ck_assert_uint_eq(kind->list[i].holders, holders[i]);
        used += holders[i] > 0;
    }
    for (uint32_t i = kind->first_free; i != NO_PAGE; i = kind->list[i].after, free_pages++)
        ck_assert_uint_eq(holders[i], 0);
    for (uint32_t i = kind->list[kind->total].after; i != kind->total;
         i = kind->list[i].after, idle++)
        ck_assert(holders[i] == 0 && kind->list[i].serial != 0);
    ck_assert_uint_eq(free_pages, kind->free_count);
    ck_assert_uint_eq(idle, kind->idle_count);
    ck_assert_uint_eq(used + idle + free_pages, kind->total);
    free(holders);
    return used;
}

#endif
