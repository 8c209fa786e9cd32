/* The route table: method and path -> handler. */
#ifndef SERVER_ROUTES_H
#define SERVER_ROUTES_H

#include "server/http.h"

struct server;

/* What a path's {m} and {v} stood for, percent-decoded. */
struct route_params {
    char model[256];
    char version[32]; /* "" when the path has none */
};

/* Answers the exchange, now or later; unknown paths get 404, known ones with another method 405. */
void routes_dispatch(struct server *server, struct exchange *exchange);

/* Whether a path tells if the server is alive and well: answered also when all connections are in
 * use. */
bool routes_is_vital(const char *path);

/* For tests: whether `path` matches `pattern`, e.g. "/v2/models/{m}/versions/{v}/infer". */
bool route_match(const char *pattern, const char *path, struct route_params *params);

#endif
