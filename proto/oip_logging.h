/* The logging extension of the Open Inference Protocol, as Triton has it. */
#ifndef PROTO_OIP_LOGGING_H
#define PROTO_OIP_LOGGING_H

#include <stdbool.h>

#include "core/error.h"
#include "proto/buffer.h"

struct oip_logging {
    bool info, warning;
    size_t verbose_level;
};

/* Members that are absent leave `settings` as they are. What this server cannot set is refused. */
MUST_CHECK int oip_decode_logging(const char *body, size_t length, struct oip_logging *settings,
                                  struct error *err);
void oip_logging_document(const struct oip_logging *settings, struct buffer *body);

#endif
