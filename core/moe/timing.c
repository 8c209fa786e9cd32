/* Plans and settles on the thread that runs the layer; tasks only read the clock. */
#include "core/moe/timing.h"

#include <stdlib.h>
#include <time.h>

#include "core/memory.h"

/* Sizes of tasks: 1, 2 to 3, 4 to 7, ... pairs; the last and all larger ones. */
enum { SIZES = 8 };

/* Some 100 us on one core, of which two looks at the clock are 0.1 % even where one takes 50 ns. */
static const uint64_t ALWAYS_TIMED_MACS = 1 << 22;

/* Of smaller tasks the first ones, when memory is cold, and then one in so many. */
enum { FIRST_TIMED = 4, TIMED_EVERY = 64 };

struct pace {
    uint32_t tasks;   /* so far */
    float ns_of_pair; /* in the last one that was timed */
};

size_t timing_init(struct timing *timing, size_t experts, bool wanted)
{
    *timing = (struct timing){0};
    if (!wanted)
        return 0;
    timing->paces = xcalloc(experts * SIZES, sizeof *timing->paces);
    timing->seconds = xcalloc(experts, sizeof *timing->seconds);
    return experts * (SIZES * sizeof *timing->paces + sizeof *timing->seconds);
}

void timing_close(struct timing *timing)
{
    free(timing->paces);
    free(timing->seconds);
}

static struct pace *pace_of(const struct timing *timing, const struct expert_task *task)
{
    const size_t bits = 31 - (size_t)__builtin_clz(task->count);
    return &timing->paces[task->expert * SIZES + (bits < SIZES ? bits : SIZES - 1)];
}

void timing_plan(struct timing *timing, struct expert_task *task, uint64_t macs)
{
    task->ns = 0;
    if (!timing->paces)
        return;
    const uint32_t before = pace_of(timing, task)->tasks++;
    task->ns = macs >= ALWAYS_TIMED_MACS || before < FIRST_TIMED || before % TIMED_EVERY == 0;
}

uint64_t timing_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Nanoseconds that the task took, or one like it. */
static float cost_of(const struct timing *timing, const struct expert_task *task)
{
    struct pace *pace = pace_of(timing, task);
    if (task->ns > 0)
        pace->ns_of_pair = (float)task->ns / (float)task->count;
    return pace->ns_of_pair * (float)task->count;
}

void timing_settle(struct timing *timing, const struct expert_task *tasks, size_t count)
{
    const float unit = 0x1p32f / 1e9f;
    for (size_t i = 0; timing->paces && i < count;) {
        const uint32_t expert = tasks[i].expert;
        float ns = 0;
        uint32_t pairs = 0;
        for (; i < count && tasks[i].expert == expert; i++) {
            ns += cost_of(timing, &tasks[i]);
            pairs += tasks[i].count;
        }
        timing->seconds[expert] = (uint64_t)(ns / (float)pairs * unit + 0.5f);
    }
}
