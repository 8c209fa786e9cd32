/* The arithmetic of routing: entropy, distances between distributions, what is chance. */
#ifndef MOECTL_FIGURES_H
#define MOECTL_FIGURES_H

#include <stddef.h>

/* -sum p log2 p over values that are divided by their sum; 0 when that is 0. */
double entropy_bits(const double *values, size_t count);

/* Jensen-Shannon divergence in bits, 0 to 1, of two distributions that sum to 1. */
double divergence_bits(const double *p, const double *q, size_t count);

/* Population stability index: sum (p' - q') ln(p' / q') of two distributions of n and m rows, with
 * half a row added to every expert (p' = (p n + 1/2) / (n + count/2)), so that one that vanished
 * counts much and not infinitely. Usual reading: below 0.1 stable, above 0.25 moved. */
double stability_index(const double *p, double n, const double *q, double m, size_t count);

/* G test of homogeneity: the probability of two samples as far apart as `a` and `b` (counts) if
 * both came from one distribution. `per_row`: how many of the counts one independent row makes. 1
 * without data. */
double same_probability(const double *a, const double *b, size_t count, double per_row);

/* A probability in words, "0.03": what no double can hold is not 0. */
enum { CHANCE_BYTES = 16 };
const char *chance_text(double chance, char text[CHANCE_BYTES]);

/* P(X >= x) of the chi-square distribution. */
double chi_square_tail(double x, double degrees);

#endif
