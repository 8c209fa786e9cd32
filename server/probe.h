/* `moed probe`: asks a running server whether it is ready, for health checks of containers and for
 * scripts. */
#ifndef SERVER_PROBE_H
#define SERVER_PROBE_H

#include <stdbool.h>

#include "core/error.h"

struct probe {
    const char *host;
    const char *port;
    const char *path; /* whose status 200 is the good news */
    int timeout_ms;   /* of everything together */
    bool tls;         /* without asking who the server is */
};

/* 0 when the server answers 200 within the time; -1 with what it did instead. */
MUST_CHECK int probe_ask(const struct probe *probe, struct error *err);

/* The command: reads its arguments and the environment of the server (MOED_HOST, MOED_PORT,
 * MOED_TLS_CERT), and fills `probe`, which points into them. */
MUST_CHECK int probe_arguments(struct probe *probe, int argc, char *const argv[],
                               struct error *err);

#endif
