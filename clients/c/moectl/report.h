/* What a routing document says, in findings: objects of JSON with "layer", "kind", "text" and the
 * figures behind them. */
#ifndef MOECTL_REPORT_H
#define MOECTL_REPORT_H

#include <jansson.h>

#include "clients/c/moectl/document.h"

/* A list of findings about `now`, and about what moved since `before` (NULL: not asked). `cache`: a
 * size of cache besides those of 1, 2, 4, ...; 0: none. The caller decrefs. NULL when the two are
 * not of the same layers. */
MUST_CHECK json_t *report_make(const struct document *now, const struct document *before,
                               uint64_t cache, struct moed_client_error *err);

#endif
