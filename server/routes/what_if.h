/* What a request asks of the gates, and what is in quarantine, in the engine's terms. */
#ifndef SERVER_WHAT_IF_H
#define SERVER_WHAT_IF_H

#include "core/error.h"

struct job;

/* Sets job->intervention and what it is made of. -1 with an error that names the gate if
 * it cannot choose so. */
MUST_CHECK int what_if(struct job *job, struct error *err);

#endif
