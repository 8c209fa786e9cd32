/* The memory that a checkpoint takes when it is served, from its headers alone. */
#ifndef SERVER_INSPECT_MEMORY_H
#define SERVER_INSPECT_MEMORY_H

#include "core/moed.h"
#include "proto/buffer.h"
#include "proto/serving.h"
#include "server/options/options.h"

enum { WEIGHT_FORMS = MOED_WEIGHTS_INT4 + 1 };

/* Bytes. Sums that exceed 64 bits are UINT64_MAX. */
struct inspect_memory {
    struct {
        uint64_t bytes, mapped; /* mapped: of these, in the checkpoint's files */
    } weights[WEIGHT_FORMS];    /* by enum moed_weights */
    enum moed_weights chosen;   /* by the options */
    uint64_t loops;
    unsigned threads; /* of each loop */
    /* Of each loop: rows of a batch or a step, and its scratch, outputs included; its cache of keys
     * and values, and what that takes. */
    uint64_t rows, scratch, cache;
    struct moed_room room;
    uint64_t context; /* what one sequence of all positions that it may have holds at most */
    uint64_t total;   /* the chosen weights, and all loops */
};

/* `model` is loaded from `directory` with these options, and has `serving`'s of its own. -1 with an
 * error if it cannot be served with them. */
MUST_CHECK int inspect_memory(struct inspect_memory *memory, const char *directory,
                              const struct moed_model *model, const struct serving *serving,
                              const struct options *options, struct error *err);

void inspect_memory_print(const struct inspect_memory *memory, const struct moed_model_info *info,
                          FILE *out);

/* As a member "memory", after a comma. */
void inspect_memory_json(const struct inspect_memory *memory, const struct moed_model_info *info,
                         struct buffer *body);

#endif
