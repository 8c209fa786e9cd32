/* Sequences, a step of theirs and the lane that computes them: what they are. sequences.h is what
 * one does with them. */
#ifndef SERVER_SEQUENCE_H
#define SERVER_SEQUENCE_H

#include "core/sampler.h"
#include "server/compute/pace.h"
#include "server/compute/priority.h"
#include "server/compute/scheduler.h"
#include "server/models/model.h"

struct sequences_options {
    size_t loop;             /* which shard of the statistics is this loop's */
    size_t max_sequences;    /* that run at a time */
    size_t step_tokens;      /* rows of a step; more than max_sequences */
    size_t cache_bytes;      /* of keys and values, at most */
    size_t max_queue_tokens; /* of the prompts that wait; a prompt alone may be longer */
    unsigned threads;        /* of the compute team */
    /* The model's files were truncated while they were mapped; called once for a model. */
    void (*on_damaged)(void *context);
    void *context;
};

struct sequence;

struct sequence_calls {
    /* sequence->tokens has one more. False: it was the last. */
    bool (*on_token)(struct sequence *sequence);
    /* Nothing of it waits or runs any more; if it failed, or was cancelled, sequence->error says
     * why. The caller of sequences_submit() frees it, here or later. */
    void (*on_end)(struct sequence *sequence);
};

enum sequence_state { SEQUENCE_NEW, SEQUENCE_WAITS, SEQUENCE_RUNS, SEQUENCE_ENDED };

/* Experts and weights of one gate for the rows of a sequence so far: [rows, top_k]. */
struct sequence_routing {
    int32_t *experts;
    float *weights;
};

struct sequence {
    /* What is asked for, filled in before it is submitted. */
    const struct sequence_calls *calls;
    int32_t *tokens; /* [limit] the prompt, then what is generated; owned */
    size_t prompt;   /* tokens, at least 1 */
    size_t limit;    /* tokens in the end at most; `prompt`: nothing is generated */
    float *vector;   /* what an encoder makes of the prompt goes there; NULL otherwise */
    struct sampler_options sampling;
    bool scores;        /* log probabilities of the generated tokens are kept, */
    bool scores_prompt; /* and of the prompt's */
    size_t top;         /* with so many alternatives */
    size_t place;       /* among the sequences of its request */
    enum job_priority priority;
    size_t queued; /* tokens that count against the limit of the queue while it waits */
    bool keeps_routing;
    const struct moed_intervention *asked; /* of the gates, with what is in quarantine; NULL: the
                                              request asks for nothing */
    bool counted;                          /* in the statistics of routing */
    size_t tag;

    /* What there is so far. */
    size_t count;                     /* tokens */
    size_t rows;                      /* computed, or found in the cache */
    size_t cached;                    /* rows of the prompt that were found */
    struct sampler_choice *choices;   /* [limit] of tokens whose log probability was asked for; the
                                         first token has none, NaN; NULL unless some were */
    struct sequence_routing *routing; /* [gate_count]; NULL unless it was asked for */
    uint64_t submitted_ns, began_ns, first_ns, last_ns; /* and its first and its last token */
    uint64_t compute_ns;                                /* of the steps with rows of it */
    struct error error;

    /* The lane's. */
    struct moed_session *session;    /* while it runs */
    struct quarantined *quarantined; /* as it was when it began; held; NULL: no expert was in, or it
                                        is part of `asked` */
    struct sampler_history *history;
    enum sequence_state state;
    uint64_t turn;   /* those of a priority with the least run first */
    unsigned passed; /* how many of a higher priority went before it */
    bool in_step, paused;
    TAILQ_ENTRY(sequence) link;
};

TAILQ_HEAD(sequence_list, sequence);

/* Rows of one step. */
struct step {
    size_t rows, spans, wanted;
    int32_t *tokens;                /* [step_tokens] */
    struct moed_span *span;         /* [max_sequences] */
    struct sequence **sequences;    /* [max_sequences] of the spans */
    struct step_span *counted;      /* [max_sequences] those that are counted */
    bool *wants;                    /* [step_tokens] rows whose logits are wanted */
    float *logits;                  /* [wanted at most, vocabulary] */
    struct sampler_choice *choices; /* [wanted at most] */
    struct error *errors;           /* [max_sequences] of choosing */
    size_t nonfinite;               /* wanted rows, or texts, that were computed to no number */
};

/* What of a lane is in the shard's gauges: two lanes may share a shard, that of a model and that of
 * its successor. */
struct sequences_shown {
    size_t running, waiting, tokens, pages_used, pages; /* tokens: of prompts that wait */
};

struct sequences {
    struct lane lane; /* first: the scheduler knows no more */
    struct scheduler *scheduler;
    struct sequences_options options;
    struct stats *stats; /* this loop's shard */
    struct moed_scratch *scratch;
    struct sampler_scratch *sampler;
    struct moed_pages *pages;     /* of keys and values; NULL: it is an encoder, which has none */
    struct moed_room room;        /* which these have */
    size_t context;               /* the most positions of a sequence */
    size_t step_rows;             /* at most */
    size_t width;                 /* of an output's row: the vocabulary, or an encoder's vector */
    struct sequence_list waiting; /* by turn, the oldest of a turn first */
    struct sequence_list running; /* oldest first */
    uint64_t turn;                /* of the latest that has begun */
    size_t waiting_count, waiting_tokens, running_count;
    size_t queued;    /* of waiting_tokens, those that count against the limit */
    struct pace pace; /* in which those leave the queue */
    bool blocked;     /* the oldest that waits must wait for another's end */
    struct sequences_shown shown;
    uint64_t row_cost;
    struct step step;
};

static inline struct sequences *sequences_of(struct lane *lane)
{
    return (struct sequences *)(void *)lane;
}

/* Frees what belongs to an ended sequence, or to one that was never submitted. */
void sequence_close(struct sequence *sequence, const struct moed_model_info *info);

/* Rows of a step whose output is kept, at most. */
size_t sequences_most_wanted(const struct moed_model_info *info, size_t max_sequences,
                             size_t step_rows);

#endif
