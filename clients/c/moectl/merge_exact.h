/* The part `exact` of routing documents: sums as integers, so that documents of replicas add up to
 * what one server would have said. */
#ifndef MOECTL_MERGE_EXACT_H
#define MOECTL_MERGE_EXACT_H

#include <jansson.h>
#include <stdbool.h>

#include "clients/c/moectl/support.h"

/* Adds the exact sums of one layer to those of another. Without them in both, into has none. -1
 * with an error when they are not of one shape. */
int exact_add(json_t *into, json_t *from, struct moed_client_error *err);

/* What follows from the sums of labelled items: `log_loss` and `bins`. */
struct exact_quality {
    double labelled, accuracy, log_loss, ece; /* NAN: of no items */
};

/* False: they are not there, or are not sums. */
bool exact_quality_of(json_t *exact, struct exact_quality *quality);

/* As the server does: null where there is nothing to divide by. A new reference. */
json_t *exact_number(double value);

/* Writes what follows from a layer's exact sums to its members and its experts': before other
 * figures are derived, and after. */
void exact_finish(json_t *layer);

#endif
