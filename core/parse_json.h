/* Parses untrusted JSON with jansson, within bounds that jansson lacks.
 *
 * jansson allocates up to eighty times the text it reads, ignores a NUL after a number, and names
 * its own flags in messages. A pass over the text before jansson sees it adds up the memory that
 * the tree would take, and refuses text that is too expensive or invalid for those reasons.
 *
 * After some of its own failed allocations jansson goes on without a byte of a string, and reads
 * and writes behind its end when that was the quote. So before jansson sees a large text, as much
 * memory as it can take is allocated and freed; and from the first call on, an allocation of
 * jansson that fails nevertheless ends the process, as core/memory.h has it. */
#ifndef CORE_PARSE_JSON_H
#define CORE_PARSE_JSON_H

#include <jansson.h>
#include <stddef.h>

#include "core/error.h"

enum json_fault_kind {
    JSON_FAULT_MALFORMED,
    JSON_FAULT_TOO_LARGE, /* its tree would take more memory than is allowed */
    JSON_FAULT_NO_MEMORY, /* the text may be fine; memory ran out */
};

/* Why a text was refused, and where. */
struct json_fault {
    enum json_fault_kind kind;
    size_t position; /* byte of the text */
    char reason[JSON_ERROR_TEXT_LENGTH];
};

/* Parses `length` bytes, which need not end with a NUL. `max_heap` bounds the memory of the tree,
 * in bytes; the estimate errs on the high side. `flags` are jansson's; duplicate keys are always
 * refused. The caller drops the reference. NULL with `fault` filled if the text is refused. */
MUST_CHECK json_t *parse_json(const char *text, size_t length, size_t flags, size_t max_heap,
                              struct json_fault *fault);

/* Makes reals, in place, of the integers beyond 64 bits in `text`, which a NUL ends. Python writes
 * integers of any size, and published files have some that nobody reads: transformers writes one of
 * 31 digits where a tokenizer has no limit. jansson would refuse the whole file. */
void json_shorten_integers(char *text, size_t length);

/* The byte after the string of JSON that starts at `quote`; `end` if it does not end before. */
const char *json_string_end(const char *quote, const char *end);

/* INVALID, or UNAVAILABLE where memory ran out: the text may be fine. */
enum error_code json_fault_code(const struct json_fault *fault);

/* Line and column of byte `position`, both from 1; columns are bytes. */
void json_line_and_column(const char *text, size_t position, size_t *line, size_t *column);

#endif
