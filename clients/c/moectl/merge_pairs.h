/* The pairs of two layers' experts added up. Where pairs are those of the busiest experts, the sum
 * has those of the experts that both have, and counts the others as outside. */
#ifndef MOECTL_MERGE_PAIRS_H
#define MOECTL_MERGE_PAIRS_H

#include <jansson.h>

#include "clients/c/moed_client.h"

/* `into` += `from`: layers of a routing document. Returns -1 and says which member differs. */
int pairs_add(json_t *into, json_t *from, struct moed_client_error *err);

#endif
