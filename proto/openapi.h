/* The description of an API as OpenAPI 3.1, made from its routes. */
#ifndef PROTO_OPENAPI_H
#define PROTO_OPENAPI_H

#include <stdbool.h>
#include <stddef.h>

#include "proto/buffer.h"

struct openapi_route {
    const char *method;   /* "get", "post" or "delete" */
    const char *path;     /* with {m} for a model's name and {v} for a version */
    const char *summary;  /* what it answers */
    const char *tag;      /* who asks */
    bool has_body;        /* JSON, or JSON with binary data behind it */
    bool openai_errors;   /* errors as OpenAI's clients read them */
    bool tells_readiness; /* 503 has a document, too */
};

void openapi_document(const char *version, const struct openapi_route *routes, size_t count,
                      struct buffer *body);

#endif
