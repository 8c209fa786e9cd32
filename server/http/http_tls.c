/* GnuTLS reads and writes the socket by functions of ours: recv() and send() of this process belong
 * to http_hooks.c. */
#include "server/http/http_tls.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <uv.h>

#include "core/memory.h"

/* TLS 1.2 and 1.3; without renegotiation, which GnuTLS leaves to us and we refuse. */
static const char PRIORITIES[] = "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:%SERVER_PRECEDENCE";

enum { DIGEST_BYTES = 32, RECORD_BYTES = 16 << 10 };

/* Counted: connections keep the one with which they began. */
struct identity {
    atomic_uint holders;
    gnutls_certificate_credentials_t credentials;
    uint8_t digest[DIGEST_BYTES]; /* of the files */
};

struct tls {
    const struct tls_options *options;
    gnutls_priority_t priorities;
    uv_mutex_t mutex; /* guards the next */
    struct identity *identity;
};

/* ---- the certificate ---- */

static void release(struct identity *identity)
{
    if (!identity || atomic_fetch_sub(&identity->holders, 1) != 1)
        return;
    gnutls_certificate_free_credentials(identity->credentials);
    free(identity);
}

static struct identity *hold(struct tls *tls)
{
    uv_mutex_lock(&tls->mutex);
    struct identity *identity = tls->identity;
    atomic_fetch_add(&identity->holders, 1);
    uv_mutex_unlock(&tls->mutex);
    return identity;
}

static int add_file(gnutls_hash_hd_t hash, const char *option, const char *path,
                    gnutls_datum_t *file, struct error *err)
{
    int failed = gnutls_load_file(path, file);
    if (failed)
        return error_set(err, ERROR_INVALID, "%s: cannot read %.200s: %s", option, path,
                         failed == GNUTLS_E_FILE_ERROR ? strerror(errno) : gnutls_strerror(failed));
    return gnutls_hash(hash, file->data, file->size) == 0
               ? 0
               : error_set(err, ERROR_INTERNAL, "GnuTLS cannot hash %.200s", path);
}

/* What the files hold is read once, so that key and certificate are those that are checked. */
static int use_files(struct identity *identity, const struct tls_options *options,
                     const gnutls_datum_t files[static 3], struct error *err)
{
    int failed = gnutls_certificate_set_x509_key_mem(identity->credentials, &files[0], &files[1],
                                                     GNUTLS_X509_FMT_PEM);
    if (failed < 0)
        return error_set(err, ERROR_INVALID, "tls_cert %.150s with tls_key %.150s: %s",
                         options->certificate, options->key, gnutls_strerror(failed));
    if (!options->client_ca)
        return 0;
    int count = gnutls_certificate_set_x509_trust_mem(identity->credentials, &files[2],
                                                      GNUTLS_X509_FMT_PEM);
    return count > 0 ? 0
                     : error_set(err, ERROR_INVALID,
                                 "tls_client_ca: %.200s: expected certificates in PEM",
                                 options->client_ca);
}

static int read_identity(struct identity *identity, const struct tls_options *options,
                         struct error *err)
{
    gnutls_hash_hd_t hash;
    gnutls_datum_t files[3] = {{0}};
    static const char *const OPTIONS[3] = {"tls_cert", "tls_key", "tls_client_ca"};
    const char *const paths[3] = {options->certificate, options->key, options->client_ca};
    int result = gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) == 0 ? 0 : -1;
    if (result != 0)
        return error_set(err, ERROR_INTERNAL, "GnuTLS has no SHA-256");
    for (int i = 0; i < 3 && result == 0; i++)
        if (paths[i])
            result = add_file(hash, OPTIONS[i], paths[i], &files[i], err);
    if (result == 0)
        result = use_files(identity, options, files, err);
    gnutls_hash_deinit(hash, identity->digest);
    gnutls_memset(files[1].data, 0, files[1].size);
    for (int i = 0; i < 3; i++)
        gnutls_free(files[i].data);
    return result;
}

