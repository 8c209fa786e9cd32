/* What a request header must satisfy before we serve the request: rules about bytes, without
 * sockets.
 *
 * libmicrohttpd 0.9.75 is lenient where leniency is dangerous: behind a proxy, a request whose
 * length the two read differently smuggles a second request past the proxy's checks (RFC 9112,
 * section 11.2). Everything that could be read in two ways is refused here. */
#ifndef SERVER_HTTP_HEAD_H
#define SERVER_HTTP_HEAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/error.h"

struct http_head {
    bool http_1_0;
    bool malformed; /* a field, or the target, that no proxy and we can be sure to read alike */
    unsigned hosts, content_lengths, transfer_encodings;
    bool chunked;
    uint64_t content_length;             /* UINT64_MAX: not a length */
    const char *content_encoding;        /* borrowed from the fields; NULL: absent */
    const char *inference_header_length; /* the same */
};

/* Whether a request target, with its query, is free of blanks and controls. */
bool http_head_is_target(const char *target);

void http_head_init(struct http_head *head, const char *version, bool good_target);

void http_head_field(struct http_head *head, const char *name, size_t name_length,
                     const char *value, size_t value_length);

/* Once all fields are in. The error's code is the answer's status. */
int http_head_check(const struct http_head *head, size_t max_body_bytes, struct error *err);

#endif
