#include "server/access/credentials.h"

#include "core/text.h"
#include "server/log.h"
#include "server/options/options.h"

static void reload_tokens(struct access *access, bool asked)
{
    struct error err = ERROR_INIT;
    size_t count = 0;
    bool changed = false;
    if (access_reload(access, &count, &changed, &err) != 0)
        log_message(LOG_ERROR, "tokens_failed", "%s; the tokens before stay", err.text);
    else if (changed || asked)
        log_message(LOG_INFO, "tokens", "%zu token%s%s", count, text_s(count),
                    changed ? "" : ", the same as before");
}

static void reload_certificate(struct tls *tls, const char *path, bool asked)
{
    struct error err = ERROR_INIT;
    bool changed = false;
    if (tls_reload(tls, &changed, &err) != 0)
        log_message(LOG_ERROR, "certificate_failed", "%s; the one before stays", err.text);
    else if (changed || asked)
        log_message(LOG_INFO, "certificate",
                    changed ? "new connections get that of %s" : "%s is the same as before", path);
}

void credentials_reload(struct access *access, struct tls *tls, bool asked)
{
    if (access->options->tokens)
        reload_tokens(access, asked);
    if (tls)
        reload_certificate(tls, access->options->tls_cert, asked);
}
