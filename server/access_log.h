/* What is written and counted of an exchange when it has ended. */
#ifndef SERVER_ACCESS_LOG_H
#define SERVER_ACCESS_LOG_H

#include "server/loop.h"

/* For http: logs the exchange, counts it, and lets go of its model. `context` is the loop. */
void access_log_finished(const struct exchange *exchange, uint64_t duration_ns, void *context);

/* One that was accepted and will never be answered. */
void access_log_lost(const struct exchange *exchange, void *context);

#endif
