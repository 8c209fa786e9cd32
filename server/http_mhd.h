/* What we ask of libmicrohttpd, in our words. Its own are known to http_mhd.c and to
 * http_callbacks.c, which it calls. */
#ifndef SERVER_HTTP_MHD_H
#define SERVER_HTTP_MHD_H

#include <stdbool.h>
#include <sys/socket.h>

#include "core/error.h"

struct http;
struct connection;
struct http_exchange;

const char *http_mhd_reason(int status);

/* Reads and writes what can be, and calls http_callbacks.c. */
void http_mhd_run(struct http *http);

/* Closes every connection. */
void http_mhd_stop(struct http *http);

/* Readable when a run has something to do. */
int http_mhd_descriptor(const struct http *http);

/* Whether there is work that the descriptor will not announce. What libmicrohttpd does at a time of
 * its own (http_mhd_ask_to_close()) comes with a tick. */
bool http_mhd_has_work(const struct http *http);

/* A newcomer for the next run; takes `fd`. */
void http_mhd_add(struct http *http, int fd, const struct sockaddr *address, socklen_t length);

/* The connection's socket is shut. Whatever state the connection is in, and whether or not its
 * socket is looked at again, it is given up after a second without progress. */
void http_mhd_ask_to_close(struct connection *connection);

/* Leaves the connection alone until it is resumed; resumes it if it is suspended. */
void http_mhd_suspend(struct http_exchange *exchange);
void http_mhd_resume(struct http_exchange *exchange);

/* Sends an answer of reply_length bytes, which are taken; begins one in parts, which
 * http_stream_take() gives. The client is still there. */
void http_mhd_send(struct http_exchange *exchange, char *bytes, const char *content_type);
void http_mhd_send_stream(struct http_exchange *exchange, const char *content_type);

/* Gives libmicrohttpd the answer that it has asked for; false when it does not take it. */
MUST_CHECK bool http_mhd_queue(struct http_exchange *exchange);

/* Frees an answer that was never asked for. */
void http_mhd_drop(struct http_exchange *exchange);

#endif
