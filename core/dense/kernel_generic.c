/* The kernel for any machine: vectors of 4 floats, which are SSE2 on x86-64 and NEON on AArch64. */
#define KERNEL      kernel_generic
#define KERNEL_NAME "generic"
#define LANES       4
#define MAX_ROWS    6
#define USABLE      true
#include "core/dense/kernel.inc.h"
