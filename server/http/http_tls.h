/* TLS on a connection, by GnuTLS.
 *
 * libmicrohttpd could do it, but then it would read requests itself, leniently, and not through us
 * (http_hooks.c). So TLS ends below: http_io.c moves plain bytes, these functions the others. */
#ifndef SERVER_HTTP_TLS_H
#define SERVER_HTTP_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "core/error.h"

/* ---- the certificate, which all loops share ---- */

struct tls;

struct tls_options {
    const char *certificate, *key; /* PEM files; the first has the chain, the server's own first */
    const char *client_ca; /* PEM file of who signs clients' certificates; NULL: not asked */
};

/* NULL on error. `options` and its texts must outlive it. */
MUST_CHECK struct tls *tls_new(const struct tls_options *options, struct error *err);
void tls_free(struct tls *tls);

/* Reads the files again; new connections get what they hold, those that are open keep what they
 * have. Puts in `changed` whether it is another certificate. On error nothing changes. Any thread.
 */
MUST_CHECK int tls_reload(struct tls *tls, bool *changed, struct error *err);

/* ---- a connection ---- */

struct http_tls;

/* `protocol`: what is spoken inside, by its name in ALPN, a literal. Closes nothing but what it
 * made.
 */
struct http_tls *http_tls_new(struct tls *tls, int fd, const char *protocol);
void http_tls_free(struct http_tls *tls);

/* recvmsg(2) of plain bytes; the handshake comes first. Fewer than there is room for means that
 * there are no more for now. */
ssize_t http_tls_receive(struct http_tls *tls, const struct iovec *into, int count);

/* Plain bytes that were read from the socket, which shows them no more; less than a record's. */
size_t http_tls_ahead(const struct http_tls *tls);

/* send(2) of plain bytes. After EAGAIN the caller sends the same bytes again. */
ssize_t http_tls_send(struct http_tls *tls, const void *bytes, size_t size);

/* Tells the client that nothing more comes. */
void http_tls_end(struct http_tls *tls);

/* Whether the client has shown a certificate of the client CA. */
bool http_tls_is_certified(const struct http_tls *tls);

#endif
