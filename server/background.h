/* Answers that take long: made on one of libuv's threads, sent on the loop. */
#ifndef SERVER_BACKGROUND_H
#define SERVER_BACKGROUND_H

#include "server/http/http.h"

/* Makes the answer of an exchange, which holds its model: the body of a 200, or an error. Runs on
 * another thread. */
typedef void background_make(const struct exchange *exchange, void *context, struct buffer *body,
                             struct error *err);

/* Takes `context`, which is freed when the answer has been made. */
void background_answer(uv_loop_t *loop, struct exchange *exchange, background_make *make,
                       void *context);

#endif
