/* Fuzzes http_framing_read() with any bytes, at once and in pieces. Always, a request ends only
 * after its bytes were read, has no NUL and no bare LF outside its body, and a body has the
 * announced length; cutting changes nothing. The first byte says how to cut. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "libfuzzer.h"
#include "server/http/http_framing.h"

enum { MAX_BODY = 1000 };

struct summary {
    uint64_t requests, body_bytes, hash;
    enum error_code code;
};

static void require(bool condition)
{
    if (!condition)
        abort();
}

static void add(struct summary *summary, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    for (size_t i = 0; i < length; i++)
        summary->hash = (summary->hash ^ at[i]) * 0x100000001B3u;
}

static void check_text(const struct http_head *head, struct http_text text)
{
    require(text.at == 0 || (size_t)text.at + text.length <= head->length);
}

static void check_head(const struct http_head *head, const char *bytes, size_t taken)
{
    require(head->length == taken && taken <= HTTP_HEAD_MAX_BYTES);
    require(memcmp(bytes + taken - 4, "\r\n\r\n", 4) == 0);
    require(memchr(bytes, '\0', taken) == NULL);
    for (size_t i = 0; i < taken; i++)
        require((bytes[i] == '\n') == (i > 0 && bytes[i - 1] == '\r'));
    require(head->method_length > 0 && bytes[head->method_length] == ' ');
    check_text(head, head->path);
    for (int i = 0; i < HTTP_FIELD_COUNT; i++)
        check_text(head, head->fields[i]);
    require(head->content_length <= MAX_BODY && !(head->chunked && head->content_length));
}

/* Reads one piece as far as possible and returns how many bytes are left. */
static size_t read_piece(struct http_framing *framing, const char *bytes, size_t length,
                         struct summary *summary)
{
    struct error err = ERROR_INIT;
    size_t taken;
    enum http_part part;
    do {
        part = http_framing_read(framing, bytes, length, &taken, &err);
        require(taken <= length);
        require((part == HTTP_REFUSED) == (err.code != ERROR_NONE));
        if (part == HTTP_HEADER) {
            check_head(&framing->head, bytes, taken);
            add(summary, bytes, taken);
        } else if (part == HTTP_BODY) {
            require(taken > 0);
            summary->body_bytes += taken;
            require(summary->body_bytes <= (summary->requests + 1) * MAX_BODY);
            add(summary, bytes, taken);
        } else if (part == HTTP_END) {
            summary->requests++;
            http_framing_init(framing, MAX_BODY);
        }
        bytes += taken, length -= taken;
    } while (part != HTTP_REFUSED && (taken > 0 || part != HTTP_MORE));
    summary->code = err.code;
    return length;
}

/* Reads in pieces of `step` bytes, each after what the piece before left. */
static struct summary read_all(const char *bytes, size_t length, size_t step)
{
    struct summary summary = {0};
    struct http_framing framing;
    http_framing_init(&framing, MAX_BODY);
    for (size_t from = 0, to = 0; to < length && summary.code == ERROR_NONE;) {
        to = length - to < step ? length : to + step;
        char *piece = malloc(to - from); /* so that over-reads are detected */
        memcpy(piece, bytes + from, to - from);
        from = to - read_piece(&framing, piece, to - from, &summary);
        free(piece);
    }
    return summary;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    const char *bytes = (const char *)data + 1;
    size_t step = data[0] % 61 + 1;
    struct summary whole = read_all(bytes, size - 1, size - 1);
    struct summary cut = read_all(bytes, size - 1, step);
    require(whole.requests == cut.requests && whole.body_bytes == cut.body_bytes);
    require(whole.hash == cut.hash && whole.code == cut.code);
    return 0;
}
