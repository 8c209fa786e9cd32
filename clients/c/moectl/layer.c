/* Figures of one layer; see layer.h, and proto/PROTOCOL.md for the formulas. */
#include "clients/c/moectl/layer.h"

#include <math.h>
#include <stdlib.h>

#include "clients/c/moectl/figures.h"

/* ---- what follows from the counts ---- */

/* A document without them is of nobody who knows the parts of rows. */
static void derive_weight_shares(struct layer *layer)
{
    double weights = 0;
    bool told = true;
    for (size_t i = 0; i < layer->expert_count; i++) {
        weights += fabs(layer->experts[i].weight);
        told = told && isfinite(layer->experts[i].weight_share);
    }
    for (size_t i = 0; i < layer->expert_count; i++) {
        struct expert *expert = &layer->experts[i];
        if (!layer->weighted)
            expert->weight_share = NAN;
        else if (!told)
            expert->weight_share = weights > 0 ? fabs(expert->weight) / weights : 0;
    }
}

static void derive_shares(struct layer *layer)
{
    double selections = (double)layer->rows * (double)layer->top_k;
    layer->dense = layer->top_k == layer->expert_count;
    layer->weighted = true;
    for (size_t i = 0; i < layer->expert_count; i++) {
        struct expert *expert = &layer->experts[i];
        layer->weighted = layer->weighted && isfinite(expert->weight);
        layer->unused += expert->selected == 0;
        expert->share = selections > 0 ? (double)expert->selected / selections : 0;
    }
    derive_weight_shares(layer);
}

static double bits_of_weights(const struct layer *layer)
{
    double *shares = xcalloc(layer->expert_count, sizeof *shares);
    for (size_t i = 0; i < layer->expert_count; i++)
        shares[i] = layer->experts[i].weight_share;
    double bits = entropy_bits(shares, layer->expert_count);
    free(shares);
    return bits;
}

static void derive_balance(struct layer *layer)
{
    double n = (double)layer->expert_count;
    double sum = 0, squares = 0, most = 0, most_weight = 0;
    for (size_t i = 0; i < layer->expert_count; i++) {
        const struct expert *expert = &layer->experts[i];
        sum += expert->share;
        squares += expert->share * expert->share;
        most = fmax(most, expert->share);
        most_weight = fmax(most_weight, expert->weight_share);
    }
    layer->weight_imbalance = layer->weighted ? most_weight * n : NAN;
    layer->effective_experts = !layer->weighted  ? NAN
                               : most_weight > 0 ? exp2(bits_of_weights(layer))
                                                 : 0;
    if (!(sum > 0))
        return;
    double mean = sum / n;
    layer->imbalance = most / mean;
    layer->balancedness = mean / most;
    layer->cv = sqrt(fmax(squares / n - mean * mean, 0)) / mean;
    layer->jain = sum * sum / (n * squares);
}

void layer_derive(struct layer *layer)
{
    derive_shares(layer);
    derive_balance(layer);
}

/* ---- questions ---- */

double expert_load(const struct layer *layer, const struct expert *expert)
{
    return layer->dense && layer->weighted ? expert->weight_share : expert->share;
}

/* ---- ranking ---- */

static int compare_loads(const void *a, const void *b, void *context)
{
    const struct layer *layer = context;
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    double left = expert_load(layer, &layer->experts[i]);
    double right = expert_load(layer, &layer->experts[j]);
    if (left != right)
        return left < right ? 1 : -1;
    return i < j ? -1 : i > j;
}

size_t *layer_ranking(const struct layer *layer)
{
    size_t *ranking = xcalloc(layer->expert_count, sizeof *ranking);
    for (size_t i = 0; i < layer->expert_count; i++)
        ranking[i] = i;
    qsort_r(ranking, layer->expert_count, sizeof *ranking, compare_loads, (void *)layer);
    return ranking;
}

char *quarantine_reason(const json_t *entry)
{
    const char *text = json_string_value(json_object_get(entry, "reason"));
    return printable(text && *text ? text : "no reason given");
}
