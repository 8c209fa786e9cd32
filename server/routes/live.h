/* GET /v2/models/{m}/routing/live: what is routed now, once a second, as server-sent events. */
#ifndef SERVER_LIVE_H
#define SERVER_LIVE_H

#include <sys/queue.h>

#include "server/routes/api.h"

/* The streams of one loop. */
struct live {
    uv_loop_t *loop;
    TAILQ_HEAD(, live_stream) streams;
    size_t count;
    bool ended; /* no new ones: the server drains */
};

void live_init(struct live *live, uv_loop_t *loop);

/* Ends all streams: a drain waits for nobody who only watches. */
void live_end(struct live *live);

/* Begins an answer that ends when the client goes, the model is replaced or the server drains. */
api_handler live_routing;

#endif
