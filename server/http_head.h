/* A request's header, read strictly as RFC 9112 has it: bytes in, a plain struct out, no sockets.
 *
 * Behind a proxy, a request whose end the two read differently smuggles a second request past the
 * proxy's checks (RFC 9112, section 11.2). So whatever could be read in two ways is refused here:
 * a line that does not end in CRLF, a control character, a folded line, a blank before a colon, two
 * lengths, two of a field that there may be one of. */
#ifndef SERVER_HTTP_HEAD_H
#define SERVER_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"
#include "server/http_line.h"

/* The longest header, from the method to the empty line: a Kerberos or JWT credential fits. A
 * client can make the server hold this many bytes by connecting. */
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

/* A part of the header's bytes. `at` 0: absent, since the method is what stands there. */
struct http_text {
    uint32_t at, length;
};

struct http_head {
    struct http_line line;
    size_t length; /* of the header, the empty line included; 0 until it is whole */

    uint32_t method_length; /* the method stands at 0; this is 0 until the request line was read */
    struct http_text path;  /* without scheme, host and query; absent: "/" (of "http://host") */
    struct http_text query; /* behind the '?' */
    struct http_text fields[HTTP_FIELD_COUNT]; /* values, without the blanks around them */

    bool http_1_0;
    bool wants_close, wants_keep_alive; /* Connection */
    bool expects_continue;
    bool chunked;
    uint64_t content_length;
};

/* Reads on in a header of which `bytes` holds the first `length`; calls for one header give the
 * same bytes and more. Returns 1 when it is whole, 0 when more is needed, -1 on error: the error's
 * code is the answer's status. */
MUST_CHECK int http_head_read(struct http_head *head, const char *bytes, size_t length,
                              struct error *err);

/* Checks a line (without its CRLF) of the fields behind a chunked body: a field, and none that says
 * where the request ends or whom it is for. */
MUST_CHECK int http_head_check_trailer(const char *line, size_t length, struct error *err);

#endif
