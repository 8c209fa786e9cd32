/* Chat templates: the part of Jinja that published ones use, rendered as Python's jinja2 does in
 * the sandbox of `transformers` (trim_blocks, lstrip_blocks, break and continue).
 *
 * A template is parsed once. What it uses beyond the subset (TEXT.md) is refused then, with
 * line and column. Rendering changes nothing in it, so threads may share one; it is bounded in
 * steps, depth, memory and output. */
#ifndef PROTO_TEXT_TEMPLATE_H
#define PROTO_TEXT_TEMPLATE_H

#include <jansson.h>
#include <stddef.h>
#include <time.h>

#include "core/error.h"
#include "proto/buffer.h"

/* Published ones have up to 17 KB. */
enum { TEMPLATE_MAX_BYTES = 1 << 20 };

struct chat_template;

/* NULL with an error that begins "line 3, column 7: ". Caller frees. */
MUST_CHECK struct chat_template *chat_template_new(const char *source, size_t length,
                                                   struct error *err);

/* The template of a model's directory: chat_template.jinja, or tokenizer_config.json's
 * "chat_template" (of several the one named "default"). That file's special tokens ("bos_token",
 * ...) become variables. ERROR_NOT_FOUND: the model has none. Caller frees. */
MUST_CHECK struct chat_template *chat_template_load(const char *directory, struct error *err);
void chat_template_free(struct chat_template *chat_template);

/* Appends the text. `variables` is an object: "messages", "tools", "add_generation_prompt",
 * "bos_token" and whatever else the template asks for, before the template's own; it is not
 * changed. `now` is what strftime_now tells. A template that calls raise_exception() fails with
 * that message. */
MUST_CHECK int chat_template_render(const struct chat_template *chat_template,
                                    const json_t *variables, time_t now, struct buffer *text,
                                    struct error *err);

#endif
