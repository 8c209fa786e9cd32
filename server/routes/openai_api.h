/* The routes of OpenAI's API, and what clients of language models ask beside it. */
#ifndef SERVER_OPENAI_API_H
#define SERVER_OPENAI_API_H

#include "server/routes/api.h"

api_handler openai_completions, openai_chat_completions, openai_embeddings, openai_tokenize,
    openai_detokenize, openai_apply_template;

/* GET /v1/models, and one of them, for OpenAI's clients and KServe's. */
api_handler openai_models, openai_model;

#endif
