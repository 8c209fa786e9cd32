/* The limits that all loops share: of connections, and of memory for request bodies and answers.
 *
 * A connection within the limit has a *slot*, whichever loop the system gave it to. Any thread may
 * call these functions. */
#ifndef SERVER_HTTP_LIMITS_H
#define SERVER_HTTP_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "core/error.h"

#define HTTP_ALL_TAKEN "every connection is in use; come back later"

struct http_limits;

/* A loop's idle connections, which may be asked to give way (see http_accept.c). Both functions are
 * called by any thread, one caller at a time. */
struct http_idle {
    /* Since when the one that has been idle the longest has been; UINT64_MAX: none has. */
    uint64_t (*since)(struct http_idle *idle, uint64_t now_ms);
    /* Closes it, whose slot is then free; false when there is none. */
    bool (*close)(struct http_idle *idle, uint64_t now_ms);
    TAILQ_ENTRY(http_idle) link;
};

/* `max_body_bytes` is of all request bodies, and of all answers that clients have not taken. NULL
 * on error. Must outlive everything that uses it. */
MUST_CHECK struct http_limits *http_limits_new(unsigned max_connections,
                                               unsigned max_connections_per_ip,
                                               size_t max_body_bytes, struct error *err);
void http_limits_free(struct http_limits *limits);

/* A loop begins, or ends, to serve. */
void http_limits_join(struct http_limits *limits, struct http_idle *idle);
void http_limits_leave(struct http_limits *limits, struct http_idle *idle);

/* Takes a slot; false if all are taken. Each one is given back once. */
bool http_limits_take_slot(struct http_limits *limits);

/* The same, if need be that of a connection that has been idle. */
bool http_limits_take_or_free_slot(struct http_limits *limits);
void http_limits_return_slot(struct http_limits *limits);

/* Closes the connection that has been idle the longest in any loop; its slot is then free. False if
 * none is idle. */
bool http_limits_close_idle(struct http_limits *limits);

/* False if a client's address has as many connections as it may have. Ask before accepting one,
 * then take the address when it is there. */
bool http_limits_admit(struct http_limits *limits, const struct sockaddr *address);
bool http_limits_take_address(struct http_limits *limits, const struct sockaddr *address);
void http_limits_return_address(struct http_limits *limits, const struct sockaddr *address);

/* Takes bytes of bodies as they come. -1 with an error if all bodies together would be too large.
 * What was taken must be given back. */
MUST_CHECK int http_limits_take_body(struct http_limits *limits, size_t bytes, struct error *err);
void http_limits_return_body(struct http_limits *limits, size_t bytes);

/* -1 with an error if an announced body could not be taken now. */
MUST_CHECK int http_limits_check_body(struct http_limits *limits, uint64_t bytes,
                                      struct error *err);

enum {
    /* Answers up to this size are not counted: there is one for each connection or call, and errors
     * must be told. */
    HTTP_SMALL_ANSWER_BYTES = 64 << 10,

    /* Once answers take half of what they may, a client that takes nothing for so long is cut. */
    HTTP_STUCK_READER_MS = 5000,
};

/* Whether an answer of so many bytes may wait for its client beside those that do. One alone may
 * always. The error says when it may not. */
MUST_CHECK int http_limits_check_answer(struct http_limits *limits, size_t bytes,
                                        struct error *err);

/* An answer waits. Returns the bytes to give back when it is gone. */
size_t http_limits_take_answer(struct http_limits *limits, size_t bytes);
void http_limits_return_answer(struct http_limits *limits, size_t taken);

/* For how long a client may take nothing of an answer of which so many bytes are taken here. */
uint64_t http_limits_patience_ms(struct http_limits *limits, size_t taken, uint64_t idle_ms);

#endif
