/* The four normalization forms, in time that is linear but for a sort of marks. */
#ifndef PROTO_TEXT_CANONICAL_H
#define PROTO_TEXT_CANONICAL_H

#include "proto/buffer.h"

enum canonical_form { FORM_NFC, FORM_NFD, FORM_NFKC, FORM_NFKD };

/* Appends the text, which is UTF-8, in that form. */
void canonical_append(struct buffer *to, enum canonical_form form, const char *text, size_t length);

#endif
