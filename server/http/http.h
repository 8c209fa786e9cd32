/* HTTP: from sockets to exchanges and back.
 *
 * One `struct http` drives one libmicrohttpd daemon from one libuv loop; everything here runs on
 * that loop's thread. An *exchange* is one request and its answer. The handler is called once the
 * whole body is there, and answers with exchange_reply(), at once or later. Every exchange that the
 * handler saw must be answered exactly once, even if its client has gone.
 *
 * What a client does wrong before its request is whole (a bad header, a body that is too large or
 * too slow, hanging up) is answered or dropped here and never reaches the handler. It is logged and
 * counted through `on_finished` like every other exchange. */
#ifndef SERVER_HTTP_H
#define SERVER_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "core/error.h"
#include "core/memory.h"
#include "proto/buffer.h"
#include "proto/trace_context.h"
#include "server/http/http_listen.h"
#include "server/http/http_status.h"

enum http_method { HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_DELETE, HTTP_OTHER };

/* An id, three for pages of other origins, five of the dashboard, and some spare. */
enum {
    HTTP_MAX_REPLY_HEADERS = 12,
    HTTP_ADDRESS_BYTES = 48,
    HTTP_REQUEST_ID_BYTES = 64,
    HTTP_TOKEN_NAME_BYTES = 33
};

struct http_header {
    const char *name;
    const char *literal; /* the value, if it is one; NULL: below */
    char value[64];
};

struct model;
struct protocol;
struct exchange;

/* What an exchange that did not come over HTTP does instead (server/grpc/). Its answers are whole,
 * and it has no query. */
struct exchange_edge {
    const char *(*header_in)(const struct exchange *exchange, const char *name);
    void (*reply)(struct exchange *exchange, int status, struct buffer *body);
    void (*reply_error)(struct exchange *exchange, const struct error *err);
};

struct exchange {
    /* the request; borrowed by the handler until exchange_reply() */
    enum http_method method;
    const char *method_text;
    const char *path; /* as sent, without the query; routes decode their own segments */
    const char *body; /* NULL when empty */
    size_t body_length;
    char client[HTTP_ADDRESS_BYTES];  /* the other end's numeric address */
    bool awaits_body;                 /* known before it is read */
    bool certified;                   /* by the client CA of TLS */
    uint64_t received_ns;             /* uv_hrtime() when its first byte was seen */
    const struct exchange_edge *edge; /* NULL: HTTP */
    const struct protocol *protocol;  /* of its body, if its edge has its own; NULL: the route's */
    uint64_t timeout_us;              /* its edge's; the client waits no longer; 0: not said */
    uint64_t whole_ns;                /* when its last was; 0 unless it may be traced */
    struct trace_context trace;

    /* the answer so far; exchange_header() and exchange_reply() fill it */
    int status; /* 499: the client left before its request was whole; nothing was sent */
    size_t reply_length;
    struct http_header reply_headers[HTTP_MAX_REPLY_HEADERS];
    size_t reply_header_count;
    unsigned retry_after_s; /* of 429 and 503; 0: a second */
    bool endless;           /* it goes on until the client leaves, which is no failure, nor slow */

    /* for the handler: what the log line and the metrics say of this exchange */
    struct model *model;      /* held; on_finished() lets go of it; NULL: none */
    const char *log_protocol; /* "oip" | "v1" | "grpc" | "openai" | NULL */
    const char *log_route;    /* the pattern that the path has matched; static; NULL: none */
    size_t log_rows;
    char token_name[HTTP_TOKEN_NAME_BYTES];                              /* "": none was given */
    char request_id[HTTP_REQUEST_ID_BYTES];                              /* "": not known yet */
    uint64_t log_decode_ns, log_queue_ns, log_compute_ns, log_encode_ns; /* of inference */
    const char *error_text; /* what an error answer said; owned by the exchange; NULL: no error */

    void *owner; /* who owes the answer, if the handler has returned without one */
    /* Called if the client goes before the answer; may be NULL. The exchange must still be
     * answered, though the answer goes nowhere. */
    void (*on_disconnect)(struct exchange *exchange);
    /* Called when an answer in parts may go on, after exchange_write() has refused a piece. */
    void (*on_writable)(struct exchange *exchange);
};

struct http_limits;
struct tls;

struct http_options {
    const char *host;
    uint16_t port;    /* 0: any */
    const char *path; /* listen on this Unix socket instead; NULL: none; outlives http */
    /* A socket that listens already and stays with whoever gave it, instead; 0: none. A drain
     * leaves its backlog to the next process. */
    int given_fd;
    enum http_listening listening;
    struct tls *tls;            /* borrowed; NULL: plain; see http_tls.h */
    struct http_limits *limits; /* borrowed; see http_limits.h */
    size_t max_body_bytes;
    unsigned request_timeout_ms; /* from a request's first byte to its last */
    unsigned idle_timeout_ms;    /* a connection between requests */
};

