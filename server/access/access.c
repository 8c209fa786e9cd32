/* Asked when a request's header is there, before its body is read: who may not ask costs no memory.
 *
 * Wrong tokens are limited for each address, so that they flood neither log nor CPU. A right one is
 * taken at any time: it cannot be guessed, and the clients behind one proxy, who share an address,
 * must not be able to lock each other out. */
#include "server/access/access.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/text.h"
#include "server/access/cors.h"
#include "server/access/tokens.h"
#include "server/http/http.h"
#include "server/log.h"
#include "server/options/options.h"

/* Wrong tokens of one address: so many at once, then one more every few seconds. */
static const uint64_t FAILURE_NS = 6000000000;
enum { FAILURES_AT_ONCE = 10 };

/* Whoever empties the file to lock everybody out may: it is taken, and said. So is one that others
 * may write. */
static void warn_of(const struct tokens *tokens, const char *path)
{
    if (tokens->count == 0)
        log_message(
            LOG_WARNING, "no_tokens",
            "%s has no tokens: all requests but those for health and the page are refused with 401",
            path);
    if (tokens_are_open(path))
        log_message(LOG_WARNING, "open_tokens", TOKENS_OPEN, path);
}

int access_init(struct access *access, const struct options *options, struct error *err)
{
    *access = (struct access){.options = options};
    int status = uv_rwlock_init(&access->lock);
    if (status != 0)
        return error_set(err, ERROR_INTERNAL, "cannot make a lock: %s", uv_strerror(status));
    uint64_t rate = options->rate_limit;
    rate_init(&access->requests, rate ? 1000000000 / rate : 0,
              options->rate_burst ? options->rate_burst : rate);
    rate_init(&access->failures, FAILURE_NS, FAILURES_AT_ONCE);
    if (!options->tokens)
        return 0;
    access->tokens = tokens_read(options->tokens, err);
    error_prefix(err, "tokens");
    if (!access->tokens)
        return -1;
    warn_of(access->tokens, options->tokens);
    return 0;
}

void access_close(struct access *access)
{
    if (!access->options)
        return;
    rate_close(&access->requests);
    rate_close(&access->failures);
    free(access->tokens);
    uv_rwlock_destroy(&access->lock);
}

/* ---- reloading ---- */

/* Takes `tokens`. Returns whether they are others. */
static bool replace(struct access *access, struct tokens *tokens)
{
    uv_rwlock_wrlock(&access->lock);
    bool changed = !tokens_equal(access->tokens, tokens);
    struct tokens *before = access->tokens;
    access->tokens = tokens;
    uv_rwlock_wrunlock(&access->lock);
    free(before);
    return changed;
}

int access_reload(struct access *access, size_t *count, bool *changed, struct error *err)
{
    struct tokens *tokens = tokens_read(access->options->tokens, err);
    if (!tokens)
        return -1;
    warn_of(tokens, access->options->tokens);
    *count = tokens->count;
    *changed = replace(access, tokens);
    return 0;
}

/* ---- a request ---- */

/* The token of "Authorization: Bearer TOKEN"; NULL: none is given. */
static const char *given_token(const struct exchange *exchange)
{
    static const char SCHEME[] = "Bearer ";
    const char *value = exchange_header_in(exchange, "Authorization");
    if (!value || strncasecmp(value, SCHEME, strlen(SCHEME)) != 0)
        return NULL;
    value += strlen(SCHEME);
    return value + strspn(value, " ");
}

static int too_many(struct exchange *exchange, unsigned retry_after_s, const char *what,
                    struct error *err)
{
    exchange->retry_after_s = retry_after_s;
    return error_set(err, ERROR_OVERLOADED, "too many %s from %s; come back in %u s", what,
                     exchange->client, retry_after_s);
}

static int refuse_token(struct access *access, bool given, struct exchange *exchange,
                        struct error *err)
{
    unsigned wait_s;
    if (given && !rate_take(&access->failures, exchange->client, uv_hrtime(), &wait_s))
        return too_many(exchange, wait_s, "wrong tokens", err);
    exchange_literal_header(exchange, "WWW-Authenticate",
                            given ? "Bearer realm=\"moed\", error=\"invalid_token\""
                                  : "Bearer realm=\"moed\"");
    return error_set(err, ERROR_UNAUTHENTICATED,
                     given ? "the token in Authorization is not known"
                           : "this takes a token: expected Authorization: Bearer TOKEN");
}

