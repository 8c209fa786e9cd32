#include "server/http/listen_address.h"

#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "core/text.h"

static int read_path(struct listen_address *address, const char *path, struct error *err)
{
    const size_t most = sizeof((struct sockaddr_un *)0)->sun_path - 1;
    if (*path != '/' || strlen(path) > most)
        return error_set(err, ERROR_INVALID,
                         "expected an absolute path of at most %zu bytes behind unix:, got "
                         "\"%.100s\"",
                         most, path);
    address->path = path;
    return 0;
}

int listen_address_read(struct listen_address *address, const char *text, struct error *err)
{
    static const char SCHEME[] = "unix:";
    uint64_t port = 0;
    *address = (struct listen_address){.port = 0};
    if (strncmp(text, SCHEME, strlen(SCHEME)) == 0)
        return read_path(address, text + strlen(SCHEME), err);
    const char *colon = strrchr(text, ':');
    const char *end = colon ? text_whole_number(colon + 1, &port) : NULL;
    size_t length = colon ? (size_t)(colon - text) : 0;
    bool bracketed = length > 2 && text[0] == '[' && text[length - 1] == ']';
    if (!end || *end || port > UINT16_MAX || length == 0 || length >= sizeof address->host ||
        (!bracketed && memchr(text, ':', length)))
        return error_set(err, ERROR_INVALID,
                         "expected HOST:PORT, [IPv6]:PORT or unix:/PATH, got \"%.100s\"", text);
    snprintf(address->host, sizeof address->host, "%.*s", (int)(length - 2 * bracketed),
             text + bracketed);
    address->port = (uint16_t)port;
    return 0;
}