static struct identity *identity_new(const struct tls_options *options, struct error *err)
{
    struct identity *identity = xcalloc(1, sizeof *identity);
    atomic_store(&identity->holders, 1);
    if (gnutls_certificate_allocate_credentials(&identity->credentials) != 0)
        out_of_memory();
    if (read_identity(identity, options, err) == 0)
        return identity;
    release(identity);
    return NULL;
}

struct tls *tls_new(const struct tls_options *options, struct error *err)
{
    struct identity *identity = identity_new(options, err);
    if (!identity)
        return NULL;
    struct tls *tls = xcalloc(1, sizeof *tls);
    tls->options = options;
    tls->identity = identity;
    if (uv_mutex_init(&tls->mutex) != 0 ||
        gnutls_priority_init(&tls->priorities, PRIORITIES, NULL) != 0)
        out_of_memory();
    return tls;
}

void tls_free(struct tls *tls)
{
    if (!tls)
        return;
    release(tls->identity);
    gnutls_priority_deinit(tls->priorities);
    uv_mutex_destroy(&tls->mutex);
    free(tls);
}

int tls_reload(struct tls *tls, bool *changed, struct error *err)
{
    struct identity *identity = identity_new(tls->options, err);
    *changed = false;
    if (!identity)
        return -1;
    uv_mutex_lock(&tls->mutex);
    struct identity *before = tls->identity;
    *changed = memcmp(before->digest, identity->digest, DIGEST_BYTES) != 0;
    tls->identity = identity;
    uv_mutex_unlock(&tls->mutex);
    release(before);
    return 0;
}

/* ---- a connection ---- */

struct http_tls {
    gnutls_session_t session;
    struct identity *identity;
    int fd;
    bool ready; /* the handshake is done */
    bool certified;
    bool pending; /* a record was made and is not sent */
};

static ssize_t push(gnutls_transport_ptr_t context, const void *bytes, size_t size)
{
    struct http_tls *tls = context;
    ssize_t sent = sendto(tls->fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
    if (sent < 0)
        gnutls_transport_set_errno(tls->session, errno);
    return sent;
}

static ssize_t pull(gnutls_transport_ptr_t context, void *bytes, size_t size)
{
    struct http_tls *tls = context;
    ssize_t count = recvfrom(tls->fd, bytes, size, MSG_DONTWAIT, NULL, NULL);
    if (count < 0)
        gnutls_transport_set_errno(tls->session, errno);
    return count;
}

/* A handshake is several small sends. The system would keep each back until the client has told
 * that it got the one before, which takes clients 40 ms. */
static void send_at_once(int fd)
{
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* it works without, too */
}

struct http_tls *http_tls_new(struct tls *shared, int fd, const char *protocol)
{
    const gnutls_datum_t spoken = {(unsigned char *)(uintptr_t)protocol,
                                   (unsigned)strlen(protocol)};
    struct http_tls *tls = xcalloc(1, sizeof *tls);
    tls->fd = fd;
    send_at_once(fd);
    tls->identity = hold(shared);
    if (gnutls_init(&tls->session,
                    GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS) != 0)
        out_of_memory();
    if (gnutls_priority_set(tls->session, shared->priorities) != 0 ||
        gnutls_credentials_set(tls->session, GNUTLS_CRD_CERTIFICATE, tls->identity->credentials) !=
            0 ||
        gnutls_alpn_set_protocols(tls->session, &spoken, 1, 0) != 0)
        out_of_memory();
    if (shared->options->client_ca)
        gnutls_certificate_server_set_request(tls->session, GNUTLS_CERT_REQUEST);
    gnutls_transport_set_ptr(tls->session, tls);
    gnutls_transport_set_push_function(tls->session, push);
    gnutls_transport_set_pull_function(tls->session, pull);
    return tls;
}

void http_tls_free(struct http_tls *tls)
{
    if (!tls)
        return;
    gnutls_deinit(tls->session);
    release(tls->identity);
    free(tls);
}

static bool may_come_later(ssize_t result)
{
    return result == GNUTLS_E_AGAIN || result == GNUTLS_E_INTERRUPTED;
}

static ssize_t fail(int reason)
{
    errno = reason;
    return -1;
}

/* A client without a certificate may do what needs none; one with a false certificate is refused.
 */
static bool certificate_holds(struct http_tls *tls)
{
    gnutls_typed_vdata_st purpose = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                                     .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT};
    unsigned count = 0, status = 0;
    if (!gnutls_certificate_get_peers(tls->session, &count) || count == 0)
        return true;
    tls->certified =
        gnutls_certificate_verify_peers(tls->session, &purpose, 1, &status) == 0 && status == 0;
    return tls->certified;
}

