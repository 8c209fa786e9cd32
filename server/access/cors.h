/* Cross-origin requests of browsers, for whom --cors-origin allows them. */
#ifndef SERVER_CORS_H
#define SERVER_CORS_H

#include <stdbool.h>

#include "core/error.h"

struct exchange;

/* -1 with an error where an origin of the option could never be a browser's. */
MUST_CHECK int cors_check(const char *allowed, struct error *err);

/* Whether a browser asks what it may ask for: without credentials, and for nothing else. */
bool cors_is_preflight(const struct exchange *exchange);

/* Whether pages of that origin may ask. */
bool cors_allows(const char *allowed, const char *origin);

/* Adds what a browser wants to see before it shows an answer, also a refusal, to a page of the
 * request's Origin. `allowed`: "*", or origins with commas between; NULL: nobody. */
void cors_mark(const char *allowed, struct exchange *exchange);

/* Answers the preflight of a page that may ask; false: it is none. */
bool cors_answer(const char *allowed, struct exchange *exchange);

#endif
