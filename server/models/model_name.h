/* What a model may be called. */
#ifndef SERVER_MODEL_NAME_H
#define SERVER_MODEL_NAME_H

#include "core/error.h"

/* It becomes a metric label and part of every log line. */
enum { MAX_MODEL_NAME = 128 };

/* Refuses names that no path could hold, or that a path has already. */
MUST_CHECK int model_name_check(const char *name, struct error *err);

#endif
