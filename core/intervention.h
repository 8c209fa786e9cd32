/* What if: rows that are routed otherwise than their gates decide. A span points to what its rows
 * want; rows of other spans in the batch keep their bits.
 *
 * An *excluded* expert is left out before the choice, as if its logit were minus infinity and its
 * selection bias, too: scores, weights and distribution are those of the gate over the others. A
 * *silenced* expert is chosen and weighed as ever, and gives nothing. A smaller top_k chooses fewer
 * experts: the best ones, weighed as a gate with that top_k weighs them. In the decisions, the
 * slots beyond it hold expert -1 with weight 0.
 *
 * What a gate cannot do exactly is refused by moed_intervention_finish(). */
#ifndef CORE_INTERVENTION_H
#define CORE_INTERVENTION_H

#include <stdbool.h>

#include "core/moed.h"

/* For one gate. Bit sets go by the gate's own indices, bit e % 64 of word e / 64. */
struct moed_gate_override {
    size_t top_k;                  /* that is asked for, once finished that applies; 0: nothing */
    uint64_t *excluded, *silenced; /* NULL: none */
};

struct moed_intervention {
    size_t gate_count;
    struct moed_gate_override gates[]; /* [gate_count] of the model */
};

/* Asks for nothing yet. The caller frees it. */
struct moed_intervention *moed_intervention_new(const struct moed_model_info *info);
void moed_intervention_free(struct moed_intervention *intervention);

/* The gate's own index of what its layer calls expert `index`; -1: it has no such expert. */
int32_t moed_gate_find_expert(const struct moed_gate_info *gate, int64_t index);

/* `expert`: the gate's own index. */
void moed_intervention_exclude(struct moed_intervention *intervention,
                               const struct moed_model_info *info, size_t gate, int32_t expert);
void moed_intervention_silence(struct moed_intervention *intervention,
                               const struct moed_model_info *info, size_t gate, int32_t expert);

/* Asks for all that `other` asks for, too: of the two top_k, the smaller. Neither is finished. */
void moed_intervention_add(struct moed_intervention *intervention,
                           const struct moed_model_info *info,
                           const struct moed_intervention *other);

/* Ends the asking: to be called once, before a span may point to it. A gate that uses all of its
 * experts uses all that are left. Returns -1 with an error that names the gate if it cannot choose
 * so: fewer experts are left than top_k, or than a gate needs that limits the choice to groups; or
 * its weights are defined for one top_k only. */
MUST_CHECK int moed_intervention_finish(struct moed_intervention *intervention,
                                        const struct moed_model_info *info, struct error *err);

static inline bool moed_override_has(const uint64_t *experts, size_t expert)
{
    return experts && experts[expert / 64] >> expert % 64 & 1;
}

/* What the rows of a span want of a gate; NULL: nothing. */
static inline const struct moed_gate_override *moed_override_of(const struct moed_span *span,
                                                                size_t gate)
{
    if (!span->intervention || span->intervention->gates[gate].top_k == 0)
        return NULL;
    return &span->intervention->gates[gate];
}

#endif
