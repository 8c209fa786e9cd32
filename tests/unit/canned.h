/* A server of canned answers for tests of the C client. */
#ifndef TEST_CANNED_H
#define TEST_CANNED_H

#include <arpa/inet.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clients/c/moed_client.h"
#include "support.h"

/* Answers one request on one connection. */
struct canned {
    int listener;
    char url[64];
    const char *answer; /* NULL: none, until the client goes */
    char request[4096];
    pthread_t thread;
};

static inline size_t body_length(const char *request)
{
    const char *field = strcasestr(request, "\r\nContent-Length:");
    return field ? strtoul(field + 17, NULL, 10) : 0;
}

static inline bool is_whole(const char *request, size_t length)
{
    const char *end = strstr(request, "\r\n\r\n");
    return end && length >= (size_t)(end + 4 - request) + body_length(request);
}

static inline void *serve(void *context)
{
    struct canned *canned = context;
    int connection = accept(canned->listener, NULL, NULL);
    size_t length = 0;
    ssize_t got;
    while (!is_whole(canned->request, length) &&
           (got = read(connection, canned->request + length, sizeof canned->request - 1 - length)) >
               0)
        length += (size_t)got;
    char last;
    if (canned->answer)
        send(connection, canned->answer, strlen(canned->answer), MSG_NOSIGNAL); /* or it has gone */
    else
        while (read(connection, &last, 1) > 0)
            ;
    close(connection);
    return NULL;
}

static struct canned canned;

static inline void start(const char *answer)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    canned = (struct canned){.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                             .answer = answer};
    setenv("NO_PROXY", "*", 1);
    ck_assert_int_eq(bind(canned.listener, (struct sockaddr *)&address, size), 0);
    ck_assert_int_eq(listen(canned.listener, 1), 0);
    ck_assert_int_eq(getsockname(canned.listener, (struct sockaddr *)&address, &size), 0);
    snprintf(canned.url, sizeof canned.url, "http://127.0.0.1:%d/behind/a/proxy/",
             ntohs(address.sin_port));
    ck_assert_int_eq(pthread_create(&canned.thread, NULL, serve, &canned), 0);
}

static inline void stop(struct moed_client *client)
{
    moed_client_free(client);
    pthread_join(canned.thread, NULL);
    close(canned.listener);
}

static inline void was_sent(const char *part)
{
    ck_assert_msg(strstr(canned.request, part) != NULL, "'%s' is not in\n%s", part, canned.request);
}

#define HEAD(status) "HTTP/1.1 " status "\r\nConnection: close\r\n"

#endif
