/* A lane of sequences, which grow by a token a step.
 *
 * A step takes the next token of every running sequence, and beside them chunks of prompts, up to a
 * bound on its rows: a long prompt stops nobody's tokens. A sequence runs once it was promised the
 * pages that it may need at most, so nothing that runs is ever taken back; until then it waits, by
 * priority and then the oldest first. What a sequence says depends on nothing but its own tokens
 * and options.
 *
 * Loop thread only, but for the step itself: the forward pass and the choice of tokens. */
#ifndef SERVER_SEQUENCES_H
#define SERVER_SEQUENCES_H

#include "server/compute/sequence.h"

/* NULL with an error when there is no memory for it. */
MUST_CHECK struct sequences *sequences_new(struct model *model, struct scheduler *scheduler,
                                           const struct sequences_options *options,
                                           struct error *err);

/* What a cache of options->cache_bytes has room for; no more than the most sequences may need. */
struct moed_room sequences_room(const struct moed_model_info *info,
                                const struct sequences_options *options);

/* Whether a sequence of so many positions can ever run; the error says what is too long. */
MUST_CHECK int sequences_check(const struct sequences *sequences, size_t prompt, size_t limit,
                               struct error *err);

/* The most positions of a sequence that can ever run. */
size_t sequences_most(const struct sequences *sequences);

/* What a request's prompts count for in the queue: several take no more than half of it. */
size_t sequences_queued(const struct sequences *sequences, size_t prompts, size_t tokens);

/* Whether prompts of so many tokens, those of one request, may be queued now. */
MUST_CHECK int sequences_check_room(const struct sequences *sequences, size_t prompts,
                                    size_t tokens, struct error *err);

/* When a refused client may come back: seconds until what waits has begun to run. */
unsigned sequences_retry_after(const struct sequences *sequences);

/* Queues a sequence that passed both checks. */
void sequences_submit(struct sequences *sequences, struct sequence *sequence);

/* Gives up on a sequence; sequence->error says why. on_end follows, at once unless it takes part in
 * a step that is being computed. */
void sequences_cancel(struct sequences *sequences, struct sequence *sequence);

/* Takes no part in steps until it is resumed: its reader is slow. */
void sequences_pause(struct sequence *sequence);
void sequences_resume(struct sequences *sequences, struct sequence *sequence);

#endif
