/* The arithmetic of routing; see figures.h and proto/PROTOCOL.md for the formulas. */
#include "clients/c/moectl/figures.h"

#include <math.h>
#include <stdio.h>

/* ---- one distribution ---- */

static double surprise(double p)
{
    return p > 0 ? -p * log2(p) : 0;
}

double entropy_bits(const double *values, size_t count)
{
    double sum = 0, bits = 0;
    for (size_t i = 0; i < count; i++)
        sum += values[i];
    for (size_t i = 0; sum > 0 && i < count; i++)
        bits += surprise(values[i] / sum);
    return bits;
}

/* ---- two distributions ---- */

double divergence_bits(const double *p, const double *q, size_t count)
{
    double bits = 0;
    for (size_t i = 0; i < count; i++)
        bits += surprise((p[i] + q[i]) / 2) - (surprise(p[i]) + surprise(q[i])) / 2;
    return fmax(bits, 0);
}

static double smoothed(double p, double rows, size_t count)
{
    return (p * rows + 0.5) / (rows + (double)count / 2);
}

double stability_index(const double *p, double n, const double *q, double m, size_t count)
{
    double index = 0;
    for (size_t i = 0; i < count; i++) {
        double a = smoothed(p[i], n, count), b = smoothed(q[i], m, count);
        index += (a - b) * log(a / b);
    }
    return index;
}

/* ---- chance ---- */

/* The regularised upper incomplete gamma function Q(a, x): the series below a + 1, Lentz's
 * continued fraction above (Numerical Recipes, 6.2). */
static double upper_gamma_series(double a, double x, double scale)
{
    double term = 1 / a, sum = term;
    for (int n = 1; n < 10000 && term > sum * 1e-16; n++) {
        term *= x / (a + n);
        sum += term;
    }
    return 1 - sum * scale;
}

static double upper_gamma_fraction(double a, double x, double scale)
{
    const double tiny = 1e-300;
    double b = x + 1 - a, c = 1 / tiny, d = 1 / b, h = d;
    for (int n = 1; n < 10000; n++) {
        double step = -n * (n - a);
        b += 2;
        d = step * d + b;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = b + step / c;
        c = fabs(c) < tiny ? tiny : c;
        h *= d * c;
        if (fabs(d * c - 1) < 1e-15)
            break;
    }
    return h * scale;
}

double chi_square_tail(double x, double degrees)
{
    if (!(x > 0) || !(degrees > 0))
        return 1;
    double a = degrees / 2;
    x /= 2;
    double scale = exp(a * log(x) - x - lgamma(a));
    double tail = x < a + 1 ? upper_gamma_series(a, x, scale) : upper_gamma_fraction(a, x, scale);
    return fmin(fmax(tail, 0), 1);
}

static double g_term(double observed, double expected)
{
    return observed > 0 ? 2 * observed * log(observed / expected) : 0;
}

double same_probability(const double *a, const double *b, size_t count, double per_row)
{
    double sum_a = 0, sum_b = 0, g = 0, degrees = -1;
    for (size_t i = 0; i < count; i++) {
        sum_a += a[i];
        sum_b += b[i];
    }
    double all = sum_a + sum_b;
    if (!(sum_a > 0 && sum_b > 0))
        return 1;
    for (size_t i = 0; i < count; i++) {
        double together = a[i] + b[i];
        degrees += together > 0;
        g += g_term(a[i], together * sum_a / all) + g_term(b[i], together * sum_b / all);
    }
    return chi_square_tail(g / per_row, degrees);
}

const char *chance_text(double chance, char text[CHANCE_BYTES])
{
    if (chance < 1e-300)
        return "< 1e-300";
    snprintf(text, CHANCE_BYTES, "%.2g", chance);
    return text;
}
