/* What an engine's model is to a server, by its inputs and outputs. */
#ifndef SERVER_MODEL_INFO_H
#define SERVER_MODEL_INFO_H

#include "core/moed.h"

/* Whether a sequence of it has a session; those of an encoder are computed at once. */
static inline bool info_keeps_positions(const struct moed_model_info *info)
{
    return info->position_bytes > 0;
}

/* Whether its rows are single tokens, for each of which it has one output: what a step of sequences
 * gives and takes (server/compute/sequences_step.c). */
static inline bool info_steps(const struct moed_model_info *info)
{
    return info->sequence && info->input_count == 1 && info->inputs[0].categories > 0 &&
           info->inputs[0].elements == 1 && info->output_count == 1;
}

/* Whether its output says how likely each token is to follow. */
static inline bool info_generates(const struct moed_model_info *info)
{
    return info_steps(info) && info_keeps_positions(info) &&
           info->outputs[0].elements <= info->inputs[0].categories;
}

/* Whether it makes a vector of each token that knows all the others: an encoder. */
static inline bool info_embeds(const struct moed_model_info *info)
{
    return info_steps(info) && !info_keeps_positions(info) && info->outputs[0].shape.rank == 1;
}

#endif
