/* Divergences and a test of two histograms. */
#include "proto/routing_drift.h"

#include <math.h>

#include "proto/routing_figures.h"

/* ---- divergences ---- */

static double surprise(double p)
{
    return p > 0 ? -p * log2(p) : 0;
}

static double js_bits(size_t experts, const double *p, const double *q)
{
    double sum = 0;
    for (size_t i = 0; i < experts; i++)
        sum += surprise((p[i] + q[i]) / 2) - (surprise(p[i]) + surprise(q[i])) / 2;
    return fmin(fmax(sum, 0), 1);
}

static double smoothed(const struct routing_sample *sample, size_t experts, size_t i)
{
    return (sample->share[i] * sample->items + 0.5) / (sample->items + (double)experts / 2);
}

static double psi(size_t experts, const struct routing_sample *sample,
                  const struct routing_sample *other)
{
    double sum = 0;
    for (size_t i = 0; i < experts; i++) {
        const double p = smoothed(sample, experts, i), q = smoothed(other, experts, i);
        sum += (p - q) * log(p / q);
    }
    return sum;
}

/* ---- the test ---- */

/* The upper incomplete gamma function over the whole: the chance that chi-square of 2a degrees of
 * freedom exceeds 2x. By its series below a + 1, by its continued fraction (Lentz) above. */
static double upper_gamma(double a, double x)
{
    int sign;
    const double front = exp(a * log(x) - x - lgamma_r(a, &sign));
    if (x <= 0)
        return 1;
    if (x < a + 1) {
        double term = 1 / a, sum = term;
        for (double n = 1; term > sum * 1e-16; n++)
            sum += term *= x / (a + n);
        return fmax(1 - front * sum, 0);
    }
    double b = x + 1 - a, c = 1e300, d = 1 / b, fraction = d;
    for (int n = 1; n < 100000; n++) {
        const double step = -n * (n - a);
        b += 2;
        d = 1 / (step * d + b);
        c = b + step / c;
        fraction *= c * d;
        if (fabs(c * d - 1) < 1e-15)
            break;
    }
    return front * fraction;
}

/* A cell of the table: items of the one sample and of the other. */
struct cell {
    double one, other;
};

/* Its part of G: twice the sum of o ln(o / e). */
static double g_of(const struct cell *cell, const struct cell *whole)
{
    const double share = (cell->one + cell->other) / (whole->one + whole->other);
    double g = 0;
    if (cell->one > 0)
        g += 2 * cell->one * log(cell->one / (share * whole->one));
    if (cell->other > 0)
        g += 2 * cell->other * log(cell->other / (share * whole->other));
    return g;
}

static bool is_filled(const struct cell *cell, const struct cell *whole)
{
    const double smaller = fmin(whole->one, whole->other);
    return (cell->one + cell->other) * smaller / (whole->one + whole->other) >= 5;
}

static void test(size_t experts, const struct routing_sample *sample,
                 const struct routing_sample *other, struct routing_drift *drift)
{
    const struct cell whole = {sample->items, other->items};
    struct cell rest = {0, 0}, least = {0, 0};
    double g = 0;
    int cells = 0;
    for (size_t i = 0; i < experts; i++) {
        const struct cell cell = {sample->share[i] * sample->items, other->share[i] * other->items};
        if (!is_filled(&cell, &whole)) {
            rest = (struct cell){rest.one + cell.one, rest.other + cell.other};
            continue;
        }
        g += g_of(&cell, &whole);
        if (cells++ == 0 || cell.one + cell.other < least.one + least.other)
            least = cell;
    }
    if (is_filled(&rest, &whole)) {
        g += g_of(&rest, &whole);
        cells++;
    } else if (cells > 0) { /* the rest joins the smallest cell */
        const struct cell joined = {least.one + rest.one, least.other + rest.other};
        g += g_of(&joined, &whole) - g_of(&least, &whole);
    }
    drift->tested = cells >= 2;
    drift->p_value = drift->tested ? upper_gamma((cells - 1) / 2.0, fmax(g, 0) / 2) : 1;
}

bool routing_drift_of(size_t experts, const struct routing_sample *sample,
                      const struct routing_sample *other, struct routing_drift *drift)
{
    if (!(sample->items > 0 && other->items > 0))
        return false;
    *drift = (struct routing_drift){.js_bits = js_bits(experts, sample->share, other->share),
                                    .psi = psi(experts, sample, other)};
    test(experts, sample, other, drift);
    return true;
}

struct routing_sample routing_sample_of(const struct moed_gate_counts *counts, bool dense,
                                        double *share)
{
    if (dense)
        routing_weight_shares(counts, share);
    else
        routing_shares(counts, share);
    return (struct routing_sample){share, (double)counts->items};
}