static int check_token(struct access *access, enum role role, struct exchange *exchange,
                       struct error *err)
{
    const char *text = given_token(exchange);
    struct token token = {.roles = 0};
    uv_rwlock_rdlock(&access->lock);
    const struct token *found = text ? tokens_find(access->tokens, text) : NULL;
    if (found)
        token = *found;
    uv_rwlock_rdunlock(&access->lock);
    if (!found)
        return refuse_token(access, text != NULL, exchange, err);
    memcpy(exchange->token_name, token.name, sizeof token.name);
    if (token_may(&token, role))
        return 0;
    return error_set(err, ERROR_FORBIDDEN,
                     "this takes a token with the role %s, which \"%s\" lacks", role_name(role),
                     token.name);
}

static int check_listener(const struct access *access, enum role role, struct error *err)
{
    if (!access->options->admin_listen || role == ROLE_PREDICT)
        return 0;
    return error_set(err, ERROR_FORBIDDEN,
                     "%s is answered on the admin listener only (--admin-listen)",
                     role == ROLE_ADMIN ? "administration" : "monitoring");
}

/* With a GET, such as for a picture, a browser tells no origin, and whose page it is only to HTTPS
 * and this machine; what it does not say of is refused. */
static bool is_of_a_page(const struct exchange *exchange)
{
    static const char BROWSER[] = "Mozilla/";
    const char *site = exchange_header_in(exchange, "Sec-Fetch-Site");
    const char *agent = exchange_header_in(exchange, "User-Agent");
    if (exchange->method != HTTP_GET && exchange->method != HTTP_HEAD)
        return false;
    if (site)
        return strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0;
    return agent && strncmp(agent, BROWSER, strlen(BROWSER)) == 0;
}

/* Any web page may have a browser send a POST here. Where no token is asked for, administration is
 * not for pages of others. */
static int check_origin(const struct access *access, const struct exchange *exchange,
                        struct error *err)
{
    const char *origin = exchange_header_in(exchange, "Origin");
    const char *host = exchange_header_in(exchange, "Host");
    const char *of = origin ? strstr(origin, "://") : NULL;
    if (!origin && is_of_a_page(exchange))
        return error_set(err, ERROR_FORBIDDEN, "pages may not change the server by GET: send POST");
    if (!origin || (of && host && strcasecmp(of + strlen("://"), host) == 0) ||
        cors_allows(access->options->cors_origin, origin))
        return 0;
    return error_set(err, ERROR_FORBIDDEN, "pages of %.100s may not change the server", origin);
}

/* The Unix socket has no TLS: the mode of its file says who may connect. */
static bool is_local(const struct exchange *exchange)
{
    return strcmp(exchange->client, "unix") == 0;
}

int access_check(struct access *access, enum role role, bool on_admin_listener,
                 struct exchange *exchange, struct error *err)
{
    unsigned wait_s;
    if (role == ROLE_HEALTH)
        return 0;
    if (!on_admin_listener && !rate_take(&access->requests, exchange->client, uv_hrtime(), &wait_s))
        return too_many(exchange, wait_s, "requests", err);
    if (!on_admin_listener && check_listener(access, role, err) != 0)
        return -1;
    if (access->options->tls_client_ca && !exchange->certified && !is_local(exchange))
        return error_set(err, ERROR_FORBIDDEN,
                         "this takes a client certificate of the server's client CA");
    if (access->options->tokens)
        return check_token(access, role, exchange, err);
    if (role == ROLE_ADMIN && check_origin(access, exchange, err) != 0)
        return -1;
    if (role == ROLE_ADMIN && !on_admin_listener && !access->options->admin)
        return error_set(err, ERROR_FORBIDDEN,
                         "this changes the server, which clients may only with --admin, on "
                         "--admin-listen, or with a token of the role admin (--tokens)");
    return 0;
}
