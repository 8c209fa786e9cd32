/* Tables of experts by classes: private to moectl's merge*.c. */
#ifndef MOECTL_MERGE_CLASSES_H
#define MOECTL_MERGE_CLASSES_H

#include <jansson.h>
#include <stdbool.h>

#include "clients/c/moectl/run.h"

/* Adds the member `classes` of two layers, with `truth` in it: labels may have come to one replica
 * only. Where one of them has no classes there are none. -1 with an error: they are not of one
 * shape, or a count overflows. */
int classes_add(json_t *into, json_t *from, struct moed_client_error *err);

/* Computes what follows from the counts and the exact sums of a layer. */
void classes_finish(json_t *layer);

/* Whether the true classes of a finished layer, if it has any, still have their calibration. */
bool classes_are_calibrated(json_t *layer);

#endif
