/* Rotary position embedding: pairs of a head's numbers turned by an angle that grows with the
 * position. Private to attention. */
#ifndef CORE_ROTARY_H
#define CORE_ROTARY_H

#include "core/layers/scope.h"

struct rotary {
    size_t pairs;           /* that are turned; 0: none */
    size_t first, distance; /* pair j is x[j * first], x[j * first + distance] */
    double *frequencies;    /* [pairs] owned */
    double factor;          /* on cosine and sine */
    float *cosine, *sine;   /* [positions, pairs] owned */
};

/* Reads node["rotary"], if it is there, for heads of `head_dim` numbers, and fills tables for so
 * many positions. */
MUST_CHECK int rotary_build(struct rotary *rotary, const struct scope *scope,
                            struct config_node *node, size_t head_dim, size_t positions,
                            struct error *err);
void rotary_close(struct rotary *rotary);

/* Turns one head's vector, which stands at `position`, one of the table's. */
void rotary_turn(const struct rotary *rotary, size_t position, float *x);

/* Any position's cosines and sines, [pairs] each, and a turn by them. */
void rotary_angles(const struct rotary *rotary, size_t position, float *cosine, float *sine);
void rotary_turn_by(const struct rotary *rotary, const float *cosine, const float *sine, float *x);

#endif
