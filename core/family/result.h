/* What a translation gives. */
#ifndef CORE_FAMILY_RESULT_H
#define CORE_FAMILY_RESULT_H

#include "core/load/config.h"
#include "core/load/view.h"

struct family {
    const char *name;        /* its "model_type"; a literal */
    struct config_node moed; /* the root of moed's own config; owned */
    struct views *views;     /* owned */
    char **ignored;          /* names of tensors that inference does not need; owned */
    size_t ignored_count;
};

#endif
