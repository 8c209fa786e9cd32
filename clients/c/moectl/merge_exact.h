/* The part `exact` of routing documents: sums as integers, so that documents of replicas add up to
 * what one server would have said. */
#ifndef MOECTL_MERGE_EXACT_H
#define MOECTL_MERGE_EXACT_H

#include <jansson.h>

#include "clients/c/moectl/support.h"

/* Adds the exact sums of one layer to those of another. Without them in both, into has none. -1
 * with an error when they are not of one shape. */
int exact_add(json_t *into, json_t *from, struct moed_client_error *err);

/* Writes what follows from a layer's exact sums to its members and its experts': before other
 * figures are derived, and after. */
void exact_finish(json_t *layer);

#endif
