/* What one element of an input becomes that is no plain number. Private to infer_reader.c. */
#ifndef PROTO_INFER_CATEGORY_H
#define PROTO_INFER_CATEGORY_H

#include "proto/infer.h"

/* `index`: of the element, counted from the reader's next one. Each refuses what the input does not
 * take, naming the element. */
MUST_CHECK int infer_store_category(const struct infer_reader *reader, size_t index, double number,
                                    int32_t *category, struct error *err);
MUST_CHECK int infer_store_word(const struct infer_reader *reader, size_t index, const char *word,
                                size_t length, int32_t *category, struct error *err);

/* null, into an int32_t of an input of categories, else into a float. */
MUST_CHECK int infer_store_missing(const struct infer_reader *reader, void *value,
                                   struct error *err);

#endif
