/* What is logged and counted of an exchange when it has ended. */
#ifndef SERVER_ACCESS_LOG_H
#define SERVER_ACCESS_LOG_H

#include <stddef.h>
#include <stdint.h>

struct exchange;
struct totals;

/* Logs the exchange, counts it for loop number `loop`, and lets go of its model. On the loop's
 * thread. */
void access_log_finished(const struct exchange *exchange, uint64_t duration_ns,
                         struct totals *totals, size_t loop);

/* Logs an exchange that was accepted and will never be answered. */
void access_log_lost(const struct exchange *exchange);

#endif
