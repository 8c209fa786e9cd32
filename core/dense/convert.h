/* 16-bit floating-point formats to f32: exact, for input at any alignment. */
#ifndef CORE_CONVERT_H
#define CORE_CONVERT_H

#include <stddef.h>
#include <stdint.h>

void convert_f16_to_f32(const void *half, size_t count, float *values);
void convert_bf16_to_f32(const void *half, size_t count, float *values);

#endif