struct http_callbacks {
    void *context;
    /* Whether the request is served even if every connection is in use. */
    bool (*is_vital)(const struct exchange *exchange, void *context);
    /* Called when a request's header is there. -1 with an error refuses the request: its body is
     * not read, and on_request() not called. NULL: nothing is refused so. */
    int (*on_header)(struct exchange *exchange, void *context, struct error *err);
    void (*on_request)(struct exchange *exchange, void *context);
    /* Writes the body of an answer that is an error, which may be to a request whose header could
     * not be read. NULL: {"error": text}. */
    void (*write_error)(const struct exchange *exchange, const struct error *err,
                        struct buffer *body);
    /* Called after the answer was sent or dropped, to log and count. The exchange is freed on
     * return. */
    void (*on_finished)(const struct exchange *exchange, uint64_t duration_ns, void *context);
};

struct http;

/* Listens, and serves when the loop runs. NULL with an error (address in use, bad host). */
MUST_CHECK struct http *http_new(uv_loop_t *loop, const struct http_options *options,
                                 const struct http_callbacks *callbacks, struct error *err);

/* The port actually bound; 0 of a Unix socket. */
uint16_t http_port(const struct http *http);

/* The value of a request header field; the name's case does not matter. NULL if the field is
 * absent; the first value if there are several. It lives as long as the exchange. */
const char *exchange_header_in(const struct exchange *exchange, const char *name);

/* Decodes the value of a query parameter into `text`. Returns 1, 0 if it is absent, or -1 with an
 * error if it is malformed or longer than size - 1 bytes. */
MUST_CHECK int exchange_query(const struct exchange *exchange, const char *name, char *text,
                              size_t size, struct error *err);

/* Refuses a query that has other names than these; NULL ends the list. -1 with an error that says
 * which: a misspelt name would be passed over without a word. */
MUST_CHECK int exchange_query_names(const struct exchange *exchange, const char *const *names,
                                    struct error *err);

/* Puts what a compressed body stands for in its place, and counts it. Takes the buffer's bytes.
 * Fails if all bodies together would be too large. */
MUST_CHECK int exchange_replace_body(struct exchange *exchange, struct buffer *body,
                                     struct error *err);

/* Answers an exchange. Takes the buffer's bytes; a buffer that failed is answered 500. content_type
 * NULL means application/json. Frees the request's body. The exchange is no longer the caller's and
 * may be gone on return. */
void exchange_reply(struct exchange *exchange, int status, const char *content_type,
                    struct buffer *body);

/* ---- an answer in parts ----
 *
 * Instead of exchange_reply(): begin, write any number of times, then end or abort. The connection
 * stays usable afterwards, unless the answer was cut or goes to HTTP/1.0, where it ends with the
 * connection. on_disconnect tells that the client is gone, has taken nothing for idle_timeout_ms,
 * or has asked by HEAD. What is written from then on goes nowhere, and the exchange must still be
 * ended.
 */

/* The most bytes that wait for a client, and the largest piece. */
enum { HTTP_STREAM_MAX_BYTES = 256 << 10 };

/* Sends status and headers at once, and frees the request's body. */
void exchange_begin(struct exchange *exchange, int status, const char *content_type);

/* Copies a piece of the answer; never blocks. False if it does not fit beside the bytes that wait:
 * nothing was taken, and on_writable is called when most of them have gone. */
bool exchange_write(struct exchange *exchange, const void *bytes, size_t length);

/* The answer is whole. The exchange is no longer the caller's. */
void exchange_end(struct exchange *exchange);

/* The answer cannot be finished: cuts the connection, so that the client does not take the part for
 * the whole. The error goes to the log. The exchange is no longer the caller's. */
void exchange_abort(struct exchange *exchange, const struct error *err);

/* Adds a header to the coming answer; `name` must be a literal, `value` is copied. */
void exchange_header(struct exchange *exchange, const char *name, const char *value);

/* The same for a value of any length that is a literal, too. */
void exchange_literal_header(struct exchange *exchange, const char *name, const char *value);

/* What the log line says of an answer that is an error. */
void exchange_note_error(struct exchange *exchange, const char *text);

/* Answers with the error and the status of err->code; 429 and 503 get Retry-After. */
void exchange_reply_error(struct exchange *exchange, const struct error *err);

/* First step of a drain. Accepts what waits in the backlog (at the limit: as slots become free, or
 * to be refused), then closes the listening socket. An answer from now on says Connection:
 * close unless more requests of its client have come, and connections that stay idle for `grace_ms`
 * are closed. A request that is not whole after half of `timeout_ms` is refused, an answer that is
 * not taken after nine tenths is cut. Calls `on_drained(context)` once, from the loop, when the
 * last connection is gone and the last exchange is answered. */
void http_drain(struct http *http, unsigned grace_ms, unsigned timeout_ms,
                void (*on_drained)(void *context), void *context);

/* Last step of a drain, at its timeout. Calls `on_lost` for each accepted request that was not
 * answered, and returns how many there are. If there are none, calls on_drained(), whose
 * http_close() cuts the remaining clients; otherwise on_drained() is no longer called. */
size_t http_drain_end(struct http *http,
                      void (*on_lost)(const struct exchange *exchange, void *context),
                      void *context);

/* After on_drained(), or before any request was accepted: every exchange must be answered. Closes
 * the loop handles; `http` is freed when the loop has run once more. */
void http_close(struct http *http);

unsigned http_connections(const struct http *http);

#endif
