/* Stop strings in text that comes in pieces: what might begin one is held back. */
#ifndef PROTO_TEXT_STOPS_H
#define PROTO_TEXT_STOPS_H

#include "core/error.h"
#include "proto/buffer.h"

/* OpenAI allows 4. */
enum { STOPS_MAX = 16, STOP_MAX_BYTES = 256 };

struct stops {
    char *strings[STOPS_MAX]; /* owned */
    size_t count;
    struct buffer held; /* the start of a stop string, perhaps */
};

/* Copies the strings. None of them may be empty; a string before the failing one is freed. */
MUST_CHECK int stops_init(struct stops *stops, const char *const *strings, size_t count,
                          struct error *err);
void stops_close(struct stops *stops);

/* Takes a piece and appends to `out` what belongs to no stop string. True: one was found; `out`
 * then ends before it, and what follows it is gone. */
bool stops_add(struct stops *stops, const char *piece, size_t length, struct buffer *out);

/* The text ends here: appends what was held back. True: up to a stop string in it. */
bool stops_end(struct stops *stops, struct buffer *out);

#endif
