/* The client's side of TLS for `moed probe`, which asks a server of its own machine and does not
 * check who it is. */
#ifndef SERVER_PROBE_TLS_H
#define SERVER_PROBE_TLS_H

#include <stddef.h>
#include <sys/types.h>

struct probe_tls;

struct probe_tls *probe_tls_new(int fd);
void probe_tls_free(struct probe_tls *tls);

/* 0 when the connection is made; -1 with errno EAGAIN when the socket has to be readable first. */
int probe_tls_connect(struct probe_tls *tls);

/* send(2) and recv(2) of a socket that does not wait. */
ssize_t probe_tls_send(struct probe_tls *tls, const void *bytes, size_t size);
ssize_t probe_tls_receive(struct probe_tls *tls, void *bytes, size_t size);

#endif
