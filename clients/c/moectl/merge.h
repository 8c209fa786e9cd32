/* One routing document of several: those of the replicas behind a load balancer. */
#ifndef MOECTL_MERGE_H
#define MOECTL_MERGE_H

#include <jansson.h>

#include "clients/c/moectl/support.h"

/* Adds document `from` to `into`, which must be of the same model, version, window and layers.
 * Counts and sums are added, means are weighted by what they are means of, and what cannot be had
 * from two documents is taken out. */
MUST_CHECK int merge_add(json_t *into, json_t *from, struct moed_client_error *err);

/* Computes the figures that follow from the merged counts, and names in "not_merged" what a merged
 * document never has. */
MUST_CHECK int merge_finish(json_t *merged, size_t documents, struct moed_client_error *err);

#endif
