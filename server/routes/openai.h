/* What the parts of OpenAI's API have in common: the model of a request, the text of a
 * chat.
 */
#ifndef SERVER_OPENAI_H
#define SERVER_OPENAI_H

#include "proto/openai.h"
#include "server/models/catalog.h"

/* The language model of a request: by its name, or, without one, the only one there is. The model
 * is the catalog's. Any thread that holds the catalog. */
MUST_CHECK struct model *openai_find_model(const struct catalog *catalog, const char *name,
                                           struct error *err);

/* Appends the text of a chat. */
MUST_CHECK int openai_render_chat(const struct model *model, const struct openai_chat *chat,
                                  struct buffer *text, struct error *err);

#endif
