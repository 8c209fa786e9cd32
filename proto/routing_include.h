/* The parts of the routing document that a client asks for by name. */
#ifndef PROTO_ROUTING_INCLUDE_H
#define PROTO_ROUTING_INCLUDE_H

#include "core/error.h"
#include "proto/buffer.h"
#include "proto/routing_layer.h"

/* Every part there is. */
#define ROUTING_INCLUDE_ALL (~0u)

/* Reads a list of names, separated by commas, into the bits of struct routing_document.include. */
MUST_CHECK int routing_include_read(const char *text, unsigned *include, struct error *err);

/* Whether parts are among them that are not written as fast as they are read. */
bool routing_include_takes_long(unsigned include);

/* Appends what was asked for about a layer, each member with a comma in front. */
void routing_include_append(const struct routing_document *document,
                            const struct routing_layer *layer, struct buffer *body);

/* The same about all layers that the document has. */
void routing_include_append_memory(const struct routing_document *document, struct buffer *body);

#endif
