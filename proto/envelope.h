/* Request JSON with its tensors cut out.
 *
 * A general JSON parser spends 200 ns and 30 bytes of heap on every number, so the numbers of a
 * tensor must not go through one. One pass over the body cuts out every *literal*: a list whose
 * first element, after any number of opening brackets, begins like a number, a string or null. The
 * rest, the envelope, has `[k]` in place of literal k and is small; jansson parses it. As every
 * list that begins with a number is cut, `[k]` in the envelope is always ours: a client cannot
 * forge one.
 *
 * Whoever claims a literal reads its numbers straight from the body and checks its grammar.
 * envelope_check_rest() checks the literals that nobody claimed, so malformed JSON is refused
 * wherever it is. The body is borrowed and must outlive the envelope. */
#ifndef PROTO_ENVELOPE_H
#define PROTO_ENVELOPE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"
#include "proto/buffer.h"

enum {
    /* Apart from its tensors a request has only names, shapes and parameters. */
    ENVELOPE_MAX_BYTES = 256 * 1024,
    /* Memory for its tree. An empty object costs the parser eighty times its three bytes: this
     * bounds what a body full of them makes us allocate. */
    ENVELOPE_MAX_HEAP = 4 << 20,
    /* A request has two literals per input, data and shape. Stops a body of a million tiny ones. */
    ENVELOPE_MAX_LITERALS = 1024,
};

struct envelope_literal {
    const char *text; /* in the body, brackets included */
    size_t length;
    size_t entries;        /* of its outermost list */
    size_t envelope_after; /* the position behind its stand-in in the envelope */
    bool claimed;
};

struct envelope {
    const char *body; /* borrowed */
    size_t length;
    struct envelope_literal *literals; /* owned; in the order of the body */
    size_t literal_count, literal_capacity;
    json_t *root; /* owned; an object. Integers are reals: ids of 64 bits are legal and ignored */
};

/* On error there is nothing to close. */
MUST_CHECK int envelope_init(struct envelope *envelope, const char *body, size_t length,
                             struct error *err);

/* The same, and if the body's member `rows` is a list that begins with an object, that is a literal
 * too. */
MUST_CHECK int envelope_init_with_rows(struct envelope *envelope, const char *body, size_t length,
                                       const char *rows, struct error *err);
void envelope_close(struct envelope *envelope);

/* The literal that a value of the envelope stands for; NULL if it is not a stand-in. */
const struct envelope_literal *envelope_claim(struct envelope *envelope, const json_t *value);

/* A list of the envelope, parsed if it is a literal, which is then claimed. For short lists that
 * are no tensors. The caller drops the reference; NULL with an error. */
MUST_CHECK json_t *envelope_list(struct envelope *envelope, json_t *list, struct error *err);

/* Refuses malformed JSON in the literals that nobody claimed. */
MUST_CHECK int envelope_check_rest(struct envelope *envelope, struct error *err);

/* Entries of the outermost list at `list`, whose brackets match before `end`. */
size_t envelope_list_entries(const char *list, const char *end);

#endif
