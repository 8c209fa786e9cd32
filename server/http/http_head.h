/* Reads a request's header as strictly as RFC 9112 allows: bytes in, a plain struct out, no
 * sockets.
 *
 * If a proxy and the server disagree where a request ends, a second request can be smuggled past
 * the proxy's checks (RFC 9112, section 11.2). So everything that has two readings is refused: a
 * line that does not end in CRLF, a control character, a folded line, a blank before a colon, two
 * lengths, a second field of a kind of which there may be one. */
#ifndef SERVER_HTTP_HEAD_H
#define SERVER_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "server/http/http_line.h"

/* The longest header, from the method to the empty line. A Kerberos or JWT credential fits. A
 * client that only connects can make the server hold this many bytes. */
enum { HTTP_HEAD_MAX_BYTES = 32 << 10 };

/* Fields that a request may have once. */
enum http_field {
    HTTP_FIELD_HOST,
    HTTP_FIELD_CONTENT_LENGTH,
    HTTP_FIELD_TRANSFER_ENCODING,
    HTTP_FIELD_CONTENT_ENCODING,
    HTTP_FIELD_INFERENCE_HEADER_LENGTH,
    HTTP_FIELD_COUNT
};

/* A part of the header. `at` is 0 if it is absent: the method stands there. */
struct http_text {
    uint32_t at, length;
};

struct http_head {
    struct http_line line;
    size_t length; /* of the header, the empty line included; 0 until it is whole */

    uint32_t method_length; /* the method begins at 0; 0 until the request line was read */
    struct http_text path;  /* without scheme, host and query; absent: "/" (of "http://host") */
    struct http_text query; /* behind the '?' */
    struct http_text fields[HTTP_FIELD_COUNT]; /* values, without the blanks around them */

    bool http_1_0;
    bool wants_close, wants_keep_alive; /* Connection */
    bool expects_continue;
    bool chunked;
    uint64_t content_length;
};

/* Reads on in a header whose first `length` bytes are in `bytes`. Each call for one header gives
 * the same bytes and more. Returns 1 when the header is whole, 0 when more is needed, -1 on error:
 * the error's code is the answer's status. */
MUST_CHECK int http_head_read(struct http_head *head, const char *bytes, size_t length,
                              struct error *err);

/* Checks a line, without its CRLF, of the fields behind a chunked body: it must be a field, and
 * none that says where the request ends or whom it is for. */
MUST_CHECK int http_head_check_trailer(const char *line, size_t length, struct error *err);

#endif
