/* The read-only endpoints: health, metadata, lists, routing statistics (describe_routing.c),
 * metrics. Each answers at once. */
#ifndef SERVER_DESCRIBE_H
#define SERVER_DESCRIBE_H

#include "server/routes/api.h"
#include "server/statistics/history.h"

api_handler describe_server, describe_alive, describe_live, describe_ready, describe_metrics;

/* Of target->model: */
api_handler describe_model, describe_model_ready, describe_config, describe_routing,
    describe_routing_reset, describe_routing_snapshot, describe_v1_model;

/* The query's `window`; without one *window stays as it is. */
MUST_CHECK int describe_read_window(const struct exchange *exchange, enum window *window,
                                    struct error *err);

/* For their answers: an empty body, and its end. */
void describe_new(struct buffer *body);

/* The version that was asked for, or all that are served; the caller frees the list. */
const char **describe_versions(const struct api *api, const struct target *target, size_t *count);
void describe_reply(struct exchange *exchange, int status, const char *content_type,
                    struct buffer *body);

#endif
