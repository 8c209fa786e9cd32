/* Lines of server-sent events; see events.h. Of the format's fields only `data` is handed on. */
#include "clients/c/events.h"

#include <stdlib.h>
#include <string.h>

#include "clients/c/internal.h"

static const char MARK[] = "\xEF\xBB\xBF"; /* of the byte order, which a stream may begin with */

static enum client_events_end append(struct client_events *events, const char *bytes, size_t length)
{
    if (length > events->most - events->length)
        return EVENTS_TOO_LONG;
    if (client_grow(&events->data, &events->capacity, events->length + length + 1) != 0)
        return EVENTS_NO_MEMORY;
    memcpy(events->data + events->length, bytes, length);
    events->length += length;
    return EVENTS_GO_ON;
}

/* What an empty line ends, if there is an event. */
static enum client_events_end hand_on(struct client_events *events)
{
    if (events->line == 0)
        return EVENTS_GO_ON;
    const size_t length = events->line - 1; /* without the last line break */
    events->data[length] = '\0';
    events->line = events->length = 0;
    return events->on_event(events->context, events->data, length) ? EVENTS_GO_ON : EVENTS_STOPPED;
}

/* Bytes in front of the value of a field `data`, at least four; 0: the line is another one. */
static size_t before_value(const char *line, size_t length)
{
    if (length < 4 || memcmp(line, "data", 4) != 0 || (length > 4 && line[4] != ':'))
        return 0;
    return length == 4 ? 4 : length > 5 && line[5] == ' ' ? 6 : 5;
}

static enum client_events_end end_line(struct client_events *events)
{
    char *line = events->data + events->line;
    size_t length = events->length - events->line;
    if (!events->begun && length >= 3 && memcmp(line, MARK, 3) == 0) {
        length -= 3;
        memmove(line, line + 3, length);
    }
    events->begun = true;
    if (length == 0)
        return hand_on(events);
    const size_t before = before_value(line, length);
    if (before > 0) {
        memmove(line, line + before, length - before);
        line[length - before] = '\n';
        events->line += length - before + 1;
    }
    events->length = events->line;
    return EVENTS_GO_ON;
}

static size_t line_length(const char *bytes, size_t length)
{
    size_t at = 0;
    while (at < length && bytes[at] != '\n' && bytes[at] != '\r')
        at++;
    return at;
}

enum client_events_end client_events_feed(struct client_events *events, const char *bytes,
                                          size_t length)
{
    enum client_events_end end = EVENTS_GO_ON;
    for (size_t at = 0; at < length && end == EVENTS_GO_ON; at++) {
        const bool rest = events->after_return && bytes[at] == '\n';
        events->after_return = false;
        if (rest)
            continue;
        const size_t part = line_length(bytes + at, length - at);
        end = append(events, bytes + at, part);
        at += part;
        if (end == EVENTS_GO_ON && at < length) {
            events->after_return = bytes[at] == '\r';
            end = end_line(events);
        }
    }
    return end;
}

void client_events_close(struct client_events *events)
{
    free(events->data);
    events->data = NULL;
}
