/* What a request asks of the gates, and what is in quarantine, in the engine's terms. */
#ifndef SERVER_WHAT_IF_H
#define SERVER_WHAT_IF_H

#include "core/error.h"

struct job;
struct infer_overrides;
struct moed_intervention;
struct model;
struct quarantined;

/* In what is asked for: `member`, as the protocol writes it in messages, and with it what is in
 * quarantine (NULL: nothing). The caller frees the result, finished; NULL without an error: the
 * request asks for nothing. */
struct moed_intervention *what_if_asked(const struct infer_overrides *overrides, const char *member,
                                        const struct model *model,
                                        const struct quarantined *quarantined, struct error *err);

/* Sets job->intervention and what it is made of. -1 with an error that names the gate if
 * it cannot choose so. */
MUST_CHECK int what_if(struct job *job, struct error *err);

#endif
