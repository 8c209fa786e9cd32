/* What the two halves of rendering share. */
#ifndef PROTO_TEXT_TEMPLATE_RUN_H
#define PROTO_TEXT_TEMPLATE_RUN_H

#include "proto/text/template_value.h"

/* Statements, in order, until one jumps or fails. */
void run_statements(struct run *run, const struct template_node *node);

/* The value of an expression. */
struct value run_evaluate(struct run *run, const struct template_node *node);

/* a[b:c:d] */
struct value run_slice(struct run *run, const struct template_node *node);

/* Names. Undefined where no scope has it. */
struct value scope_find(struct run *run, struct text name);
void scope_set(struct run *run, struct text name, struct value value);
/* A scope inside `parent`, entered. Returns the one to go back to; NULL when it failed. */
struct scope *template_scope_enter(struct run *run, struct scope *parent);

#endif
