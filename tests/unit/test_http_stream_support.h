/* A handler that answers in parts, whose bytes each encode their position, and a client that checks
 * them. */
#ifndef TEST_HTTP_STREAM_SUPPORT_H
#define TEST_HTTP_STREAM_SUPPORT_H

#include "test_http_support.h"

enum { PIECE = 10000, STREAMS_MAX = 600 };

/* One answer in parts and its progress. */
struct source {
    struct exchange *exchange; /* NULL once it was ended */
    size_t written, total;     /* written on until total; then ended */
    unsigned refused, resumed, gone;
};

static struct source sources[STREAMS_MAX];
static size_t source_count;

static inline char byte_at(size_t position)
{
    return (char)('a' + position % 23);
}

/* Writes one piece; false if it was refused or the answer has ended. */
static inline bool write_piece(struct source *source)
{
    char piece[PIECE];
    size_t left = source->total - source->written;
    size_t length = left < sizeof piece ? left : sizeof piece;
    for (size_t i = 0; i < length; i++)
        piece[i] = byte_at(source->written + i);
    if (!exchange_write(source->exchange, piece, length)) {
        source->refused++;
        return false;
    }
    source->written += length;
    return true;
}

static inline void end_source(struct source *source)
{
    struct exchange *exchange = source->exchange;
    source->exchange = NULL;
    exchange_end(exchange);
}

/* Writes as much as is accepted, and the end. */
static inline void write_all(struct source *source)
{
    while (source->written < source->total)
        if (!write_piece(source))
            return;
    end_source(source);
}

static inline void on_writable(struct exchange *exchange)
{
    struct source *source = exchange->owner;
    source->resumed++;
    write_all(source);
}

static inline void on_gone(struct exchange *exchange)
{
    struct source *source = exchange->owner;
    source->gone++;
    end_source(source);
}

/* /parts: the test writes; /all?: the handler writes its `total` at once. */
static size_t total_to_write;

static inline void begin_stream(struct exchange *exchange)
{
    ck_assert_uint_lt(source_count, STREAMS_MAX);
    struct source *source = &sources[source_count++];
    *source = (struct source){.exchange = exchange, .total = total_to_write};
    exchange->owner = source;
    exchange->on_disconnect = on_gone;
    exchange->on_writable = on_writable;
    exchange_header(exchange, "X-Kind", "stream");
    exchange_begin(exchange, 200, "text/plain");
    if (!strcmp(exchange->path, "/all"))
        write_all(source);
}

static inline void start_streaming(size_t total)
{
    total_to_write = total;
    on_other_request = begin_stream;
    start();
}

/* --- a client that reads parts --------------------------------------------------------------- */

struct reader {
    struct client *client;
    struct buffer raw;
    size_t at;   /* of the chunk that comes next; 0: the header is not whole */
    size_t body; /* bytes of the chunks before it */
    bool ended;  /* the last chunk has come */
};

static inline struct reader new_reader(const char *request)
{
    struct reader reader = {.client = connect_client()};
    buffer_init(&reader.raw, 64 << 20);
    send_text(reader.client, request);
    return reader;
}

static inline void close_reader(struct reader *reader)
{
    disconnect_client(reader->client);
    buffer_close(&reader->raw);
}

static inline void take_some(struct reader *reader)
{
    receive(reader->client);
    buffer_append(&reader->raw, reader->client->in, reader->client->length);
    reader->client->length = 0;
}

static inline size_t header_length(const struct reader *reader)
{
    const char *end =
        reader->raw.data ? memmem(reader->raw.data, reader->raw.length, "\r\n\r\n", 4) : NULL;
    return end ? (size_t)(end + 4 - reader->raw.data) : 0;
}

/* Checks the chunks that have arrived whole. */
static inline void read_chunks(struct reader *reader)
{
    reader->at = reader->at ? reader->at : header_length(reader);
    while (reader->raw.data && reader->at > 0 && reader->at < reader->raw.length) {
        const char *line = reader->raw.data + reader->at;
        const char *line_end = memmem(line, reader->raw.length - reader->at, "\r\n", 2);
        size_t size = line_end ? strtoul(line, NULL, 16) : 0;
        size_t end = line_end ? (size_t)(line_end - reader->raw.data) + size + 4 : SIZE_MAX;
        if (end > reader->raw.length)
            return;
        for (size_t i = 0; i < size; i++)
            if (byte_at(reader->body++) != line_end[2 + i])
                ck_abort_msg("byte %zu is wrong", reader->body - 1);
        ck_assert_mem_eq("\r\n", line_end + 2 + size, 2);
        reader->at = end;
        reader->ended = size == 0;
        ck_assert(!reader->ended || end == reader->raw.length);
    }
}

static inline bool has_body(struct reader *reader, size_t bytes)
{
    take_some(reader);
    read_chunks(reader);
    return reader->body >= bytes;
}

static inline bool has_ended(struct reader *reader)
{
    has_body(reader, 0);
    return reader->ended;
}

static const char GET_PARTS[] = "GET /parts HTTP/1.1\r\nHost: x\r\n\r\n";
static const char GET_ALL[] = "GET /all HTTP/1.1\r\nHost: x\r\n\r\n";

#endif
