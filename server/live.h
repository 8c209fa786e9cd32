/* GET /v2/models/{m}/routing/live: what is routed now, once a second, as server-sent events. */
#ifndef SERVER_LIVE_H
#define SERVER_LIVE_H

#include "server/api.h"

/* The streams of one loop. */
struct live {
    uv_loop_t *loop;
    size_t count; /* open */
};

/* Begins an answer that ends when the client goes, the model is replaced or the server drains. */
api_handler live_routing;

#endif
