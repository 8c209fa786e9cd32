/* Server-sent events (text/event-stream) from bytes as they come; fuzzed, since a server may be
 * confused. */
#ifndef CLIENT_EVENTS_H
#define CLIENT_EVENTS_H

#include "clients/c/moed_client.h"

/* Zero but for the first three. */
struct client_events {
    moed_client_on_event *on_event;
    void *context;
    size_t most;       /* bytes of one event, or of one line that is none */
    char *data;        /* of the event so far, and behind it the line that has begun */
    size_t line;       /* where that line is */
    size_t length;     /* of both */
    size_t capacity;   /* more than `length`, once there is a byte */
    bool begun;        /* the first line is past */
    bool after_return; /* a line feed here is the end of the line before */
};

enum client_events_end { EVENTS_GO_ON, EVENTS_STOPPED, EVENTS_TOO_LONG, EVENTS_NO_MEMORY };

/* Hands on every event that is whole with these bytes, and ends with the first that is not
 * welcome. After anything but EVENTS_GO_ON nothing more is fed. */
enum client_events_end client_events_feed(struct client_events *events, const char *bytes,
                                          size_t length);

void client_events_close(struct client_events *events);

#endif
