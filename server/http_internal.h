/* Shared by http.c (everything that touches libmicrohttpd) and http_connection.c (phases,
 * deadlines, clients that hang up). Nobody else includes it.
 *
 * A *connection* lives from accept to close and belongs to libmicrohttpd. An *exchange* lives from
 * its request line to the report of its end. Normally the connection outlives its exchanges; the
 * other way round (the client is gone while the handler has the exchange) the exchange is cut
 * loose, its `connection` becomes NULL, and it ends when the handler answers. */
#ifndef SERVER_HTTP_INTERNAL_H
#define SERVER_HTTP_INTERNAL_H

#include <stdatomic.h>
#include <sys/queue.h>

#include "server/http.h"
#include "server/http_head.h"

enum {
    /* An error answer: a text of ERROR_TEXT_BYTES, each of which may take six bytes as JSON. */
    HTTP_ERROR_MAX_BYTES = 4096,

    /* How often deadlines are looked at; the error of every timeout. */
    HTTP_TICK_MS = 100,
};

struct MHD_Connection;
struct MHD_Daemon;
struct MHD_Response;

/* What a connection waits for. Each phase has one timeout and one list, ordered by the time the
 * phase began, so that a tick looks only at what has expired. */
enum phase {
    PHASE_IDLE,      /* a complete request header, since accept or since the last answer */
    PHASE_RECEIVING, /* the rest of the body */
    PHASE_WAITING,   /* the handler's answer */
    PHASE_SENDING,   /* the client to take the answer */
    PHASE_LINGERING, /* refused: whatever is still under way, to be discarded */
    PHASE_CLOSING,   /* libmicrohttpd to close it, the socket being shut */
    PHASE_COUNT
};

TAILQ_HEAD(connection_list, connection);

struct connection {
    struct http *http;
    struct MHD_Connection *mhd;
    int fd; /* libmicrohttpd's; we only ever shut it down */
    enum phase phase;
    uint64_t since_ms;   /* its timeout counts from here; ahead of now for a long answer */
    uint64_t entered_ms; /* when the phase began */
    TAILQ_ENTRY(connection) link;
    struct http_exchange *exchange; /* NULL between requests */
    bool hung_up;                   /* the client has closed at least its sending side */
    TAILQ_ENTRY(connection) hung_up_link;
};

/* An exchange as http sees it; the handler sees its `public` part. */
struct http_exchange {
    struct exchange public;
    struct http *http;
    struct connection *connection; /* NULL: the client is gone */
    uint64_t received_ms;          /* received_ns on the loop's clock */
    bool reported;                 /* on_finished was called */

    bool handed;          /* with the handler, and answered once this is false again */
    bool suspended;       /* handed, and libmicrohttpd does not look at the connection meanwhile */
    uint64_t handed_turn; /* the loop turn it was handed over in */

    struct MHD_Response *response; /* the answer until libmicrohttpd takes it */
    struct buffer body;
    bool good_target; /* see http_head.h */
    char method[24];  /* this and the rest are copies: libmicrohttpd's die with the connection */
    char content_encoding[64];
    char inference_header_length[32];
    char path[];
};

struct http {
    struct http_options options; /* `host` is not kept */
    struct http_callbacks callbacks;
    uv_loop_t *loop;
    struct MHD_Daemon *daemon;
    int listen_fd; /* -1 once closed */
    uint16_t port;

    atomic_uint connections; /* other threads may look */
    struct connection_list lists[PHASE_COUNT];
    uint64_t timeouts_ms[PHASE_COUNT]; /* 0: none */
    struct connection_list hung_up;
    int hangup_fd; /* an epoll set */

    /* When libmicrohttpd runs; see http.c. */
    uv_poll_t readable, hangups;
    uv_check_t after_poll;
    uv_idle_t again;
    uv_timer_t tick;
    unsigned open_handles;
    uint64_t turn;
    unsigned unanswered;  /* exchanges handed */
    unsigned handed_over; /* of these, with a connection that is not suspended */
    bool run_wanted;
    bool run_again;   /* a run made work that only the next one sees */
    bool tick_passed; /* deadlines are to be looked at */

    bool draining;
    bool greeting_stopped; /* draining: no connection is opened any more that was not begun */
    uint64_t drain_since_ms;
    unsigned drain_grace_ms, drain_timeout_ms;
    void (*on_drained)(void *context);
    void *drained_context;
};

/* http.c: what touches libmicrohttpd */

/* libmicrohttpd is to run in this loop turn, or in the next. */
void http_want_run(struct http *http);

/* The connection's socket is shut: libmicrohttpd is to close it within seconds at most. */
void http_ask_to_close(struct connection *connection);

/* Deadlines are looked at only while there are connections, or draining: an idle server sleeps. */
void http_start_ticking(struct http *http);
void http_stop_listening(struct http *http);
const char *http_reason(int status);

/* http_exchange.c */

/* `target` is the request target as sent: the path with its query. */
struct http_exchange *exchange_new(struct connection *connection, const char *target);

/* Reports it, unless that was done. */
void exchange_free(struct http_exchange *exchange);

/* The header is complete; a piece of the body has come. Refuse what is not acceptable. */
void exchange_accept_header(struct http_exchange *exchange, const char *method,
                            const struct http_head *head);
void exchange_accept_body(struct http_exchange *exchange, const char *data, size_t size);

/* Tells the handler, once, that the client is gone. The handler may answer at once, which may free
 * the exchange. */
void exchange_tell_gone(struct http_exchange *exchange);

void exchange_set_error(struct http_exchange *exchange, const char *text);

/* Answers `status` with a JSON error at once, on the socket and past libmicrohttpd, which cannot
 * answer before a request is whole; then discards what the client still sends. */
void http_refuse(struct connection *connection, int status, const char *text);

/* http_drain.c */

/* Each tick while draining: acts on clients that keep the drain waiting. */
void http_drain_expire(struct http *http);

/* At the end of each run. May call on_drained and so http_close(): touch nothing afterwards. */
void http_drain_step(struct http *http);

/* http_connection.c */

void connection_open(struct http *http, struct connection *connection);
void connection_close(struct connection *connection);
void connection_enter(struct connection *connection, enum phase phase, uint64_t since_ms);

void connections_note_hangups(struct http *http);

/* Each tick: acts on every connection whose phase has lasted too long or whose client is gone. */
void connections_expire(struct http *http);

/* Ends the connection's phase as if its time had passed. */
void connection_expire(struct connection *connection);

bool connection_has_unread_bytes(const struct connection *connection);

#endif
