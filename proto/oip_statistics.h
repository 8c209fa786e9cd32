/* The statistics extension of the Open Inference Protocol, as Triton has it. */
#ifndef PROTO_OIP_STATISTICS_H
#define PROTO_OIP_STATISTICS_H

#include <stddef.h>
#include <stdint.h>

#include "proto/buffer.h"

/* How often something was done, and how long all of it took. */
struct oip_duration {
    uint64_t count, ns;
};

/* Batches of more rows are counted, and not listed by their size. */
enum { OIP_BATCH_SIZES = 128 };

/* Of one version of a model. Durations of requests, but for compute_infer of a batch. */
struct oip_statistics {
    uint64_t last_inference_ms; /* since 1970; 0: none yet */
    uint64_t inference_count;   /* rows */
    uint64_t execution_count;   /* batches */
    uint64_t nonfinite_count;   /* of the rows, those whose answer has a NaN or an infinity */
    struct oip_duration success, fail;
    struct oip_duration queue, compute_input, compute_infer, compute_output; /* of success */
    struct oip_duration batches[OIP_BATCH_SIZES];                            /* [rows - 1] */
};

void oip_statistics_add_batch(struct oip_statistics *statistics, size_t rows, uint64_t ns);

/* total += statistics */
void oip_statistics_merge(struct oip_statistics *total, const struct oip_statistics *statistics);

/* One entry of "model_stats". */
void oip_append_statistics(struct buffer *body, const char *name, const char *version,
                           const struct oip_statistics *statistics, uint64_t memory_bytes);

#endif
