/* Which residuals of a model's list of layers come first and last: errors of theirs cost most. */
#ifndef CORE_OUTERMOST_H
#define CORE_OUTERMOST_H

#include "core/load/config.h"

/* How many of the `layers` of list[key] are residuals. */
MUST_CHECK int residuals_count(struct config_node *list, const char *key, size_t layers,
                               size_t *count, struct error *err);

/* Whether a layer behind `before` of so many is among the first or the last of them: an eighth of
 * them all at either end, but at least two, as an attention and its network are. */
bool residuals_are_outermost(size_t before, size_t residuals);

#endif
