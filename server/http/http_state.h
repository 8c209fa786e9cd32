/* The data that the files server/http/http*.c share.
 *
 * A *connection* lives from accept to close; libmicrohttpd opens and closes it. It owns its
 * *exchange*, which lives from the end of a request's header to the report of its end. Only an
 * exchange that the handler has when its client goes outlives the connection: it is cut loose, its
 * `connection` becomes NULL, and it ends when the handler answers. */
#ifndef SERVER_HTTP_STATE_H
#define SERVER_HTTP_STATE_H

#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "server/http/http.h"
#include "server/http/http_framing.h"
#include "server/http/http_limits.h"

enum {
    /* An error answer: a text of ERROR_TEXT_BYTES, each of which may take six bytes as JSON. */
    HTTP_ERROR_MAX_BYTES = 8 << 10,

    /* All of a header fits, so that it is read in one piece. */
    HTTP_SCRATCH_BYTES = HTTP_HEAD_MAX_BYTES,

    /* Connections of a loop beyond the limit: those that are served or wait, and all of them, with
     * those that were refused and have not gone. Each takes a file descriptor and its memory. */
    HTTP_RESERVE = 16,
    HTTP_MAX_BEYOND_LIMIT = 2 * HTTP_RESERVE,

    /* How often deadlines are looked at; the error of every timeout. */
    HTTP_TICK_MS = 100,
};

/* Why a connection beyond the limit gets 503. */
struct MHD_Connection;
struct MHD_Daemon;
struct MHD_Response;

/* What a connection waits for. Each phase has one timeout, and one list that is ordered by the time
 * the phase began, so that a tick looks only at those that have expired. */
enum phase {
    PHASE_IDLE,      /* the first byte of a request, since accept or since the last answer */
    PHASE_RECEIVING, /* the rest of the request, since its first byte */
    PHASE_QUEUED,    /* a slot, see http_accept.c */
    PHASE_WAITING,   /* the handler's answer, or its next part */
    PHASE_STREAMING, /* the client to take the parts of an answer that there are */
    PHASE_SENDING,   /* the client to take the answer */
    PHASE_LINGERING, /* refused: the rest of what the client sends, which is discarded */
    PHASE_CLOSING,   /* libmicrohttpd to close it; the socket is shut down */
    PHASE_COUNT
};

TAILQ_HEAD(connection_list, connection);

struct connection {
    struct http *http;
    struct MHD_Connection *mhd;
    int fd;                        /* libmicrohttpd's; we only shut it down */
    struct http_tls *tls;          /* owned; NULL: plain */
    const struct sockaddr *client; /* libmicrohttpd's */
    char client_text[HTTP_ADDRESS_BYTES];
    bool client_counted; /* in http->options.limits */
    enum phase phase;
    uint64_t since_ms;   /* its timeout counts from here; ahead of now for a long answer */
    uint64_t entered_ms; /* when the phase began */
    uint64_t moved_ms;   /* when the client was last seen to take some of an answer, */
    int untaken;         /* and what the socket then held of it */
    TAILQ_ENTRY(connection) link;
    struct http_exchange *exchange; /* owned; NULL until a request's header is whole */
    struct http_framing framing;    /* of the request that is being received */
    struct buffer held;             /* bytes read but not used: part of a header, pipelining */
    uint64_t begun_ns;              /* when the first byte of the request was seen */
    bool whole;                     /* the request is whole: libmicrohttpd asks for its answer */
    bool hung_up;                   /* the client has closed at least its sending side */
    bool gone;                      /* the client has closed both sides, or reset the connection */
    unsigned sent_ahead;            /* bytes of the next answer that the client already has */
    unsigned probes; /* bytes sent into an answer in parts, to see whether the client is there */
    TAILQ_ENTRY(connection) hung_up_link;

    /* See http_accept.c. */
    uint64_t opened_ms;
    atomic_bool has_slot; /* of http->options.limits */
    atomic_bool given_up; /* shut for a new one, maybe by another loop: no longer read from */
    atomic_bool in_hand;  /* bytes may have left the socket that have not begun a request yet */
    bool beyond_limit;    /* counted in http->beyond_limit: has never had a slot */
    bool reserved;        /* in http->reserve */
    TAILQ_ENTRY(connection) reserve_link;
};

/* The answer in parts. */
struct http_stream {
    bool begun, ended;
    bool full;           /* a piece was refused, and the handler waits for on_writable */
    struct buffer bytes; /* written by the handler */
    size_t taken;        /* how many of them libmicrohttpd has taken */
};

/* An exchange as http sees it; the handler sees its `public` part. */
struct http_exchange {
    struct exchange public;
    struct http *http;
    struct connection *connection; /* NULL: the client is gone */

    struct error *refusal; /* owned; what on_header() said; NULL: nothing */
    bool handed;           /* the handler has it and has not answered */
    bool suspended;        /* libmicrohttpd leaves the connection alone until there is more */
    uint64_t handed_turn;  /* the turn of the loop in which it was handed over */

    struct MHD_Response *response; /* the answer until libmicrohttpd takes it */
    struct http_stream stream;
    struct buffer body;
    size_t body_counted;   /* bytes of it that count in the limit of all bodies */
    size_t answer_counted; /* bytes of the answer that count in that of all answers */
    struct http_text query;
    size_t header_length;
    char header[]; /* a copy of the request's header; texts in it are NUL-terminated in place */
};

struct http {
    struct http_options options; /* `host` is not kept */
    struct http_callbacks callbacks;
    uv_loop_t *loop;
    struct MHD_Daemon *daemon;
    int listen_fd; /* -1 once closed */
    uint16_t port;

    atomic_uint connections; /* other threads may look */
    struct http_idle idle;   /* how the limits see this loop */
    uv_mutex_t idle_mutex;   /* guards lists[PHASE_IDLE] and the times in it */

    uv_poll_t listening;
    uv_timer_t listen_pause;
    bool backlog_waits;
    unsigned slots_ahead;           /* taken for new connections that have not begun yet */
    struct connection_list reserve; /* oldest first */
    unsigned reserve_count, beyond_limit;

    struct connection **by_fd;
    size_t by_fd_count;
    char *scratch; /* HTTP_SCRATCH_BYTES, for reading from sockets */
    struct connection_list lists[PHASE_COUNT];
    uint64_t timeouts_ms[PHASE_COUNT]; /* 0: none */
    struct connection_list hung_up;
    int hangup_fd; /* an epoll set */

    /* When libmicrohttpd runs; see http_turn.c. */
    uv_poll_t readable, hangups;
    uv_check_t after_poll;
    uv_idle_t again;
    uv_timer_t tick;
    unsigned open_handles;
    uint64_t turn;
    unsigned unanswered;  /* exchanges that the handler has */
    unsigned handed_over; /* those of them whose answer libmicrohttpd asks for again and again */
    bool run_wanted;
    bool run_again;      /* a run made work that only the next run sees */
    bool tick_passed;    /* deadlines are to be looked at */
    uint64_t readers_ms; /* when those who take answers were last looked at */

    TAILQ_HEAD(, lingering) lingering; /* closed, but their clients have not; draining only */
    bool draining;
    bool syns_dropped; /* draining: only handshakes in progress still become connections */
    uint64_t drain_since_ms;
    unsigned drain_grace_ms, drain_timeout_ms;
    void (*on_drained)(void *context);
    void *drained_context;
};

#endif
