/* The translations of families: each gives moed's config, or NULL after an error. */
#ifndef CORE_FAMILIES_H
#define CORE_FAMILIES_H

#include "core/family/translation.h"

/* Decoders like LLaMA, by a table of their differences. */
json_t *llama_translate(struct translation *t);
json_t *gpt_oss_translate(struct translation *t);
json_t *nomic_translate(struct translation *t);
json_t *deepseek_translate(struct translation *t);

#endif
