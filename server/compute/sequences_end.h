/* How a sequence leaves its lane. Private to sequences*.c. */
#ifndef SERVER_SEQUENCES_END_H
#define SERVER_SEQUENCES_END_H

#include "server/compute/sequence.h"

/* Ends a sequence that is in no step. */
void sequences_end(struct sequences *sequences, struct sequence *sequence);

/* Takes a sequence out of the queue. */
void sequences_leave_queue(struct sequences *sequences, struct sequence *sequence);

/* Brings the gauges up to date, or to what a lane that goes leaves behind. */
void sequences_show(struct sequences *sequences);
void sequences_show_as(struct sequences *sequences, struct sequences_shown now);

#endif
