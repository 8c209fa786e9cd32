/* Steps of replicas: batches, phases of sequences, caches, and the memory that a token costs. */
#ifndef MOECTL_MERGE_STEPS_H
#define MOECTL_MERGE_STEPS_H

#include <jansson.h>

#include "clients/c/moectl/support.h"

/* Adds the layer `from`, whose caches are its own, to `into`. What one of them lacks is taken out.
 */
MUST_CHECK int steps_add(json_t *into, json_t *from, struct moed_client_error *err);

/* Takes the document's "memory" out unless both are of as many bytes. */
void steps_add_memory(json_t *into, json_t *from);

/* Computes "memory" from the merged phases. */
void steps_finish_memory(json_t *merged);

#endif
