/* /v1/models: what is served, and of language models what they do. */
#ifndef MOECTL_LISTING_H
#define MOECTL_LISTING_H

#include <jansson.h>

#include "clients/c/moectl/support.h"

/* The document, with its list of names. The caller decrefs. */
MUST_CHECK json_t *fetch_listing(struct moed_client *client, struct moed_client_error *err);

/* What OpenAI's half of the listing says about a model; NULL: nothing. Borrowed. */
json_t *listing_entry(json_t *listing, const char *name);

/* Whether "completion", "chat" or "embedding" is among the capabilities of an entry, which may be
 * NULL. */
bool listing_does(json_t *entry, const char *what);

#endif
