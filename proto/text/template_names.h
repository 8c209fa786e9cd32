/* The filters, tests, functions and methods that there are, by name. */
#ifndef PROTO_TEXT_TEMPLATE_NAMES_H
#define PROTO_TEXT_TEMPLATE_NAMES_H

#include "proto/text/template_node.h"

/* An index for the table of that kind; -1: there is none. */
int template_filter(struct text name);
int template_test(struct text name);
int template_function(struct text name);
int template_method(struct text name);

#endif
