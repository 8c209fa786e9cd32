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

/* A descriptor that is readable when a run has something to do. */
int http_mhd_descriptor(const struct http *http);

/* Whether there is work that the descriptor will not announce. Timeouts of libmicrohttpd's own
 * (http_mhd_ask_to_close()) do not count: ticks see to them. */
bool http_mhd_has_work(const struct http *http);

/* Adds a new connection, which begins with the next run. Takes `fd`. */
void http_mhd_add(struct http *http, int fd, const struct sockaddr *address, socklen_t length);

/* For a connection whose socket is shut down. libmicrohttpd gives it up after a second without
 * progress, whatever state it is in, and even if it does not look at the socket again. */
void http_mhd_ask_to_close(struct connection *connection);

/* Makes libmicrohttpd leave the connection alone; resumes it if it is suspended. */
void http_mhd_suspend(struct http_exchange *exchange);
void http_mhd_resume(struct http_exchange *exchange);

/* Sends an answer of reply_length bytes, and takes the bytes; begins an answer in parts, which come
 * from http_stream_take(). The connection must still be there. */
void http_mhd_send(struct http_exchange *exchange, char *bytes, const char *content_type);
void http_mhd_send_stream(struct http_exchange *exchange, const char *content_type);

/* Gives libmicrohttpd the answer that it has asked for; false if it does not take it. */
MUST_CHECK bool http_mhd_queue(struct http_exchange *exchange);

/* Frees an answer that libmicrohttpd never asked for. */
void http_mhd_drop(struct http_exchange *exchange);

#endif
