/* What the experts of a MoE layer cost, measured where they run. Private to core/.
 *
 * Looking at the clock twice takes longer than a small expert. A task of much work is timed always;
 * of others, those of an expert and of about as many pairs, the first few and then one in many,
 * whose time stands for the next ones, too. */
#ifndef CORE_TIMING_H
#define CORE_TIMING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A run of one expert's pairs: what one thread of the team takes at a time. */
struct expert_task {
    uint32_t expert;
    uint32_t first, count; /* positions */
    uint32_t ns;           /* that it took; 0: it is not timed */
};

/* Lives in the scratch, one for each MoE layer. */
struct timing {
    struct pace *paces; /* [experts, sizes of tasks]; NULL: nothing is timed */
    uint64_t *seconds;  /* [experts] of each pair in the last forward, in units of 2^-32; of experts
                           that were not run, whatever it was */
};

/* `wanted`: else nothing is timed. Returns the bytes that it has allocated. */
size_t timing_init(struct timing *timing, size_t experts, bool wanted);
void timing_close(struct timing *timing);

/* The task's `ns` becomes 1 if it is to be timed, else 0. macs: of the task. */
void timing_plan(struct timing *timing, struct expert_task *task, uint64_t macs);

/* Nanoseconds, of an origin of its own. */
uint64_t timing_now(void);

/* Fills `seconds` from the tasks of a forward pass, which are sorted by expert. */
void timing_settle(struct timing *timing, const struct expert_task *tasks, size_t count);

#endif
