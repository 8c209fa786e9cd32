/* The id of a request, by which a client, a proxy and the log mean the same one. */
#ifndef SERVER_REQUEST_ID_H
#define SERVER_REQUEST_ID_H

struct exchange;

/* Sets the exchange's id and the answer's X-Request-Id, once for an exchange: what the request has
 * in X-Request-Id, else `own` (of the body; NULL: none), else a new one. An id that is too long for
 * a log line or is not visible ASCII is none. */
void request_id_set(struct exchange *exchange, const char *own);

#endif
