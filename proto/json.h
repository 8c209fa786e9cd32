/* JSON odds and ends shared by the formats: the only writers of strings and errors. */
#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include "../core/error.h"
#include "buffer.h"

/* Appends `text` as a JSON string, quotes included; invalid UTF-8 is replaced by U+FFFD. */
void json_append_string(struct buffer *body, const char *text);

/* Appends {"error": "<text>"}. */
void json_append_error(struct buffer *body, const char *text);

#endif
