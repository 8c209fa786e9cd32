/* On whose behalf a job's rows are counted, and whether they are at all. */
#ifndef SERVER_ATTRIBUTION_H
#define SERVER_ATTRIBUTION_H

#include "core/error.h"

struct job;

/* Reads the headers Moed-Tag and Moed-Statistics beside what the body says, which goes first. -1
 * with an error when one is malformed. */
MUST_CHECK int attribute_job(struct job *job, struct error *err);

/* The job was accepted, and its rows will be counted: its tag takes a place among the model's,
 * which are few. What is refused takes none. */
void attribute_accepted(struct job *job);

#endif
