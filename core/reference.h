/* "routing_reference": how a model's gates routed known-good data when it was trained. Nothing in
 * the engine needs it; a front end compares traffic with it. */
#ifndef CORE_REFERENCE_H
#define CORE_REFERENCE_H

#include "core/load/config.h"

/* Gives gates[gate_count] the references that the config has. -1 with an error. */
MUST_CHECK int references_read(struct moed_gate_info *gates, size_t gate_count,
                               struct config_node *root, struct error *err);

/* `reference` may be NULL. */
void reference_free(struct moed_routing_reference *reference);

#endif
