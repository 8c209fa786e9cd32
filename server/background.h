/* What takes long, for an exchange: done on one of libuv's threads while the loop serves others.
 *
 * The client may leave meanwhile. The thread may still read the exchange then, so the work comes to
 * its end, which is told that nobody waits for it. */
#ifndef SERVER_BACKGROUND_H
#define SERVER_BACKGROUND_H

#include "server/http/http.h"

/* The beginning of a structure that has what the work needs. */
struct background {
    struct exchange *exchange;
    void (*work)(struct background *background); /* on the thread; sets `err` if it fails */
    /* On the loop: answers the exchange and frees the structure. `err` says also if the client has
     * left. */
    void (*end)(struct background *background);
    struct error err;
    uv_work_t request; /* private, like the next */
    bool gone;
};

/* Until the end nobody else may answer the exchange. */
void background_run(uv_loop_t *loop, struct background *background);

/* Makes the body of a 200; or -1 with an error that is answered instead. */
typedef int background_make(const struct exchange *exchange, void *context, struct buffer *body,
                            struct error *err);

/* Answers so; `loop` NULL: at once, for what is short. `release`, unless it is NULL, is called for
 * the context when the answer has been made. */
void background_answer(uv_loop_t *loop, struct exchange *exchange, background_make *make,
                       void *context, void (*release)(void *context));

#endif
