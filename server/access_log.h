/* What is logged and counted of an exchange when it has ended. */
#ifndef SERVER_ACCESS_LOG_H
#define SERVER_ACCESS_LOG_H

#include <stddef.h>
#include <stdint.h>

#include "server/log_line.h"

struct exchange;
struct totals;

/* What one loop writes of its exchanges. */
struct access_log {
    uint64_t slow_ns;    /* what takes longer is a warning; 0: never */
    uint64_t per_second; /* lines of each level, then they are only counted; 0: all are written */
    uint64_t second;     /* that the next count */
    uint64_t written[LOG_LEVEL_COUNT];
    uint64_t unwritten; /* since the last line */
};

/* Logs the exchange, counts it for loop number `loop`, and lets go of its model. On the loop's
 * thread. */
void access_log_finished(struct access_log *log, const struct exchange *exchange,
                         uint64_t duration_ns, struct totals *totals, size_t loop);

/* Logs an exchange that was accepted and will never be answered. */
void access_log_lost(const struct exchange *exchange);

#endif
