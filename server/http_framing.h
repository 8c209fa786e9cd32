/* Where a request begins and ends: the bytes of a connection in, the parts of requests out. Pure:
 * no sockets, no memory of its own.
 *
 * Bodies are counted, not looked at. What stands around them is read as strictly as the header (see
 * http_head.h): a chunk-size line is short and ends in CRLF, and so does every chunk. */
#ifndef SERVER_HTTP_FRAMING_H
#define SERVER_HTTP_FRAMING_H

#include "server/http_head.h"

enum {
    /* Of a chunk-size line with its extensions, which nobody reads: without a bound they are a
     * body that never counts. */
    HTTP_CHUNK_LINE_MAX_BYTES = 256,

    /* Of the fields behind a chunked body, which nobody reads either. */
    HTTP_TRAILER_MAX_BYTES = 8 << 10,
};

enum http_part {
    HTTP_MORE,    /* nothing to act on; if nothing was taken either, more bytes are needed */
    HTTP_HEADER,  /* the bytes taken are a whole header, described by `head` */
    HTTP_BODY,    /* the bytes taken are a piece of the body */
    HTTP_END,     /* the request is whole; none were taken */
    HTTP_REFUSED, /* the error's code is the answer's status; the connection cannot be read on */
};

enum http_framing_state {
    FRAMING_BEFORE, /* no byte of a request yet, but perhaps empty lines */
    FRAMING_HEAD,
    FRAMING_BODY, /* of a declared length */
    FRAMING_CHUNK_SIZE,
    FRAMING_CHUNK,
    FRAMING_CHUNK_END,
    FRAMING_TRAILER,
    FRAMING_END
};

struct http_framing {
    enum http_framing_state state;
    size_t max_body_bytes;
    struct http_head head;
    uint64_t remaining;    /* of the body, or of the chunk */
    uint64_t body_bytes;   /* of the chunks so far */
    struct http_line line; /* of a chunk size or a trailer */
    size_t trailer_bytes;
};

/* At the beginning of a request. */
void http_framing_init(struct http_framing *framing, size_t max_body_bytes);

/* Reads the next part and puts in `taken` how many of the bytes it has used up. The next call
 * begins with the first that was not taken: a header or a line that is not whole is given again,
 * with more behind it. */
enum http_part http_framing_read(struct http_framing *framing, const char *bytes, size_t length,
                                 size_t *taken, struct error *err);

/* How many bytes of body come next whatever they are; 0 where a line may come. A caller that takes
 * some of them past http_framing_read() says so. */
size_t http_framing_body_ahead(const struct http_framing *framing);
void http_framing_skip_body(struct http_framing *framing, size_t bytes);

#endif
