/* A request for text or vectors: from its body to its answer, whole or as a stream of events.
 *
 * A generation has one or more choices, one for each prompt; each is a sequence of the model's
 * lane. A long body is read, and its text turned into tokens, on one of libuv's threads; all else
 * happens on the loop's thread. A generation has one exit (generation_end()). */
#ifndef SERVER_GENERATION_H
#define SERVER_GENERATION_H

#include "proto/infer.h"
#include "proto/openai.h"
#include "server/background.h"
#include "server/compute/lanes.h"
#include "server/statistics/attribution.h"

enum generation_kind { GENERATE_COMPLETION, GENERATE_CHAT, GENERATE_EMBEDDINGS };

struct generations {
    uv_loop_t *loop;
    struct lanes *lanes;
    uint64_t queue_timeout_ns;
    size_t max_response_bytes;
    uv_timer_t deadlines; /* runs while there are generations */
    uv_timer_t farewell;  /* ends those whose client is gone, outside the call that says so */
    TAILQ_HEAD(, generation) list; /* submitted, oldest first */
};

/* One prompt and what is said to it. */
struct choice {
    struct sequence sequence; /* first */
    struct generation *generation;
    size_t index;
    struct text_stream stream;
    bool has_stream;    /* the stream has been made: the model has text */
    struct buffer text; /* of the answer, an echoed prompt first */
    size_t echoed;      /* characters of that prompt */
    int32_t *offsets;   /* [limit] of the sequence's tokens: characters of the text before each;
                           NULL: nobody asks for them */
    size_t text_sent;   /* bytes of the text, */
    size_t tokens_sent; /* tokens of the sequence, */
    size_t rows_sent;   /* and rows whose routing was asked for, that earlier events had */
    size_t tokens;      /* of the sequence that are part of the answer */
    bool begun;         /* an event has been written */
    enum openai_finish finish;
    bool at_stop; /* a stop string was found */
};

struct generation {
    struct background background; /* first; `err`: why the request fails */
    struct generations *all;
    struct exchange *exchange;
    struct catalog *catalog; /* held while the request is read */
    struct model *model;     /* held once it is known */
    struct sequences *lane;
    enum generation_kind kind;
    struct openai_completion completion;
    struct openai_chat conversation;
    struct openai_embeddings embeddings;
    struct openai_generation plain;    /* what embeddings have of it */
    struct openai_generation *request; /* NULL until one of the three has been read */
    struct attribution attribution;
    struct infer_overrides overrides;
    struct moed_intervention *asked; /* by the overrides; owned; NULL: nothing */
    char id[32];
    int64_t created;
    uint64_t deadline_ns; /* to begin */
    struct choice *choices;
    size_t choice_count;
    size_t unfinished;      /* choices that are submitted and have not ended */
    bool listed, answering; /* in the list; the answer has begun */
    bool gone;              /* the client is */
    struct buffer events;   /* that the client has not taken */
    size_t events_taken;
    uint64_t stalled_ns; /* since when the client takes none; 0: it takes them */
    TAILQ_ENTRY(generation) link;
};

void generations_init(struct generations *all, uv_loop_t *loop, struct lanes *lanes,
                      uint64_t queue_timeout_ms, size_t max_response_bytes);

/* Needs all of them to have ended. */
void generations_close(struct generations *all);

/* Answers a request of the kind, now or later. */
void generation_request(struct generations *all, struct exchange *exchange,
                        enum generation_kind kind);

/* ---- parts of it; private to generation*.c ---- */

/* Reads the body, finds the model and makes tokens, or fails with an error; any thread. */
MUST_CHECK int generation_prepare(struct generation *generation, struct error *err);

/* Decides how many tokens a choice may have, once its lane is known. */
MUST_CHECK int generation_set_limit(struct choice *choice, struct error *err);

/* A choice has one more token; false: that was the last. */
bool generation_add_token(struct choice *choice);

/* A choice has ended: the end of its text. */
void generation_end_text(struct choice *choice);

/* Writes what there is of a choice as an event. */
void generation_write_event(struct choice *choice);

/* Writes the waiting events as far as the client takes them. False: it must take some first. */
bool generation_flush(struct generation *generation);

/* Answers with all choices, or with the error. */
void generation_answer(struct generation *generation);

/* Writes the events that come after the last choice's. */
void generation_write_end(struct generation *generation);

static inline struct choice *choice_of(struct sequence *sequence)
{
    return (struct choice *)(void *)sequence;
}

#endif