static int handshake(struct http_tls *tls)
{
    int result = gnutls_handshake(tls->session);
    if (may_come_later(result))
        return (int)fail(EAGAIN);
    if (result == GNUTLS_E_WARNING_ALERT_RECEIVED)
        return (int)fail(EINTR); /* once more in the next run */
    if (result == 0 && certificate_holds(tls)) {
        tls->ready = true;
        return 0;
    }
    if (result == 0)
        gnutls_alert_send(tls->session, GNUTLS_AL_FATAL, GNUTLS_A_BAD_CERTIFICATE);
    else
        gnutls_alert_send_appropriate(tls->session, result);
    return (int)fail(ECONNRESET);
}

/* Fills one piece; GnuTLS gives a record at a time. */
static ssize_t receive_piece(struct http_tls *tls, char *into, size_t size, bool *ended)
{
    size_t total = 0;
    *ended = false;
    while (total < size) {
        ssize_t count = gnutls_record_recv(tls->session, into + total, size - total);
        if (count <= 0) {
            *ended = true;
            return total > 0 ? (ssize_t)total : count;
        }
        total += (size_t)count;
    }
    return (ssize_t)total;
}

ssize_t http_tls_receive(struct http_tls *tls, const struct iovec *into, int count)
{
    ssize_t total = 0, result = 0;
    bool ended = false;
    if (!tls->ready && handshake(tls) != 0)
        return -1;
    for (int i = 0; i < count && !ended; i++) {
        if (into[i].iov_len == 0)
            continue;
        result = receive_piece(tls, into[i].iov_base, into[i].iov_len, &ended);
        total += result > 0 ? result : 0;
    }
    if (total > 0)
        return total;
    if (result == 0 || result == GNUTLS_E_PREMATURE_TERMINATION)
        return 0;
    return fail(may_come_later(result) ? EAGAIN : ECONNRESET);
}

size_t http_tls_ahead(const struct http_tls *tls)
{
    return gnutls_record_check_pending(tls->session);
}

/* A record that was made and not sent is sent first; its bytes are those that come again. */
static ssize_t send_record(struct http_tls *tls, const char *bytes, size_t size)
{
    size = size < RECORD_BYTES ? size : RECORD_BYTES;
    ssize_t sent =
        gnutls_record_send(tls->session, tls->pending ? NULL : bytes, tls->pending ? 0 : size);
    tls->pending = may_come_later(sent);
    return sent;
}

/* Sends until the socket takes no more: libmicrohttpd takes a smaller count as a sign of that, and
 * waits for the socket. */
ssize_t http_tls_send(struct http_tls *tls, const void *bytes, size_t size)
{
    size_t total = 0;
    ssize_t sent = 0;
    if (!tls->ready)
        return fail(EAGAIN);
    while (total < size && (sent = send_record(tls, (const char *)bytes + total, size - total)) > 0)
        total += (size_t)sent;
    if (total > 0)
        return (ssize_t)total;
    return fail(may_come_later(sent) ? EAGAIN : EPIPE);
}

void http_tls_end(struct http_tls *tls)
{
    if (tls->ready && !tls->pending)
        (void)gnutls_bye(tls->session, GNUTLS_SHUT_WR);
}

bool http_tls_is_certified(const struct http_tls *tls)
{
    return tls->certified;
}
