/* A team of threads that share one loop: they fork, take tasks until none is left, and join. */
#ifndef CORE_TEAM_H
#define CORE_TEAM_H

#include <stddef.h>
#include <stdint.h>

struct moed_team;

/* Calls task(context, index, worker) once for every index in [0, count), on any of the team's
 * threads; worker < team_size() identifies the thread, so that it can have memory of its own.
 * Returns when all tasks are done. With `team` NULL the calling thread runs them alone. Any thread
 * may get any index, so tasks must not depend on each other. */
void team_run(struct moed_team *team, size_t count,
              void (*task)(void *context, size_t index, unsigned worker), void *context);

/* Threads, the caller's included; 1 for NULL. */
unsigned team_size(const struct moed_team *team);

/* Returns `team` if `macs` are worth a fork, else NULL. */
struct moed_team *team_for(struct moed_team *team, uint64_t macs);

/* Sets how many multiply-accumulates are worth a fork; tests, whose models are small, pass 0. */
void team_fork_from(struct moed_team *team, uint64_t macs);

#endif
