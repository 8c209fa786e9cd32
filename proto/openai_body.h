/* What the readers of OpenAI's requests share. */
#ifndef PROTO_OPENAI_BODY_H
#define PROTO_OPENAI_BODY_H

#include "proto/members.h"
#include "proto/openai.h"

/* The body's tree, an object; NULL with an error. The caller drops the reference. */
MUST_CHECK json_t *openai_body(const char *body, size_t length, struct error *err);

/* A member of a request. `harmless` is NULL if it is supported. Else it would change the answer in
 * a way that is not supported, and `harmless` lists what it may be all the same, separated by
 * blanks: numbers, and then it must be one of them, or words. Null it may be anyway, and false, 0
 * and what is empty where no number is expected. */
struct openai_member {
    const char *key, *harmless;
};

/* Refuses members of the table, which ends with a NULL key, that are not supported. */
MUST_CHECK int openai_refuse_members(const json_t *object, const char *where,
                                     const struct openai_member *table, struct error *err);

/* The same for one table, or two that are read as one; also refuses what is in none and looks like
 * a misspelt member of theirs. Other members are ignored. */
MUST_CHECK int openai_check_members(const json_t *object, const char *where,
                                    const struct openai_member *table,
                                    const struct openai_member *more, struct error *err);

/* Whether a value asks for something: it is not null, false, 0 or empty. */
bool openai_asks(const json_t *value);

/* A number within a range; left alone if absent. */
MUST_CHECK int openai_number(const json_t *root, const char *key, double least, double most,
                             double *value, struct error *err);

/* A whole number within a range; left alone if absent. */
MUST_CHECK int openai_whole(const json_t *root, const char *key, size_t least, size_t most,
                            size_t *value, struct error *err);

/* "priority", which is vLLM's: the lower, the earlier; 0 if absent. */
MUST_CHECK int openai_priority(const json_t *root, int *priority, struct error *err);

/* A text, token ids, or a list of either. On failure there is nothing to close. */
MUST_CHECK int openai_prompts_read(const json_t *root, const char *key,
                                   struct openai_prompts *prompts, struct error *err);
void openai_prompts_close(struct openai_prompts *prompts);

/* The members that completions and chats share; the root is taken over, also on failure. `own` are
 * the others. "max_tokens" is at least `least_tokens`. */
MUST_CHECK int openai_generation_read(json_t *root, const struct openai_member *own,
                                      size_t least_tokens, struct openai_generation *generation,
                                      struct error *err);
void openai_generation_close(struct openai_generation *generation);

#endif
