/* Rotary embeddings as configs of Hugging Face describe them, in both spellings. */
#ifndef CORE_ROPE_H
#define CORE_ROPE_H

#include "core/family/translation.h"

/* What the family's class has where the config says nothing. */
struct rope_defaults {
    double theta, partial; /* partial: share of a head that turns */
    bool interleaved;
};

/* moed's "rotary"; NULL after an error. `context`: becomes smaller where a scaling is exact for
 * shorter sequences only. */
json_t *rope_translate(struct translation *t, const struct rope_defaults *otherwise,
                       size_t head_dim, size_t *context);

/* What YaRN multiplies by, for sequences stretched by `factor`. */
double rope_magnitude(double factor, double scale);

#endif
