/* The service manager that started the process, as systemd's protocols have it (sd_notify(3),
 * sd_listen_fds(3)): it is told when models are served, when the server stops and that its loops
 * are alive, and it may give the listening socket. Without one all of this does nothing. */
#ifndef SERVER_SERVICE_H
#define SERVER_SERVICE_H

#include <stdint.h>

#include "core/error.h"

struct service {
    int notify_fd;        /* -1: nobody wants to be told */
    int given_fd;         /* a socket that listens already; 0: none */
    uint64_t watchdog_ms; /* a sign of life is expected more often than this; 0: never */
};

/* Reads the environment and removes what it has read. Before there are threads. */
MUST_CHECK int service_init(struct service *service, struct error *err);
void service_close(struct service *service);

/* Says "READY=1" or the like. Never waits; from any thread. */
void service_notify(const struct service *service, const char *state);

#endif
