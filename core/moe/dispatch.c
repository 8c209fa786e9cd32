/* Pairs (item, expert) are sorted by expert, so that each expert's weights are read once per batch.
 *
 * The counting sort is stable: an expert sees its items in order, whatever else is in the batch. A
 * pair that several gates chose is one pair. */
#include "core/moe/dispatch.h"

#include <stdlib.h>
#include <string.h>

#include "core/intervention.h"
#include "core/memory.h"

/* Puts the selections of all gates side by side. `position` holds experts until place(). */
static void collect(struct dispatch *dispatch, const struct routing *routing, size_t gate_count)
{
    size_t first_slot = 0;
    for (size_t gate = 0; gate < gate_count; gate++) {
        const size_t k = routing[gate].decisions.top_k;
        const int32_t *expert = routing[gate].decisions.expert;
        for (size_t item = 0; item < dispatch->items; item++)
            for (size_t slot = 0; slot < k; slot++)
                dispatch->position[item * dispatch->slots + first_slot + slot] =
                    (uint32_t)*expert++; /* -1, dropped, becomes NOWHERE */
        first_slot += k;
    }
}

/* What silenced experts would give to a gate's items, from `first` on, counts for nothing: they are
 * not run. `position`: of the first item's slots for this gate. */
static void silence(const struct dispatch *dispatch, const struct moed_routing *decisions,
                    const uint64_t *silenced, uint32_t *position, size_t items)
{
    const size_t k = decisions->top_k;
    const int32_t *choice =
        decisions->choice + (size_t)(position - dispatch->position) / dispatch->slots * k;
    for (size_t item = 0; item < items; item++, position += dispatch->slots, choice += k)
        for (size_t slot = 0; slot < k; slot++)
            if (choice[slot] >= 0 && moed_override_has(silenced, (size_t)choice[slot]))
                position[slot] = NOWHERE;
}

static void silence_span(const struct dispatch *dispatch, const struct run *run,
                         const struct moed_span *span, size_t first_gate, uint32_t *position)
{
    const size_t items = span->rows * (dispatch->items / batch_rows(run));
    const struct routing *routing = &run->routing[first_gate];
    uint32_t *end = position + dispatch->slots;
    for (size_t gate = first_gate; position < end; gate++, routing++) {
        const struct moed_gate_override *override = moed_override_of(span, gate);
        if (override && override->silenced)
            silence(dispatch, &routing->decisions, override->silenced, position, items);
        position += routing->decisions.top_k;
    }
}

static void silence_all(const struct dispatch *dispatch, const struct run *run, size_t first_gate)
{
    uint32_t *position = dispatch->position;
    const size_t each = dispatch->items / batch_rows(run) * dispatch->slots;
    for (size_t i = 0; i < run->span_count; position += run->spans[i++].rows * each)
        if (run->spans[i].intervention)
            silence_span(dispatch, run, &run->spans[i], first_gate, position);
}

/* Whether this is the first selection of `expert` for `item`. */
static bool is_new_pair(struct dispatch *dispatch, uint32_t expert, size_t item)
{
    const bool is_new = dispatch->last_item[expert] != item + 1;
    dispatch->last_item[expert] = (uint32_t)item + 1;
    return is_new;
}

static void forget_items(struct dispatch *dispatch)
{
    memset(dispatch->last_item, 0, dispatch->experts * sizeof *dispatch->last_item);
}

/* first[e] = pairs of the experts before e. */
static void count(struct dispatch *dispatch)
{
    uint32_t *pairs = dispatch->first + 1;
    memset(dispatch->first, 0, (dispatch->experts + 1) * sizeof *dispatch->first);
    forget_items(dispatch);
    const uint32_t *expert = dispatch->position;
    for (size_t item = 0; item < dispatch->items; item++)
        for (size_t slot = 0; slot < dispatch->slots; slot++, expert++)
            if (*expert != NOWHERE && is_new_pair(dispatch, *expert, item))
                pairs[*expert]++;
    for (size_t e = 0; e < dispatch->experts; e++)
        dispatch->first[e + 1] += dispatch->first[e];
}

static void place(struct dispatch *dispatch)
{
    forget_items(dispatch);
    uint32_t *position = dispatch->position;
    /* first[e] walks forward as expert e's pairs are placed, to where first[e + 1] began ... */
    for (size_t item = 0; item < dispatch->items; item++)
        for (size_t slot = 0; slot < dispatch->slots; slot++, position++) {
            const uint32_t expert = *position;
            if (expert == NOWHERE)
                continue;
            if (is_new_pair(dispatch, expert, item)) {
                dispatch->last_position[expert] = dispatch->first[expert]++;
                dispatch->item[dispatch->last_position[expert]] = (uint32_t)item;
            }
            *position = dispatch->last_position[expert];
        }
    /* ... so moving every entry up by one restores the beginnings. */
    for (size_t e = dispatch->experts; e > 0; e--)
        dispatch->first[e] = dispatch->first[e - 1];
    dispatch->first[0] = 0;
}

/* The weights of one gate's pairs, each of which is chosen once. */
static void weigh_inputs(struct dispatch *dispatch, const struct moed_routing *decisions)
{
    size_t selections = dispatch->items * dispatch->slots;
    for (size_t i = 0; i < selections; i++)
        if (dispatch->position[i] != NOWHERE)
            dispatch->input_weight[dispatch->position[i]] = decisions->weight[i];
}

void dispatch_pairs(struct dispatch *dispatch, const struct run *run, size_t first_gate,
                    size_t gate_count)
{
    const struct routing *routing = &run->routing[first_gate];
    dispatch->items = routing[0].decisions.items;
    collect(dispatch, routing, gate_count);
    silence_all(dispatch, run, first_gate);
    count(dispatch);
    place(dispatch);
    if (dispatch->input_weight)
        weigh_inputs(dispatch, &routing->decisions);
}

int dispatch_init(struct dispatch *dispatch, const struct moe_sizes *sizes, size_t max_items,
                  bool timed, struct error *err)
{
    const size_t selections = max_items * sizes->slots, experts = sizes->experts;
    uint64_t *bytes = &dispatch->bytes;
    *dispatch = (struct dispatch){.experts = experts, .slots = sizes->slots};
    if (!(dispatch->item = calloc_counted(selections, sizeof *dispatch->item, bytes, err)) ||
        !(dispatch->position =
              calloc_counted(selections, sizeof *dispatch->position, bytes, err)) ||
        !(dispatch->tasks = calloc_counted(selections, sizeof *dispatch->tasks, bytes, err)) ||
        (sizes->weighs_inputs && !(dispatch->input_weight = calloc_counted(
                                       selections, sizeof *dispatch->input_weight, bytes, err))) ||
        !(dispatch->first = calloc_counted(experts + 1, sizeof *dispatch->first, bytes, err)) ||
        !(dispatch->last_item = calloc_counted(experts, sizeof *dispatch->last_item, bytes, err)) ||
        !(dispatch->last_position =
              calloc_counted(experts, sizeof *dispatch->last_position, bytes, err)))
        return -1;
    *bytes += timing_init(&dispatch->timing, experts, timed);
    return 0;
}

void dispatch_close(struct dispatch *dispatch)
{
    free(dispatch->item);
    free(dispatch->position);
    free(dispatch->tasks);
    free(dispatch->first);
    free(dispatch->last_item);
    free(dispatch->last_position);
    free(dispatch->input_weight);
    timing_close(&dispatch->timing);
}
