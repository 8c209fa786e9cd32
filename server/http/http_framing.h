/* Where a request begins and ends: takes the bytes of a connection, returns the parts of requests.
 * Pure: no sockets, no memory of its own.
 *
 * Bodies are counted, not looked at. What stands around them is read as strictly as the header
 * (http_head.h): a chunk-size line is short and ends in CRLF, and every chunk ends in CRLF. */
#ifndef SERVER_HTTP_FRAMING_H
#define SERVER_HTTP_FRAMING_H

#include "server/http/http_head.h"

enum {
    /* The longest chunk-size line with its extensions, which nobody reads: without a bound they
     * would be a body that is never counted. */
    HTTP_CHUNK_LINE_MAX_BYTES = 256,

    /* The longest trailer: the fields behind a chunked body, which nobody reads either. */
    HTTP_TRAILER_MAX_BYTES = 8 << 10,
};

enum http_part {
    HTTP_MORE,    /* nothing to act on; if no bytes were taken either, more are needed */
    HTTP_HEADER,  /* the bytes taken are a whole header, described by `head` */
    HTTP_BODY,    /* the bytes taken are a piece of the body */
    HTTP_END,     /* the request is whole; none were taken */
    HTTP_REFUSED, /* the error's code is the answer's status; the connection cannot be read on */
};

enum http_framing_state {
    FRAMING_BEFORE, /* no byte of a request yet, except perhaps empty lines */
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

/* Call at the beginning of each request. */
void http_framing_init(struct http_framing *framing, size_t max_body_bytes);

/* Reads the next part and puts in `taken` how many bytes it has used. The next call begins with the
 * first byte that was not taken: a header or a line that is not whole is given again, with more
 * bytes behind it. */
enum http_part http_framing_read(struct http_framing *framing, const char *bytes, size_t length,
                                 size_t *taken, struct error *err);

/* How many of the next bytes must be body; 0 where a line may come. A caller that takes some of
 * them past http_framing_read() says so. */
size_t http_framing_body_ahead(const struct http_framing *framing);
void http_framing_skip_body(struct http_framing *framing, size_t bytes);

#endif
