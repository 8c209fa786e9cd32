/* The end of a sequence, and what the gauges say of those that are left. */
#include "server/compute/sequences_end.h"

#include <stdlib.h>

void sequences_show_as(struct sequences *sequences, struct sequences_shown now)
{
    struct sequence_gauges *gauges = &sequences->stats->sequences.gauges;
    const struct sequences_shown *was = &sequences->shown;
    atomic_fetch_add(&gauges->running, now.running - was->running);
    atomic_fetch_add(&gauges->waiting, now.waiting - was->waiting);
    atomic_fetch_add(&gauges->pages_used, now.pages_used - was->pages_used);
    atomic_fetch_add(&gauges->pages, now.pages - was->pages);
    atomic_fetch_add(&sequences->stats->queue_rows, now.tokens - was->tokens);
    sequences->shown = now;
}

void sequences_show(struct sequences *sequences)
{
    const struct moed_pages *pages = sequences->pages;
    sequences_show_as(sequences,
                      (struct sequences_shown){.running = sequences->running_count,
                                               .waiting = sequences->waiting_count,
                                               .tokens = sequences->waiting_tokens,
                                               .pages_used = pages ? moed_pages_used(pages) : 0,
                                               .pages = pages ? moed_pages_total(pages) : 0});
}

/* ---- the end of a sequence ---- */

void sequences_leave_queue(struct sequences *sequences, struct sequence *sequence)
{
    TAILQ_REMOVE(&sequences->waiting, sequence, link);
    sequences->waiting_count--;
    sequences->waiting_tokens -= sequence->prompt;
    sequences->queued -= sequence->queued;
}

void sequences_end(struct sequences *sequences, struct sequence *sequence)
{
    if (sequence->state == SEQUENCE_RUNS) {
        TAILQ_REMOVE(&sequences->running, sequence, link);
        sequences->running_count--;
        moed_session_free(sequence->session);
        quarantined_release(sequence->quarantined);
        sequence->session = NULL;
        sequence->quarantined = NULL;
    } else {
        sequences_leave_queue(sequences, sequence);
    }
    sequence->state = SEQUENCE_ENDED;
    sequences->blocked = false;
    sequences_show(sequences);
    if (sequences->waiting_count > 0)
        scheduler_wake(sequences->scheduler, &sequences->lane);
    sequence->calls->on_end(sequence);
}

void sequence_close(struct sequence *sequence, const struct moed_model_info *info)
{
    for (size_t i = 0; sequence->routing && i < info->gate_count; i++) {
        free(sequence->routing[i].experts);
        free(sequence->routing[i].weights);
    }
    free(sequence->routing);
    free(sequence->choices);
    free(sequence->tokens);
    sampler_history_free(sequence->history);
}
