/* The functions that the files server/http/http*.c call in each other, file by file. */
#ifndef SERVER_HTTP_INTERNAL_H
#define SERVER_HTTP_INTERNAL_H

#include "server/http/http_state.h"

/* http_callbacks.c: what libmicrohttpd asks of us */

/* Sets http->daemon; false, with errno, when it cannot be started. */
bool http_start_daemon(struct http *http);

/* Serves an exchange in PHASE_QUEUED, or answers it 503. */
void http_serve_queued(struct http_exchange *exchange);
void http_refuse_queued(struct http_exchange *exchange);

/* http_turn.c: when libmicrohttpd runs */

/* Returns 0 or what libuv says is wrong. */
MUST_CHECK int http_start_turning(struct http *http);

/* Makes libmicrohttpd run in this turn of the loop, or in the next. */
void http_want_run(struct http *http);

/* From now on deadlines are looked at. Needed only while there are connections, or draining: an
 * idle server sleeps. */
void http_start_ticking(struct http *http);

/* http_stream.c: an answer in parts */

/* Copies up to `size` bytes of the answer to `bytes`. Returns how many; 0: there are none yet, and
 * the caller suspends the connection. */
enum { HTTP_STREAM_END = -1, HTTP_STREAM_CUT = -2 };
ssize_t http_stream_take(struct http_exchange *exchange, char *bytes, size_t size);

/* http_accept.c: who gets a slot */

/* Returns 0 or what libuv says is wrong. */
MUST_CHECK int http_start_listening(struct http *http);
void http_stop_listening(struct http *http);

/* Closes a handle unless it was never started or is closing already; `http` outlives it. */
void http_close_handle(struct http *http, uv_handle_t *handle);

/* Called before and after each run of libmicrohttpd. */
void http_accept(struct http *http);
void http_accepted(struct http *http);

/* Gives the oldest in the reserve the slots that have become free. */
void http_promote(struct http *http);

/* Gives a new connection what was found for it: a slot, or a place in the reserve. */
void connection_take_place(struct connection *connection);
void connection_give_up_place(struct connection *connection);
void connection_leave_reserve(struct connection *connection);

/* Gives a connection in the reserve a slot; false if there is none. */
bool connection_promote(struct connection *connection);

/* http_hooks.c: libmicrohttpd reads its sockets through us */

/* Fails when the dynamic linker does not resolve libmicrohttpd's recv() to ours. */
int http_hooks_check(struct error *err);

/* Called around each run of libmicrohttpd. Says whose sockets it reads on this thread; NULL:
 * nobody's. */
void http_hooks_set(struct http *http);

/* http_receive.c: from a socket's bytes to a whole request */

void http_receive_open(struct connection *connection);
void http_receive_close(struct connection *connection);

/* A request was answered: the connection waits for the next. */
void http_receive_next(struct connection *connection);

/* recv(2) as libmicrohttpd sees it on this connection: nothing until a request is whole, then the
 * few bytes of a request that stands for it. */
ssize_t http_receive(struct connection *connection, char *bytes, size_t size);

/* http_exchange.c */

/* libmicrohttpd no longer asks for this exchange's answer. */
void http_leave_handed_over(struct http_exchange *exchange);

/* From now on we wait only for the client, for as long as it may need to take `bytes`. */
void http_await_reader(struct http_exchange *exchange, size_t bytes);

/* For the request that the connection's framing is reading; `header` holds as much of its header as
 * has been read. */
struct http_exchange *exchange_new(struct connection *connection, const char *header);

/* http_request.c: points the public part into the copied header. The texts are empty if the request
 * line was not understood. */
void exchange_describe_request(struct http_exchange *exchange, const struct http_head *head);

/* Reports the exchange to on_finished(), then frees it. */
void exchange_free(struct http_exchange *exchange);

/* Asks on_header(). A request without a body is refused in its turn (exchange->refusal); one that
 * `awaits_body` at once: -1 with the error. */
MUST_CHECK int exchange_ask_admission(struct http_exchange *exchange, bool awaits_body,
                                      struct error *err);

/* Makes room for a body of the length that the header declares; appends a piece that has come;
 * counts a piece that is in the body's buffer already. They fail for want of memory, or at the
 * limit of all bodies together. */
MUST_CHECK int exchange_prepare_body(struct http_exchange *exchange,
                                     const struct http_framing *framing, struct error *err);
MUST_CHECK int exchange_accept_body(struct http_exchange *exchange, const char *data, size_t size,
                                    struct error *err);
MUST_CHECK int exchange_count_body(struct http_exchange *exchange, size_t size, struct error *err);
void exchange_close_body(struct http_exchange *exchange);

/* Tells the handler, once, that the client is gone. The handler may answer at once, and that may
 * free the exchange. */
void exchange_tell_gone(struct http_exchange *exchange);

void exchange_set_error(struct http_exchange *exchange, const char *text);

/* Whether an answer with this status says when to come back (Retry-After). */
bool http_status_is_temporary(int status);
unsigned exchange_retry_after(const struct exchange *exchange); /* seconds */

/* Answers a request that is not whole with an error, at once and past libmicrohttpd, which does not
 * know of it; then discards what the client still sends. */
void http_refuse(struct connection *connection, const struct error *err);

/* http_readers.c: clients that take their answers, or do not */

/* Called at each tick: cuts those that take nothing for too long. */
void http_readers_expire(struct http *http);

/* http_drain.c */

/* Called at each tick while draining: acts on clients that keep the drain waiting. */
void http_drain_expire(struct http *http);

/* Called at the end of each run. May call on_drained() and so http_close(): touch nothing
 * afterwards.
 */
void http_drain_step(struct http *http);

/* Whether the answer to the connection's request is its last. */
bool http_drain_closes(const struct connection *connection);

/* http_linger.c */

/* libmicrohttpd is about to close the connection's descriptor. */
void http_linger(struct connection *connection);

/* Called at each tick while draining. */
void http_linger_step(struct http *http);
void http_linger_end(struct http *http);

/* http_connection.c */

void connection_open(struct http *http, struct connection *connection);
void connection_close(struct connection *connection);
void connection_enter(struct connection *connection, enum phase phase, uint64_t since_ms);

void connections_note_hangups(struct http *http);

/* Called at each tick: acts on every connection whose phase has lasted too long or whose client is
 * gone. */
void connections_expire(struct http *http);

/* Lets idle connections give way to new ones, of this loop or another. */
void connections_join_limits(struct http *http);

void connection_shut(struct connection *connection);

/* Ends the connection's phase as if its time had passed. */
void connection_expire(struct connection *connection);

bool connection_has_unread_bytes(const struct connection *connection);

#endif
