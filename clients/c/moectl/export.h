/* Routing counts in the formats that other tools read. */
#ifndef MOECTL_EXPORT_H
#define MOECTL_EXPORT_H

#include "clients/c/moectl/document.h"

/* A line per layer and expert, with a head of names; empty where the document says nothing. */
void export_csv(const struct document *document, FILE *out);

#endif
