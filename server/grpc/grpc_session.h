/* A session: HTTP/2 with one client, without its socket. Bytes go in, calls are handed over, bytes
 * come out. libnghttp2 reads and writes the frames, and keeps the client to what HTTP/2 allows. */
#ifndef SERVER_GRPC_SESSION_H
#define SERVER_GRPC_SESSION_H

#include "server/grpc/grpc_h2.h"

/* Needs edge, client, owner, on_output and may_serve to be set. */
void grpc_session_open(struct grpc_session *session, uint64_t now_ms);

/* Tells the handler of every call that its client is gone. */
void grpc_session_close(struct grpc_session *session);

/* Takes bytes of the client, and hands over the calls that are whole. -1: the session cannot go on,
 * once what it still has to say is sent. */
MUST_CHECK int grpc_session_receive(struct grpc_session *session, const void *bytes, size_t length);

/* The next bytes to send, which are the session's until the next call of any of its functions; 0:
 * there are none for now; -1: no memory. */
ssize_t grpc_session_take(struct grpc_session *session, const uint8_t **bytes);

/* Nothing more will come, in either direction. */
bool grpc_session_is_over(const struct grpc_session *session);

/* Refuses calls that are not whole in time, ends those whose answer is not taken, and tells an idle
 * client to go. */
void grpc_session_expire(struct grpc_session *session, uint64_t now_ms);

/* Says that the server will go; then that it takes no more calls. */
void grpc_session_announce_drain(struct grpc_session *session);
void grpc_session_drain(struct grpc_session *session);

/* Ends calls that keep a drain waiting: those whose request is not whole, and those whose answer is
 * not taken. */
void grpc_session_refuse_unfinished(struct grpc_session *session);
void grpc_session_cut_answers(struct grpc_session *session);

#endif
