/* Four levels are Triton's switches: each includes the ones above it. */
#include "server/routes/logging_api.h"

#include "proto/oip_logging.h"
#include "server/log.h"
#include "server/routes/describe.h"

static struct oip_logging settings_of(enum log_level level)
{
    return (struct oip_logging){.info = level >= LOG_INFO,
                                .warning = level >= LOG_WARNING,
                                .verbose_level = level >= LOG_DEBUG};
}

static enum log_level level_of(const struct oip_logging *settings)
{
    return settings->verbose_level > 0 ? LOG_DEBUG
           : settings->info            ? LOG_INFO
           : settings->warning         ? LOG_WARNING
                                       : LOG_ERROR;
}

static void reply(struct exchange *exchange)
{
    struct oip_logging settings = settings_of(log_level());
    struct buffer body;
    describe_new(&body);
    oip_logging_document(&settings, &body);
    describe_reply(exchange, 200, NULL, &body);
}

void logging_api_get(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)api, (void)target;
    reply(exchange);
}

void logging_api_set(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)api, (void)target;
    struct error err = ERROR_INIT;
    struct oip_logging settings = settings_of(log_level());
    if (oip_decode_logging(exchange->body ? exchange->body : "", exchange->body_length, &settings,
                           &err) != 0) {
        exchange_reply_error(exchange, &err);
        return;
    }
    log_set_level(level_of(&settings));
    reply(exchange);
}
