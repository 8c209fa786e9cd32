/* What of a model's statistics outlives the process, as bytes: the counts of all tags since the
 * load with the marks of their windows, labels, details and, of models of sequences, phases.
 *
 * A header names the format and its version and has a checksum of what follows: when it was
 * written, the gates that it is about, then the counts. Times are ages, so that neither a clock
 * that was set nor another machine matters much. A reader believes nothing. */
#ifndef SERVER_SNAPSHOT_H
#define SERVER_SNAPSHOT_H

#include "proto/buffer.h"
#include "server/statistics/stats.h"

/* Some hundred thousand experts with all their windows. What is larger goes without the latest uses
 * of experts, then without windows; what is larger still is not kept. */
enum { SNAPSHOT_MAX_BYTES = 64 << 20 };

/* One moment in two clocks. */
struct snapshot_time {
    uint64_t now;  /* stats_now() */
    uint64_t wall; /* nanoseconds since 1970 */
};

struct snapshot_time snapshot_time(void);

/* Appends a snapshot to an empty buffer of SNAPSHOT_MAX_BYTES. Counting goes on meanwhile: no lock
 * is held for longer than it takes to copy one tag's counts. -1 with an error when it is too large.
 */
MUST_CHECK int snapshot_write(struct model_stats *stats, const struct moed_model_info *info,
                              const struct snapshot_time *time, struct buffer *body,
                              struct error *err);

enum snapshot_kind {
    SNAPSHOT_READ,
    SNAPSHOT_OTHER,  /* of other gates or classes: right, and of no use */
    SNAPSHOT_NEWER,  /* of a later version of this program, which will want it */
    SNAPSHOT_DAMAGED /* or of another program */
};

/* Reads a snapshot into statistics that nothing was counted in. Unless the result is SNAPSHOT_READ
 * there is an error, and they are good for nothing but to be released. */
enum snapshot_kind snapshot_read(struct model_stats *stats, const struct moed_model_info *info,
                                 const struct snapshot_time *time, const void *bytes, size_t length,
                                 struct error *err);

/* Makes the checksum of a snapshot right, if there is room for one: for tests. */
void snapshot_seal(void *bytes, size_t length);

#endif
