/* From a finished job to the statistics of labels. */
#ifndef SERVER_JUDGEMENT_H
#define SERVER_JUDGEMENT_H

#include <stddef.h>

struct job;

/* A finished job's rows: counts its labels if it has any; else remembers them for labels to come,
 * if it has an id. */
void judge_job(const struct job *job, size_t loop);

#endif
