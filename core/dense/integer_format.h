/* How weights are kept that are multiplied as integers (integers.h). */
#ifndef CORE_INTEGER_FORMAT_H
#define CORE_INTEGER_FORMAT_H

enum integer_format {
    INTEGER_8,
    INTEGER_6,
    INTEGER_4,
    INTEGER_FP4, /* in 4 bits: 0, 1, 2, 3, 4, 6, 8 and 12 of either sign */
};

#endif
