/* zlib's streams over whole bodies. A small body may stand for a thousand times as much, so what
 * comes out is bounded by the buffer it goes to. */
#include "proto/coding.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "core/text.h"

/* zlib's windowBits: 15 is the largest window; 16 more means gzip's header, a minus none. */
enum { WINDOW = 15, WITH_GZIP_HEADER = 16 };

/* Room that is made at a time, and the most that zlib takes at once. */
enum { PIECE_BYTES = 64 << 10, MOST_AT_ONCE = 1 << 30 };

int coding_of(const char *name, enum coding *coding, struct error *err)
{
    static const struct {
        const char *name;
        enum coding coding;
    } CODINGS[] = {{"identity", CODING_IDENTITY},
                   {"gzip", CODING_GZIP},
                   {"x-gzip", CODING_GZIP},
                   {"deflate", CODING_DEFLATE}};
    *coding = CODING_IDENTITY;
    for (size_t i = 0; name && i < sizeof CODINGS / sizeof *CODINGS; i++) {
        if (strcasecmp(name, CODINGS[i].name) != 0)
            continue;
        *coding = CODINGS[i].coding;
        return 0;
    }
    if (!name)
        return 0;
    return error_set(err, ERROR_MEDIA_TYPE,
                     "Content-Encoding '%.40s' is not supported, expected gzip, deflate or none",
                     name);
}

/* Clients disagree on what "deflate" is: zlib's format, as the RFC has it, or the bare stream. The
 * first byte of zlib's format has 8 in its lower half and a multiple of 31 with the second. */
static int window_of(enum coding coding, const char *bytes, size_t length)
{
    const unsigned char *head = (const unsigned char *)bytes;
    if (coding == CODING_GZIP)
        return WINDOW + WITH_GZIP_HEADER;
    bool zlib = length >= 2 && (head[0] & 15) == 8 && (head[0] << 8 | head[1]) % 31 == 0;
    return zlib ? WINDOW : -WINDOW;
}

static int damaged(const char *what, struct error *err)
{
    return error_set(err, ERROR_INVALID, "the compressed body %s", what);
}

static int too_large(const struct buffer *to, struct error *err)
{
    return error_set(err, ERROR_TOO_LARGE, "the compressed body stands for more than %zu bytes",
                     to->limit);
}

/* What inflate() says at the end of its input, or of its room. */
static int check(const z_stream *stream, int status, size_t left, struct error *err)
{
    bool all_read = stream->avail_in + left == 0;
    if (status == Z_STREAM_END)
        return all_read ? 0 : damaged("is followed by other bytes", err);
    if (status == Z_BUF_ERROR || (status == Z_OK && all_read && stream->avail_out > 0))
        return damaged("ends too early", err);
    return status == Z_OK ? 0 : damaged("is damaged, or no such format", err);
}

static int expand(z_stream *stream, size_t length, struct buffer *to, struct error *err)
{
    for (int status = Z_OK; status != Z_STREAM_END;) {
        Bytef beyond; /* the limit; nothing may go there */
        size_t left = to->limit - to->length, size = left < PIECE_BYTES ? left : PIECE_BYTES;
        char *room = size ? buffer_reserve(to, size) : NULL;
        if (size && !room)
            return error_set(err, ERROR_UNAVAILABLE, "no memory to expand the body");
        if (stream->avail_in == 0) {
            stream->avail_in = length < MOST_AT_ONCE ? (uInt)length : MOST_AT_ONCE;
            length -= stream->avail_in;
        }
        stream->next_out = room ? (Bytef *)room : &beyond;
        stream->avail_out = room ? (uInt)size : 1;
        status = inflate(stream, Z_NO_FLUSH);
        if (!room && stream->avail_out == 0)
            return too_large(to, err);
        to->length += room ? size - stream->avail_out : 0;
        if (check(stream, status, length, err) != 0)
            return -1;
    }
    return 0;
}

int coding_expand(enum coding coding, const char *bytes, size_t length, struct buffer *to,
                  struct error *err)
{
    z_stream stream = {0};
    if (coding == CODING_IDENTITY) {
        buffer_append(to, bytes, length);
        return to->failed ? buffer_error(to, "the body", "send less", err) : 0;
    }
    if (inflateInit2(&stream, window_of(coding, bytes, length)) != Z_OK)
        return error_set(err, ERROR_UNAVAILABLE, "no memory to expand the body");
    stream.next_in = (Bytef *)bytes;
    int result = expand(&stream, length, to, err);
    inflateEnd(&stream);
    return result;
}

/* "gzip;q=0" takes none. */
static bool is_wanted(const char *parameters, const char *end)
{
    const char *q = parameters;
    while (q < end && (*q == ';' || text_is_space(*q)))
        q++;
    if (end - q < 3 || (*q | 0x20) != 'q' || q[1] != '=' || q[2] != '0')
        return true;
    for (q += 3; q < end; q++)
        if (*q >= '1' && *q <= '9')
            return true;
    return false;
}

bool coding_accepts_gzip(const char *accepted)
{
    while (accepted && *accepted) {
        const char *end = accepted + strcspn(accepted, ",");
        while (accepted < end && text_is_space(*accepted))
            accepted++;
        size_t length = strcspn(accepted, " \t;,");
        if ((length == 4 && strncasecmp(accepted, "gzip", 4) == 0) ||
            (length == 6 && strncasecmp(accepted, "x-gzip", 6) == 0))
            return is_wanted(accepted + length, end);
        accepted = *end ? end + 1 : end;
    }
    return false;
}

void coding_compress(const char *bytes, size_t length, struct buffer *to)
{
    enum { LEAST_MEMORY_LEVEL = 8 };
    z_stream stream = {0};
    if (length > MOST_AT_ONCE ||
        deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, WINDOW + WITH_GZIP_HEADER,
                     LEAST_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) != Z_OK) {
        to->failed = true;
        return;
    }
    size_t most = deflateBound(&stream, length), left = to->limit - to->length;
    most = most < left ? most : left;
    char *room = buffer_reserve(to, most);
    stream.next_in = (Bytef *)bytes;
    stream.avail_in = (uInt)length;
    stream.next_out = (Bytef *)room;
    stream.avail_out = room ? (uInt)most : 0;
    if (room && deflate(&stream, Z_FINISH) == Z_STREAM_END)
        to->length += stream.total_out;
    else
        to->failed = true;
    deflateEnd(&stream);
}
