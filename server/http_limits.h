/* What the loops of a process share: its limit of connections and of memory for request bodies.
 *
 * A connection within the limit has a *slot*, whichever loop the system gave it to. Any thread may
 * call what is here. */
#ifndef SERVER_HTTP_LIMITS_H
#define SERVER_HTTP_LIMITS_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

struct http;
struct http_limits;

/* NULL on error. Outlives every `struct http` that was made with it. */
struct http_limits *http_limits_new(unsigned max_connections, struct error *err);
void http_limits_free(struct http_limits *limits);

/* For a loop that serves: its idle connections may be asked to give way, see http_accept.c. */
void http_limits_join(struct http_limits *limits, struct http *http);
void http_limits_leave(struct http_limits *limits, struct http *http);

/* False when all slots are taken. Each one that was taken is given back once. */
bool http_limits_take_slot(struct http_limits *limits);
void http_limits_return_slot(struct http_limits *limits);

/* Closes the connection that has been idle the longest in any loop, whose slot is then free; false
 * when there is none. */
bool http_limits_close_idle(struct http_limits *limits);

#endif
