/* Answers whose true classes are known, or may become known. */
#ifndef SERVER_JUDGEMENT_H
#define SERVER_JUDGEMENT_H

#include <stddef.h>
#include <stdint.h>

#include "core/moed.h"

/* What of some answered rows is needed to judge them. All borrowed. */
struct answered_rows {
    size_t rows;
    size_t classes;
    const float *scores;           /* [rows, classes] the output that labels are about */
    const uint32_t *items_per_row; /* [gate_count] */
    const int32_t *const *first;   /* [gate_count] [rows * items_per_row] the expert that each item
                                      ranked first, by the gate's indices */
};

struct job;

/* A finished job's rows: counts its labels if it has any; else remembers them for labels to come,
 * if it has an id. */
void judge_job(const struct job *job, size_t loop);

#endif
