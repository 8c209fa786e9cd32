/* Inference requests: from an exchange to a job and back to its answer. */
#ifndef SERVER_PREDICT_H
#define SERVER_PREDICT_H

#include "server/compute/lanes.h"
#include "server/http/http.h"

struct predict {
    struct lanes *lanes;
    struct infer_limits limits;
    uint64_t queue_timeout_ns;
    uv_timer_t deadlines;   /* runs while jobs are unanswered */
    TAILQ_HEAD(, job) jobs; /* unanswered, oldest first */
};

void predict_init(struct predict *predict, uv_loop_t *loop, struct lanes *lanes,
                  const struct infer_limits *limits, uint64_t queue_timeout_ms);

/* Needs every job to be answered. */
void predict_close(struct predict *predict);

/* Answers an inference request, now or later. */
void predict_request(struct predict *predict, struct model *model, struct exchange *exchange,
                     const struct protocol *protocol);

/* Callback for lanes: answers a finished job and frees it. */
void predict_finished(struct job *job);

#endif
