/* Parts of OpenAI's answers. */
#ifndef PROTO_OPENAI_PARTS_H
#define PROTO_OPENAI_PARTS_H

#include "proto/openai.h"

/* The value of "logprobs": an object in the shape of completions or of chats. */
void openai_write_logprobs(const struct openai_answer *answer, const struct openai_choice *choice,
                           struct buffer *body);

/* Appends a comma and the member that has the routing: "routing" or, as other servers' clients want
 * it, "routed_experts" or "sgl_ext". */
void openai_write_routing(const struct openai_routing *routing, struct buffer *body);

#endif
