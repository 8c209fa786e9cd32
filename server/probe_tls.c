#include "server/probe_tls.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>

#include "core/memory.h"

struct probe_tls {
    gnutls_session_t session;
    gnutls_certificate_credentials_t credentials;
};

struct probe_tls *probe_tls_new(int fd)
{
    struct probe_tls *tls = xcalloc(1, sizeof *tls);
    if (gnutls_certificate_allocate_credentials(&tls->credentials) != 0 ||
        gnutls_init(&tls->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) != 0 ||
        gnutls_set_default_priority(tls->session) != 0 ||
        gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, tls->credentials) != 0)
        out_of_memory();
    gnutls_transport_set_int(tls->session, fd);
    return tls;
}

void probe_tls_free(struct probe_tls *tls)
{
    if (!tls)
        return;
    gnutls_deinit(tls->session);
    gnutls_certificate_free_credentials(tls->credentials);
    free(tls);
}

static ssize_t as_call(ssize_t result)
{
    if (result >= 0)
        return result;
    errno = gnutls_error_is_fatal((int)result) ? ECONNRESET : EAGAIN;
    return -1;
}

int probe_tls_connect(struct probe_tls *tls)
{
    return (int)as_call(gnutls_handshake(tls->session));
}

ssize_t probe_tls_send(struct probe_tls *tls, const void *bytes, size_t size)
{
    return as_call(gnutls_record_send(tls->session, bytes, size));
}

ssize_t probe_tls_receive(struct probe_tls *tls, void *bytes, size_t size)
{
    return as_call(gnutls_record_recv(tls->session, bytes, size));
}
