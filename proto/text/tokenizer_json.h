/* The parts of a tokenizer.json; each reader fills its part of the tokenizer. */
#ifndef PROTO_TEXT_TOKENIZER_JSON_H
#define PROTO_TEXT_TOKENIZER_JSON_H

#include "proto/text/json_node.h"
#include "proto/text/tokenizer.h"
#include "proto/text/tokenizer_private.h"

/* Nodes that are null or absent leave their part empty. */
MUST_CHECK int read_normalizer(struct normalizer *normalizer, const struct json_node *node,
                               struct error *err);
MUST_CHECK int read_splitter(struct splitter *splitter, const struct json_node *node,
                             struct error *err);
MUST_CHECK int read_decoder(struct decoder *decoder, const struct json_node *node,
                            struct error *err);
MUST_CHECK int read_post_processor(struct tokenizer *tokenizer, const struct json_node *node,
                                   struct error *err);
MUST_CHECK int read_model(struct tokenizer *tokenizer, const struct json_node *node,
                          struct error *err);
MUST_CHECK int read_added_tokens(struct tokenizer *tokenizer, const struct json_node *node,
                                 struct error *err);

/* The "pattern" of a Replace or a Split: {"String": ..} (a copy in *text) or {"Regex": ..}. */
MUST_CHECK int read_pattern(const struct json_node *node, char **text, struct pattern **pattern,
                            struct error *err);

/* A member that is a string of at most some hundred bytes, copied. */
MUST_CHECK int read_short_text(const struct json_node *node, const char *key, char **text,
                               struct error *err);

#endif
