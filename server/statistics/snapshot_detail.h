/* A gate's details as bytes: a part of a snapshot. The same call writes and reads. */
#ifndef SERVER_SNAPSHOT_DETAIL_H
#define SERVER_SNAPSHOT_DETAIL_H

#include "proto/routing_detail.h"
#include "server/access/packed.h"

/* Writes a sum, or reads into details that nothing was counted in. version: of the snapshot. */
void snapshot_walk_detail(struct packed *packed, int version, struct routing_detail *detail);

/* Of one expert, or of one expert and class. */
void snapshot_walk_quality(struct packed *packed, struct routing_quality *quality);

#endif
