/* The route table: from method and path to who may ask, what is looked up first, and the handler.
 */
#ifndef SERVER_ROUTES_H
#define SERVER_ROUTES_H

#include "server/routes/api.h"

/* What a path's {m} and {v} stood for, percent-decoded. */
struct route_params {
    char model[256];
    char version[32]; /* "" when the path has none */
};

/* Whether the client may have what it asks for; asked when the header is there. -1 with an error:
 * it may not. */
MUST_CHECK int routes_admit(const struct api *api, struct exchange *exchange,
                            bool on_admin_listener, struct error *err);

/* Answers the exchange, now or later; unknown paths get 404, known ones with another method 405. */
void routes_dispatch(const struct api *api, struct exchange *exchange);

/* The body of an error answer, in the shape of the path's protocol. */
void routes_write_error(const struct exchange *exchange, const struct error *err,
                        struct buffer *body);

/* Whether the path is one of health or metrics, which are answered also when all connections are in
 * use. */
bool routes_is_vital(const char *path);

/* For tests: whether `path` matches `pattern`, e.g. "/v2/models/{m}/versions/{v}/infer". */
bool route_match(const char *pattern, const char *path, struct route_params *params);

#endif
