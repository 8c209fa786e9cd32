/* Receiving: from a socket's bytes to a whole request, one at a time.
 *
 * libmicrohttpd calls http_receive() instead of recv(). Until a request is whole it is told that
 * there is nothing to read. Then it is given a short request that takes nothing from the client's
 * but the method (HEAD or not), the version, and whether to keep the connection. That fits any
 * pool, and libmicrohttpd asks for the answer. So no client can bring libmicrohttpd into a state of
 * the client's choice.
 *
 * libmicrohttpd's epoll set is edge-triggered: after a read that filled its buffer it reads again
 * at once; after one that did not, or that failed with EAGAIN, it waits for the socket. EINTR makes
 * it come back in its next run. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "core/memory.h"
#include "server/http/http_internal.h"
#include "server/http/http_io.h"
#include "server/http/http_tls.h"

enum {
    /* What one connection may read in one run, so that a fast sender does not starve the others. */
    READ_AT_MOST_BYTES = 1 << 20,

    /* The longest request that libmicrohttpd is shown, without padding. */
    SHOWN_BYTES = 128,
};

void http_receive_open(struct connection *connection)
{
    struct http *http = connection->http;
    size_t fd = (size_t)connection->fd;
    if (fd >= http->by_fd_count) {
        size_t count = 2 * fd + 1;
        http->by_fd = xrealloc(http->by_fd, count * sizeof *http->by_fd);
        memset(http->by_fd + http->by_fd_count, 0,
               (count - http->by_fd_count) * sizeof *http->by_fd);
        http->by_fd_count = count;
    }
    http->by_fd[fd] = connection;
    if (http->options.tls)
        connection->tls = http_tls_new(http->options.tls, connection->fd, "http/1.1");
    buffer_init(&connection->held, HTTP_SCRATCH_BYTES);
    http_receive_next(connection);
}

void http_receive_close(struct connection *connection)
{
    if (!connection->exchange && connection->framing.state != FRAMING_BEFORE)
        connection->exchange = exchange_new(connection, connection->held.data); /* cut off */
    connection->http->by_fd[connection->fd] = NULL;
    http_tls_free(connection->tls);
    connection->tls = NULL;
    buffer_close(&connection->held);
}

void http_receive_next(struct connection *connection)
{
    http_framing_init(&connection->framing, connection->http->options.max_body_bytes);
    connection->whole = false;
}

/* ---- parts of a request ---- */

static void note_first_byte(struct connection *connection)
{
    if (connection->phase != PHASE_IDLE || connection->framing.state == FRAMING_BEFORE)
        return;
    connection->begun_ns = uv_hrtime();
    connection_enter(connection, PHASE_RECEIVING, uv_now(connection->http->loop));
}

static bool awaits_body(const struct http_head *head)
{
    return head->chunked || head->content_length > 0;
}

/* Some clients ask first whether to send their body (RFC 9110, section 10.1.1). The socket takes so
 * few bytes unless the client leaves earlier answers unread; then it gets no reply to the question,
 * which the RFC allows. */
