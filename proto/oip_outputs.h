/* The outputs a model offers by name: its own, then the routing of each MoE layer as
 * routing.<layer>.experts (INT32) and routing.<layer>.weights (FP32). */
#ifndef PROTO_OIP_OUTPUTS_H
#define PROTO_OIP_OUTPUTS_H

#include "proto/infer.h"

struct oip_output {
    enum infer_source source;
    size_t index; /* as in struct infer_output */
    enum datatype datatype;
    const char *name[3]; /* the name is these three joined; borrowed */
    size_t rank;         /* of one row */
    size_t dims[INFER_MAX_AXES];
    size_t elements; /* per row */
};

/* Those that documents list. */
size_t oip_output_count(const struct signature *signature);

/* With those behind them, which a request may only name: routing.<layer>.probabilities of all
 * experts (FP32). */
size_t oip_output_end(const struct signature *signature);

/* Output i of those offered. */
struct oip_output oip_output_at(const struct signature *signature, size_t i);

/* The offered output that a request's output refers to. */
struct oip_output oip_output_of(const struct signature *signature,
                                const struct infer_output *output);

bool oip_output_is_named(const struct oip_output *output, const char *name);

/* Appends the beginning, {"name": ...; the rest differs by document. */
void oip_append_name(struct buffer *body, const struct oip_output *output);

/* Appends [first,dims...]; `first` is a number or "-1"; NULL omits it. */
void oip_append_shape(struct buffer *body, const char *first, const size_t *dims, size_t rank);

#endif
