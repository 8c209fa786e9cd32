/* Sums of two JSON values: private to moectl's merge*.c. */
#ifndef MOECTL_MERGE_VALUES_H
#define MOECTL_MERGE_VALUES_H

#include <jansson.h>

#include "clients/c/moectl/run.h"

/* Records that the documents differ in `what`. Returns -1. */
int merge_differs(const char *what, struct moed_client_error *err);

/* The sum of two numbers; NULL: a count overflows. */
json_t *merge_sum(json_t *a, json_t *b);

/* Adds a member. One that only one of them has cannot be added: it goes. */
int merge_member(json_t *into, json_t *from, const char *key, struct moed_client_error *err);
int merge_members(json_t *into, json_t *from, const char *const *keys, size_t count,
                  struct moed_client_error *err);

#endif
