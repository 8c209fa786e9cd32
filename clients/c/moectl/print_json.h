/* JSON on its way to a terminal, a pipe or a file. */
#ifndef MOECTL_PRINT_JSON_H
#define MOECTL_PRINT_JSON_H

#include <jansson.h>
#include <stdio.h>

/* Writes `json`, with jansson's `flags`, and a line break. What a terminal would obey (see
 * text_is_control()) is \uXXXX: the same document to whoever parses it, and harmless to whoever
 * looks. */
void print_json(FILE *out, const json_t *json, size_t flags);

#endif
