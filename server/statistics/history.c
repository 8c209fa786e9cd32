/* A ring of marks for each window. A mark is made only if something was counted since the last, so
 * that idle models take no memory: the newest mark before a time holds the totals of that time. */
#include "server/statistics/history.h"

#include <string.h>

static const struct {
    const char *name;
    uint64_t step_ns; /* a twelfth of its length */
} WINDOWS[] = {[WINDOW_1M] = {"1m", UINT64_C(5000000000)},
               [WINDOW_5M] = {"5m", UINT64_C(25000000000)},
               [WINDOW_1H] = {"1h", UINT64_C(300000000000)},
               [WINDOW_ALL] = {"all", 0}};

const char *window_name(enum window window)
{
    return WINDOWS[window].name;
}

int window_find(const char *name)
{
    for (int i = 0; i <= WINDOW_ALL; i++)
        if (strcmp(WINDOWS[i].name, name) == 0)
            return i;
    return -1;
}

/* ---- marks ---- */

static struct mark *newest(struct ring *ring)
{
    return &ring->marks[(ring->count - 1) % HISTORY_MARKS];
}

static void push_taken(struct ring *ring, uint64_t step, struct tally *totals)
{
    struct mark *mark = &ring->marks[ring->count % HISTORY_MARKS];
    tally_free(mark->totals);
    *mark = (struct mark){step, totals};
    ring->step = step;
    ring->count++;
}

static void push(struct ring *ring, uint64_t step, const struct tally *totals)
{
    push_taken(ring, step, totals ? tally_copy(totals) : NULL);
}

void history_add_mark(struct history *history, enum window window, uint64_t time,
                      struct tally *totals)
{
    const uint64_t step_ns = WINDOWS[window].step_ns;
    push_taken(&history->rings[window], (time + step_ns - 1) / step_ns, totals);
}

uint64_t history_time(enum window window, const struct mark *mark)
{
    return mark->step * WINDOWS[window].step_ns;
}

/* Every count comes with a row or a label. */
static bool has_changed(const struct mark *mark, const struct tally *totals)
{
    const struct tally *then = mark->totals;
    if (!totals || !then)
        return totals != then;
    return totals->rows != then->rows || totals->labelled != then->labelled;
}

void history_init(struct history *history, const struct tally *totals, uint64_t now)
{
    *history = (struct history){.began = now, .base = totals ? tally_copy(totals) : NULL};
    for (size_t i = 0; i < WINDOW_COUNT; i++)
        push(&history->rings[i], now / WINDOWS[i].step_ns, totals);
}

void history_close(struct history *history)
{
    tally_free(history->base);
    for (size_t i = 0; i < WINDOW_COUNT; i++)
        for (size_t j = 0; j < HISTORY_MARKS; j++)
            tally_free(history->rings[i].marks[j].totals);
}

void history_join(struct history *history, struct history *earlier, const struct tally *totals,
                  uint64_t now)
{
    struct history joined;
    history_init(&joined, totals, now);
    tally_free(joined.base);
    joined.base = history->base;
    tally_join(&joined.base, earlier->base);
    joined.began = history->began < earlier->began ? history->began : earlier->began;
    history->base = earlier->base = NULL;
    history_close(history);
    history_close(earlier);
    *earlier = (struct history){0};
    *history = joined;
}

bool history_is_due(const struct history *history, uint64_t now)
{
    bool due = false;
    for (size_t i = 0; i < WINDOW_COUNT; i++)
        due |= now / WINDOWS[i].step_ns > history->rings[i].step;
    return due;
}

void history_tick(struct history *history, const struct tally *totals, uint64_t now)
{
    for (size_t i = 0; i < WINDOW_COUNT; i++) {
        struct ring *ring = &history->rings[i];
        uint64_t step = now / WINDOWS[i].step_ns;
        if (step > ring->step && has_changed(newest(ring), totals))
            push(ring, step, totals);
        ring->step = step;
    }
}

/* ---- windows ---- */

/* The newest mark not after `step`; the oldest where all are. */
static const struct mark *mark_before(const struct ring *ring, uint64_t step)
{
    size_t kept = ring->count < HISTORY_MARKS ? ring->count : HISTORY_MARKS;
    const struct mark *mark = NULL;
    for (size_t age = 1; age <= kept; age++) {
        mark = &ring->marks[(ring->count - age) % HISTORY_MARKS];
        if (mark->step <= step)
            break;
    }
    return mark;
}

const struct tally *history_begin(const struct history *history, enum window window, unsigned back,
                                  uint64_t now, uint64_t *began)
{
    *began = history->began;
    if (window == WINDOW_ALL)
        return history->base;
    uint64_t step_ns = WINDOWS[window].step_ns, steps = (back + 1) * WINDOW_STEPS;
    uint64_t step = now / step_ns > steps ? now / step_ns - steps : 0;
    if (step * step_ns > *began)
        *began = step * step_ns;
    return mark_before(&history->rings[window], step)->totals;
}
