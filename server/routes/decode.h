/* From a request's body to numbers: on the loop where that is quick, else on one of libuv's
 * threads, so that a body of 60 MB keeps nobody else waiting. */
#ifndef SERVER_DECODE_H
#define SERVER_DECODE_H

#include <uv.h>

#include "server/compute/job.h"

/* Fills job->request, now or later, and calls `on_decoded` once, on the loop's thread; `err` says
 * whether it failed. The request points into its body, or into memory that is freed when on_decoded
 * returns. `limits` must outlive the call of on_decoded. */
void decode_job(uv_loop_t *loop, struct job *job, const struct infer_limits *limits,
                void (*on_decoded)(struct job *job, struct error *err));

#endif
