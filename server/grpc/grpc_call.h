/* A call: one request and its answer on a stream of HTTP/2. Knows bytes, not HTTP/2's frames.
 *
 * A call lives from the first frame of its stream to the stream's end. Only one that the handler
 * has when its client goes outlives the stream: it is cut loose, its `session` becomes NULL, and it
 * ends when the handler answers. */
#ifndef SERVER_GRPC_CALL_H
#define SERVER_GRPC_CALL_H

#include <sys/queue.h>

#include "server/grpc/grpc_method.h"
#include "server/http/http_limits.h"

enum {
    /* Header fields of a call, names and values: the room that gRPC's own servers give. */
    GRPC_HEADER_MAX_BYTES = 16 << 10,

    /* Before a message: whether it is compressed, and its length, highest byte first. */
    GRPC_PREFIX_BYTES = 5,
};

struct grpc_session;

static inline uint64_t grpc_now_ms(void)
{
    return uv_hrtime() / 1000000;
}

enum grpc_call_state {
    CALL_RECEIVING, /* since `since_ms` */
    CALL_HANDED,    /* the handler has it */
    CALL_SENDING,   /* answered; the client takes the answer, since `since_ms` */
};

TAILQ_HEAD(grpc_calls, grpc_call);

/* What the calls of one loop share. */
struct grpc_edge {
    const struct http_options *options;
    const struct http_callbacks *callbacks;
    struct grpc_calls handed; /* all that the handler has, oldest first */
    size_t handed_count;
};

struct grpc_call {
    struct exchange public; /* first */
    struct grpc_edge *edge;
    struct grpc_session *session; /* NULL: the client is gone */
    int32_t stream;
    enum grpc_call_state state;
    bool whole; /* the request is; it waits to be handed over */
    bool cut;   /* its stream is being reset */
    bool left;  /* the client has reset it */
    uint64_t since_ms;
    const struct grpc_method *method; /* NULL: not known */

    struct buffer header; /* "name\0value\0" of every field */
    bool header_too_large;
    unsigned char prefix[GRPC_PREFIX_BYTES];
    size_t prefix_length;
    struct buffer body;
    size_t message_length;
    size_t counted;             /* bytes that count in the limit of all bodies */
    char path[GRPC_PATH_BYTES]; /* of the route of HTTP */

    unsigned char answer_prefix[GRPC_PREFIX_BYTES];
    struct buffer answer;        /* the message */
    size_t answer_taken;         /* bytes of both, */
    uint64_t moved_ms;           /* the last of them at this time */
    size_t answer_counted;       /* bytes that count in the limit of all answers */
    TAILQ_ENTRY(grpc_call) link; /* of its session */
    TAILQ_ENTRY(grpc_call) handed_link;
};

/* Begins a call of a client. */
struct grpc_call *grpc_call_new(struct grpc_edge *edge, const char *client, uint64_t now_ms);

/* Reports the call to on_finished(), then frees it. The handler must not have it. */
void grpc_call_free(struct grpc_call *call);

/* Keeps a header field. What is too much is left out, and said once the header is whole. */
void grpc_call_add_field(struct grpc_call *call, const char *name, size_t name_length,
                         const char *value, size_t value_length);

/* The value of a field, by its name in any case; NULL: there is none. Fields that mean something to
 * HTTP's routes, but not here, are none. */
const char *grpc_call_field(const struct grpc_call *call, const char *name);

/* The header is whole: finds the method, and asks whether the client may have it. -1 with an error
 * if not. */
MUST_CHECK int grpc_call_admit(struct grpc_call *call, struct error *err);

/* Takes bytes of the body: one message behind its prefix. */
MUST_CHECK int grpc_call_receive(struct grpc_call *call, const void *bytes, size_t length,
                                 struct error *err);

/* Nothing more comes: checks that the message is whole, and prepares the exchange of its route. */
MUST_CHECK int grpc_call_end(struct grpc_call *call, struct error *err);

/* Whether a call that is whole is served even if every connection is in use. */
bool grpc_call_is_vital(struct grpc_call *call);

/* Gives the call to the handler. It may have answered on return. */
void grpc_call_hand_over(struct grpc_call *call);

/* The handler has answered. */
void grpc_call_take_back(struct grpc_call *call);

/* It is answered: from now on the client is awaited. */
void grpc_call_set_sending(struct grpc_call *call);

void grpc_call_note_error(struct grpc_call *call, const char *text);

#endif
