/* What a request says about itself for the statistics. */
#ifndef PROTO_ANNOTATION_H
#define PROTO_ANNOTATION_H

#include <jansson.h>

#include "proto/infer.h"

/* Whether a tag is 1 to 64 letters, digits, '_', '-' or '.': tags become metric labels and JSON. */
MUST_CHECK int annotation_check_tag(const char *tag, struct error *err);

/* Reads the member "tag" of `object`, which `where` names in messages. */
MUST_CHECK int annotation_read_tag(const json_t *object, const char *where,
                                   struct infer_request *request, struct error *err);

#endif
