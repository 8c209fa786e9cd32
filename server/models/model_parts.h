/* What is read of a checkpoint before it can be asked anything, in one place: `moed serve` and
 * `moed inspect` tell of a directory with several faults the same one. */
#ifndef SERVER_MODEL_PARTS_H
#define SERVER_MODEL_PARTS_H

#include "core/moed.h"
#include "proto/language.h"
#include "proto/pooling.h"

struct model_parts {
    struct moed_model *engine;
    struct language *language; /* NULL: it takes and gives numbers */
    struct pooling pooling;    /* of an encoder's rows */
};

/* Whether a checkpoint directory has a file of that name, or a link to one. */
bool model_has_file(const char *directory, const char *name);

/* Whether stat() has failed because there is nothing; else it is there, or may be, and cannot be
 * looked at now: a disk, a network or the rights of a directory above it. */
bool model_is_absent(int number);

/* -1 with an error if it cannot be said what a checkpoint directory lacks. */
MUST_CHECK int model_can_be_seen(const char *directory, struct error *err);

/* What a checkpoint directory lacks, which may still be being copied; NULL: nothing. */
const char *model_lacks(const char *directory);

/* An error begins with the path of what it is about. */
MUST_CHECK int model_parts_load(struct model_parts *parts, const char *directory,
                                const struct moed_load_options *load, struct error *err);
void model_parts_close(struct model_parts *parts);

#endif
