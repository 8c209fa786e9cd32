/* How right a model was on labelled items, counted by the expert that each item ranked first: which
 * expert is failing? Integers only, as core/gate_counts.h has them and for the same reasons. */
#ifndef PROTO_ROUTING_QUALITY_H
#define PROTO_ROUTING_QUALITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/gate_counts.h"

/* Equal parts of [0, 1], by confidence. */
enum { QUALITY_BINS = 10 };

/* Of one expert. */
struct routing_quality {
    __int128 log_loss; /* sum over the items, in nats */
    struct quality_bin {
        uint64_t items, correct;
        __int128 confidence; /* sum over the items */
    } bins[QUALITY_BINS];
};

/* What one answer was worth. */
struct routing_verdict {
    size_t predicted;  /* the class with the largest score */
    bool correct;      /* it is the true one */
    double confidence; /* its probability */
    double log_loss;   /* -ln of the true one's, at most that of 1e-15 */
};

/* scores: [classes], taken as probabilities where they are in [0, 1] and add up to 1, else as
 * logits; those that are not finite count as the least. */
struct routing_verdict routing_judge(const float *scores, size_t classes, size_t truth);

/* The class with the largest score, the first of several. */
size_t routing_predicted(const float *scores, size_t classes);

void routing_quality_count(struct routing_quality *quality, const struct routing_verdict *verdict);

/* to += sign * from; sign 1 or -1. */
void routing_quality_add(struct routing_quality *to, const struct routing_quality *from, int sign);

/* Without labels all 0. */
struct quality_figures {
    uint64_t labelled, correct;
    double accuracy; /* correct / labelled */
    double log_loss; /* mean over the items, in nats */
    double ece;      /* expected calibration error: sum over the bins of its part of the items
                        x |its accuracy - its mean confidence| */
};

struct quality_figures routing_quality_figures(const struct routing_quality *quality);

#endif
