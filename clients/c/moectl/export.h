/* Routing counts in the formats that other tools read. */
#ifndef MOECTL_EXPORT_H
#define MOECTL_EXPORT_H

#include "clients/c/moectl/document.h"

/* A line per layer and expert, with a head of names; empty where the document says nothing. */
void export_csv(const struct document *document, FILE *out);

/* One figure of every layer and expert. */
struct matrix {
    const char *value; /* which: "selected", "top1", "weight", "probability" */
    const char *first; /* the first layer's name */
    bool counts;       /* whole numbers */
    size_t layers, experts;
    double *values; /* [layers, experts] */
};

MUST_CHECK int matrix_init(struct matrix *matrix, const struct document *document,
                           const char *value, struct moed_client_error *err);
void matrix_close(struct matrix *matrix);

#endif