static void allow_body(struct connection *connection)
{
    static const char allowed[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const struct http_head *head = &connection->framing.head;
    if (!awaits_body(head) || !head->expects_continue || head->http_1_0)
        return;
    ssize_t sent = connection_send_few(connection, allowed, strlen(allowed));
    if (sent > 0 && (size_t)sent < strlen(allowed))
        shutdown(connection->fd, SHUT_RDWR); /* half of it would spoil the answer */
}

static int begin_exchange(struct connection *connection, const char *header, bool more_follows,
                          struct error *err)
{
    connection->exchange = exchange_new(connection, header);
    if (exchange_ask_admission(connection->exchange, awaits_body(&connection->framing.head), err) !=
            0 ||
        exchange_prepare_body(connection->exchange, &connection->framing, err) != 0)
        return -1;
    if (!more_follows)
        allow_body(connection);
    return 0;
}

/* Acts on what the bytes say, as far as one request goes, and puts in `used` how many they were. */
static int read_parts(struct connection *connection, const char *bytes, size_t length, size_t *used,
                      struct error *err)
{
    enum http_part part;
    size_t taken;
    int result = 0;
    *used = 0;
    do {
        const char *at = bytes + *used;
        part = http_framing_read(&connection->framing, at, length - *used, &taken, err);
        *used += taken;
        note_first_byte(connection);
        if (part == HTTP_REFUSED)
            result = -1;
        else if (part == HTTP_HEADER)
            result = begin_exchange(connection, at, *used < length, err);
        else if (part == HTTP_BODY)
            result = exchange_accept_body(connection->exchange, at, taken, err);
    } while (result == 0 && part != HTTP_END && (taken > 0 || part != HTTP_MORE));
    connection->whole = part == HTTP_END;
    return result;
}

/* ---- reading ---- */

/* What reading leads to, besides what recv() returns when the socket has nothing (more): 0 when the
 * client has ended, -1 with errno. */
enum {
    READ_DONE = 1, /* the request is whole, or refused with an error */
    READ_MORE = 2, /* there are new bytes to look at */
};

/* Progress of one call through the socket's bytes. */
struct reading {
    size_t waiting; /* bytes in scratch that are not used yet */
    size_t total;   /* bytes that the socket gave */
    bool emptied;   /* the socket gave fewer bytes than there was room for */
};

/* A piece of the body has come straight into the body's buffer. */
static int accept_direct(struct connection *connection, size_t size, struct error *err)
{
    connection->exchange->body.length += size;
    http_framing_skip_body(&connection->framing, size);
    return exchange_count_body(connection->exchange, size, err);
}

/* Reads on behind the waiting bytes. Bytes that must be body go straight into the body. */
static int read_socket(struct connection *connection, struct reading *reading, struct error *err)
{
    struct buffer *body = connection->exchange ? &connection->exchange->body : NULL;
    size_t ahead = body ? http_framing_body_ahead(&connection->framing) : 0;
    ahead = ahead < READ_AT_MOST_BYTES ? ahead : READ_AT_MOST_BYTES;
    char *place = ahead ? buffer_reserve(body, ahead) : NULL;
    struct iovec into[] = {
        {place, place ? ahead : 0},
        {connection->http->scratch + reading->waiting, HTTP_SCRATCH_BYTES - reading->waiting},
    };
    ssize_t count = connection_receive(connection, into, 2);
    if (count <= 0)
        return (int)count;
    size_t given = (size_t)count, direct = given < into[0].iov_len ? given : into[0].iov_len;
    reading->waiting += given - direct;
    reading->total += given;
    reading->emptied = given < into[0].iov_len + into[1].iov_len;
    if (direct > 0 && accept_direct(connection, direct, err) != 0)
        return READ_DONE;
    return READ_MORE;
}

/* Uses what waits, then reads on, until a request is done or the socket has nothing more for now.
 */
static int read_request(struct connection *connection, struct reading *reading, struct error *err)
{
    char *scratch = connection->http->scratch;
    for (;;) {
        size_t used;
        int refused = read_parts(connection, scratch, reading->waiting, &used, err);
        reading->waiting -= used;
        memmove(scratch, scratch + used, reading->waiting);
        if (refused || connection->whole)
            return READ_DONE;
        errno = reading->emptied ? EAGAIN : EINTR;
        if (reading->emptied || reading->total >= READ_AT_MOST_BYTES)
            return -1;
        int result = read_socket(connection, reading, err);
        if (result != READ_MORE)
            return result;
    }
}

/* Between two calls the waiting bytes are kept in `held`. */
static size_t take_held(struct connection *connection)
{
    struct buffer *held = &connection->held;
    size_t length = held->length;
    if (length > 0)
        memcpy(connection->http->scratch, held->data, length);
    held->length = 0;
    return length;
}

static void hold(struct connection *connection, size_t length, struct error *err)
{
    struct buffer *held = &connection->held;
    if (length == 0)
        buffer_close(held);
    buffer_append(held, connection->http->scratch, length);
    if (held->failed)
        error_set(err, ERROR_UNAVAILABLE, "no memory for the request");
}

/* ---- what libmicrohttpd sees ---- */

#define SHOWN(line, connection) line "\r\nHost: x\r\nConnection: " connection "\r\n"

/* The request without its empty line: [HEAD][HTTP/1.0][keep the connection]. */
static const char *const SHOWN_REQUESTS[2][2][2] = {
    {{SHOWN("GET / HTTP/1.1", "close"), SHOWN("GET / HTTP/1.1", "keep-alive")},
     {SHOWN("GET / HTTP/1.0", "close"), SHOWN("GET / HTTP/1.0", "keep-alive")}},
    {{SHOWN("HEAD / HTTP/1.1", "close"), SHOWN("HEAD / HTTP/1.1", "keep-alive")},
     {SHOWN("HEAD / HTTP/1.0", "close"), SHOWN("HEAD / HTTP/1.0", "keep-alive")}},
};

static size_t append(char *bytes, size_t at, const char *text)
{
    size_t length = strlen(text);
    memcpy(bytes + at, text, length);
    return at + length;
}

/* If there are more bytes, fills all of the room, so that libmicrohttpd reads again after the
 * answer.
 */
static ssize_t show_request(const struct connection *connection, char *bytes, size_t size,
                            bool more)
{
    const struct http_head *head = &connection->framing.head;
    bool keep = !head->wants_close && (!head->http_1_0 || head->wants_keep_alive);
    bool head_only = connection->exchange->public.method == HTTP_HEAD;
    if (size < SHOWN_BYTES) {
        errno = ENOBUFS;
        return -1;
    }
    size_t length = append(bytes, 0, SHOWN_REQUESTS[head_only][head->http_1_0][keep]);
    if (more) {
        size_t padding_end = size - strlen("\r\n\r\n");
        length = append(bytes, length, "X: ");
        memset(bytes + length, 'x', padding_end - length);
        length = append(bytes, padding_end, "\r\n");
    }
    return (ssize_t)append(bytes, length, "\r\n");
}

/* Reads and drops what a refused client still sends. */
static ssize_t discard(struct connection *connection)
{
    char *scratch = connection->http->scratch;
    for (ssize_t total = 0, count; total < READ_AT_MOST_BYTES; total += count) {
        count = recvfrom(connection->fd, scratch, HTTP_SCRATCH_BYTES, 0, NULL, NULL);
        if (count <= 0)
            return count;
    }
    errno = EINTR;
    return -1;
}

static ssize_t receive_request(struct connection *connection, char *bytes, size_t size)
{
    connection->in_hand = true;
    struct reading reading = {.waiting = take_held(connection)};
    struct error err = ERROR_INIT;
    int result = read_request(connection, &reading, &err);
    int reason = errno;
    const bool more = reading.waiting > 0 || !reading.emptied; /* behind this request */
    connection->in_hand = connection->whole && more;
    if (connection->given_up)
        return 0;
    hold(connection, reading.waiting, &err);
    if (err.code != ERROR_NONE) {
        http_refuse(connection, &err);
        return discard(connection);
    }
    errno = reason;
    return connection->whole ? show_request(connection, bytes, size, more) : result;
}

ssize_t http_receive(struct connection *connection, char *bytes, size_t size)
{
    switch (connection->phase) {
    case PHASE_LINGERING:
        return discard(connection);
    case PHASE_CLOSING:
        return 0;
    case PHASE_IDLE:
    case PHASE_RECEIVING:
        if (!connection->whole)
            return receive_request(connection, bytes, size);
        break;
    default:
        break;
    }
    errno = EAGAIN;
    return -1;
}
