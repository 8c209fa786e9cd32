/* Sliding windows: totals as they were at the ends of past steps, so that a window is the totals of
 * now minus those of then. Counting itself knows nothing of windows and pays nothing for them.
 *
 * Each window moves by steps of a twelfth of its length and is remembered twice over, so that it
 * can be compared with the one before. A remembered total takes as much memory as the counts
 * themselves: 96 bytes for each expert, and 336 more once labels have come. There are at most
 * WINDOW_COUNT * HISTORY_MARKS of them, 8 KiB for each expert and with labels 34 KiB, of each tag
 * in use; none for steps in which nothing was counted. */
#ifndef SERVER_HISTORY_H
#define SERVER_HISTORY_H

#include "server/compute/tally.h"

/* WINDOW_ALL begins at the load, or at the last reset. */
enum window { WINDOW_1M, WINDOW_5M, WINDOW_1H, WINDOW_COUNT, WINDOW_ALL = WINDOW_COUNT };

/* "1m", "5m", "1h", "all". */
const char *window_name(enum window window);

/* -1: there is none of that name. */
int window_find(const char *name);

enum { WINDOW_STEPS = 12, HISTORY_MARKS = 2 * WINDOW_STEPS + 2 };

/* The totals at the beginning of a step, which is that of all later ones up to the next mark. */
struct mark {
    uint64_t step;
    struct tally *totals; /* owned; NULL: nothing had been counted */
};

struct history {
    uint64_t began;     /* stats_now(), like all times here */
    struct tally *base; /* the totals when it began; owned; NULL: zero */
    struct ring {
        uint64_t step; /* of the last tick */
        size_t count;  /* of marks, ever; the newest is marks[(count - 1) % HISTORY_MARKS] */
        struct mark marks[HISTORY_MARKS];
    } rings[WINDOW_COUNT];
};

/* `totals` are those of now, copied; NULL: zero. */
void history_init(struct history *history, const struct tally *totals, uint64_t now);
void history_close(struct history *history);

/* For a history that is read back, oldest mark first: makes a mark of the totals, which it takes
 * (NULL: zero), at a time before now. The step's end stands for the time. */
void history_add_mark(struct history *history, enum window window, uint64_t time,
                      struct tally *totals);

/* Puts another one of an earlier process, which it closes, before this one: both are counted from
 * the earlier of their beginnings. `totals` are those of both together (NULL: zero), and windows
 * begin anew with them. */
void history_join(struct history *history, struct history *earlier, const struct tally *totals,
                  uint64_t now);

/* Remembers the totals (NULL: zero) where a step has ended since the last call. To be called about
 * as often as the shortest step ends; a late call counts what came meanwhile to the step before. */
void history_tick(struct history *history, const struct tally *totals, uint64_t now);

/* Whether a step has ended since the last tick. */
bool history_is_due(const struct history *history, uint64_t now);

/* The shortest step, in milliseconds. */
enum { HISTORY_TICK_MS = 5000 };

/* When a mark was made. */
uint64_t history_time(enum window window, const struct mark *mark);

/* Totals when the window began that is `back` windows before the latest one (0: that itself, 1: the
 * one before). Borrowed; NULL: zero. *began receives the time. WINDOW_ALL has none before it. */
const struct tally *history_begin(const struct history *history, enum window window, unsigned back,
                                  uint64_t now, uint64_t *began);

#endif
