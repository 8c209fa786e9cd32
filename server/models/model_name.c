/* A name is a directory's, a part of paths and a label of metrics. */
#include "server/models/model_name.h"

#include <string.h>

#include "core/text.h"

int model_name_check(const char *name, struct error *err)
{
    if (*name == '.' || !*name || !name_is_valid(name, MAX_MODEL_NAME))
        return error_set(err, ERROR_INVALID,
                         "a model's name is at most %d " NAME_ALPHABET ", not beginning with a dot",
                         MAX_MODEL_NAME);
    if (strcmp(name, "stats") == 0)
        return error_set(err, ERROR_INVALID,
                         "a model cannot be called so: /v2/models/stats are the statistics of all "
                         "models; rename the directory");
    return 0;
}
