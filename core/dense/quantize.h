/* Floats to integers with a scale for every group of 32: value = integer * scale. */
#ifndef CORE_QUANTIZE_H
#define CORE_QUANTIZE_H

#include <stddef.h>
#include <stdint.h>

#include "core/dense/integers.h"

/* Inputs in 8 bits, a scale of largest / 127. `values` has whole groups; numbers beyond `count` are
 * zeros. A group with a number that is not finite gets NaN as its scale; one whose largest is below
 * 2^-100 becomes zeros. starts[g]: the sum of the group's values times -zero. */
void quantize_inputs(const float *x, size_t count, int zero, int8_t *values, float *scales,
                     int32_t *starts);

/* Weights from -127 to 127 or from -31 to 31, with the largest / 127 or 31 as scale, or from -8 to
 * 7, with the scale of least square error among a few; FP4 from what MXFP4 holds, exactly. Scales
 * are BF16. Returns -1 if a weight is not finite. */
int quantize_weights(const float *weights, size_t count, enum integer_format format,
                     int8_t *integers, uint16_t *scales);

#endif
