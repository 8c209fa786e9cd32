/* What the statistics extension counts of a model's requests, and its documents. Batches are
 * counted by stats_add_batch(). */
#ifndef SERVER_REQUEST_TIMES_H
#define SERVER_REQUEST_TIMES_H

#include "server/routes/api.h"

/* Counts an inference request that has ended. On the loop's thread. */
void request_times_add(struct stats *stats, const struct exchange *exchange, uint64_t duration_ns);

/* Of one version, of all versions of a model, or of all models. */
api_handler request_times_describe;

#endif
