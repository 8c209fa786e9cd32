/* One step of a lane of sequences: which rows it has, and what comes of them. Private to
 * sequences*.c. */
#ifndef SERVER_SEQUENCES_STEP_H
#define SERVER_SEQUENCES_STEP_H

#include "server/compute/sequence.h"

MUST_CHECK int step_init(struct sequences *sequences, struct error *err);
void step_close(struct step *step);

/* Of the next step, if all that waits may run. */
size_t step_expected_rows(const struct sequences *sequences);

/* Fills the step with rows of the running sequences. */
void step_compose(struct sequences *sequences);

/* Computes them and chooses tokens; any thread. */
void step_run(struct sequences *sequences, struct moed_team *team);

/* Counts the step, and gives every sequence what came of its rows. */
void step_deliver(struct sequences *sequences, uint64_t compute_ns);

/* Tokens that are there and not computed. */
static inline size_t sequence_todo(const struct sequence *sequence)
{
    return sequence->count - sequence->rows;
}

#endif
