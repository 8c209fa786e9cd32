/* Writes JSON. All strings, errors and lists of numbers are written here. */
#ifndef PROTO_JSON_H
#define PROTO_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "proto/buffer.h"

/* Appends `text` as a JSON string, quotes included; invalid UTF-8 is replaced by U+FFFD. */
void json_append_string(struct buffer *body, const char *text);

/* Like json_append_string(), without the quotes: for strings built from parts. */
void json_append_escaped(struct buffer *body, const char *text);

/* Like json_append_escaped(), for text that may contain NULs. */
void json_append_text(struct buffer *body, const char *text, size_t length);

/* Appends {"error": "<text>"}. */
void json_append_error(struct buffer *body, const char *text);

/* Appends the numbers separated by commas, without brackets. */
void json_append_floats(struct buffer *body, const float *values, size_t count);
void json_append_integers(struct buffer *body, const int32_t *values, size_t count);

/* Appends one number, for statistics. */
void json_append_double(struct buffer *body, double value);

#endif
