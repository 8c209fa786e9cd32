/* GET /v2/models/M/routing: per-expert routing statistics as JSON. */
#ifndef PROTO_ROUTING_H
#define PROTO_ROUTING_H

#include "proto/buffer.h"
#include "proto/routing_layer.h"

/* The document's own version. It grows when a member goes or means something else; a new member
 * leaves it as it is. */
enum { ROUTING_FORMAT = 1 };

void routing_write(const struct routing_document *document, struct buffer *body);

/* What a live view needs of it, in at most `max_bytes`: of each layer its figures and one share for
 * each expert, of the selections or, if the gate is dense, of the weight. Layers that do not fit
 * are left out and counted. */
void routing_write_live(const struct routing_document *document, size_t max_bytes,
                        struct buffer *body);

#endif
