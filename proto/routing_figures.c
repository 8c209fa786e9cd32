/* Every derived figure is computed from counts when it is read; nothing derived is stored. */
#include "proto/routing_figures.h"

#include <math.h>
#include <stdint.h>

/* -p log2 p, with its limit at 0. */
static double surprise(double p)
{
    return p > 0 ? -p * log2(p) : 0;
}

static double ratio(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

/* ---- shares ---- */

static uint64_t selections(const struct moed_gate_counts *counts)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < counts->experts; i++)
        sum += counts->expert[i].selected;
    return sum;
}

uint64_t routing_dropped(const struct moed_gate_counts *counts)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < counts->experts; i++)
        sum += counts->expert[i].dropped;
    return sum;
}

static double parts(const struct moed_gate_counts *counts)
{
    __int128 sum = 0;
    for (size_t i = 0; i < counts->experts; i++)
        sum += counts->expert[i].part;
    return moed_sum_value(sum);
}

static double weight_share(const struct moed_gate_counts *counts, size_t expert)
{
    return ratio(moed_sum_value(counts->expert[expert].part), parts(counts));
}

void routing_shares(const struct moed_gate_counts *counts, double *out)
{
    const double sum = (double)selections(counts);
    for (size_t i = 0; i < counts->experts; i++)
        out[i] = ratio((double)counts->expert[i].selected, sum);
}

void routing_weight_shares(const struct moed_gate_counts *counts, double *out)
{
    const double sum = parts(counts);
    for (size_t i = 0; i < counts->experts; i++)
        out[i] = ratio(moed_sum_value(counts->expert[i].part), sum);
}

/* ---- how evenly ---- */

static void by_selections(const struct moed_gate_counts *counts, struct routing_figures *figures)
{
    const double n = (double)counts->experts, sum = (double)selections(counts);
    double most = 0, squares = 0;
    for (size_t i = 0; i < counts->experts; i++) {
        const double share = ratio((double)counts->expert[i].selected, sum);
        most = fmax(most, share);
        squares += share * share;
        figures->unused += counts->expert[i].selected == 0;
    }
    if (sum == 0)
        return;
    figures->imbalance = most * n;
    figures->balancedness = 1 / (most * n);
    figures->cv = sqrt(fmax(squares * n - 1, 0));
    figures->jain = 1 / (squares * n);
}

static void by_weights(const struct moed_gate_counts *counts, struct routing_figures *figures)
{
    const double sum = parts(counts);
    double most = 0, entropy = 0;
    for (size_t i = 0; i < counts->experts; i++) {
        const double share = ratio(moed_sum_value(counts->expert[i].part), sum);
        most = fmax(most, share);
        entropy += surprise(share);
    }
    figures->weight_imbalance = most * (double)counts->experts;
    figures->effective_experts = sum > 0 ? exp2(entropy) : 0;
}

struct routing_figures routing_figures_of(const struct moed_gate_counts *counts)
{
    struct routing_figures figures = {0};
    const double items = (double)counts->items;
    by_selections(counts, &figures);
    by_weights(counts, &figures);
    if (counts->items == 0)
        return figures;
    for (size_t i = 0; i < counts->experts; i++)
        figures.usage_entropy_bits +=
            surprise(moed_sum_value(counts->expert[i].probability) / items);
    figures.gate_entropy_bits = moed_sum_value(counts->entropy) / items;
    figures.margin = moed_sum_value(counts->margin) / items;
    return figures;
}

/* ---- dying ---- */

static double log_factorial(double n)
{
    int sign; /* lgamma() would keep it in a global variable */
    return lgamma_r(n + 1, &sign);
}

/* ln of the ways to choose k of n. */
static double log_choices(double n, double k)
{
    if (k < 0 || k > n)
        return -INFINITY;
    return log_factorial(n) - log_factorial(k) - log_factorial(n - k);
}

/* The probability that at most `most` of the `special` ones among `all` lie among `drawn` ones:
 * terms fall from `most` downwards, as it is below the mean. */
static double hypergeometric_tail(double all, double special, double drawn, double most)
{
    const double ways = log_choices(all, drawn);
    double sum = 0;
    for (double some = floor(most); some >= 0; some--) {
        const double term =
            exp(log_choices(special, some) + log_choices(all - special, drawn - some) - ways);
        sum += term;
        if (term <= sum * 1e-12) /* 0, too: it may be too small for a number from the beginning */
            break;
    }
    return sum;
}

bool routing_is_dying(const struct moed_gate_counts *earlier, const struct moed_gate_counts *recent,
                      bool dense, size_t expert)
{
    const double before = (double)earlier->items, now = (double)recent->items;
    double used = (double)earlier->expert[expert].selected;
    double left = (double)recent->expert[expert].selected;
    if (dense) {
        used = round(weight_share(earlier, expert) * before);
        left = round(weight_share(recent, expert) * now);
    }
    const double tolerated = dense ? 0.1 : 0;
    if (used == 0 || now == 0 || left / now > tolerated * used / before)
        return false;
    const double chance = hypergeometric_tail(before + now, used + left, now, left);
    return chance * (double)recent->experts < 1e-3;
}
