/* The inner loop of convolutions by channels and by planes: one filter of one input channel, whose
 * sums stay in registers. Private to conv_product.c and conv_planes.c. */
#ifndef CORE_CONV_FILTER_H
#define CORE_CONV_FILTER_H

#include <string.h>

#include "core/layers/conv.h"

enum { OCT = 8, OCTS_AT_ONCE = 4 };
typedef float oct __attribute__((vector_size(OCT * sizeof(float))));

/* The filter over the next octs * OCT windows of the padded image. `octs` <= OCTS_AT_ONCE is a
 * constant where this is called. */
static inline __attribute__((always_inline)) void filter_windows(const struct conv *conv,
                                                                 const float *taps, float bias,
                                                                 const float *image, float *y,
                                                                 size_t octs)
{
    oct sum[OCTS_AT_ONCE], value;
#pragma GCC unroll 4
    for (size_t v = 0; v < octs; v++)
        sum[v] = (oct){0} + bias;
    for (size_t t = 0; t < conv->k; t++) {
        const float *from = image + conv->window[t], tap = taps[t];
#pragma GCC unroll 4
        for (size_t v = 0; v < octs; v++) {
            memcpy(&value, from + v * OCT, sizeof value);
            sum[v] += value * tap;
        }
    }
    memcpy(y, sum, octs * sizeof *sum);
}

#endif
