/* Compressed request bodies: expanded on one of libuv's threads before their route sees them. */
#ifndef SERVER_EXPAND_H
#define SERVER_EXPAND_H

#include "proto/coding.h"
#include "server/routes/api.h"

/* Expands the exchange's body and calls `then` on the loop's thread; `err` says whether it failed,
 * or the client has left. Until then nobody else may answer. */
void expand_body(const struct api *api, struct exchange *exchange, enum coding coding,
                 void (*then)(const struct api *api, struct exchange *exchange, struct error *err));

#endif
