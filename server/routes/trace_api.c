/* A change holds until the process ends. */
#include "server/routes/trace_api.h"

#include "proto/oip_trace.h"
#include "server/routes/describe.h"

static struct oip_trace settings_of(const struct trace *trace)
{
    bool on = trace_is_on(trace);
    return (struct oip_trace){.has_collector = on,
                              .off = !on || atomic_load(&trace->off),
                              .rate = on ? atomic_load(&trace->rate) : 0};
}

static void reply(const struct api *api, struct exchange *exchange)
{
    struct oip_trace settings = settings_of(api->trace);
    struct buffer body;
    describe_new(&body);
    oip_trace_document(&settings, &body);
    describe_reply(exchange, 200, NULL, &body);
}

void trace_api_get(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)target;
    reply(api, exchange);
}

void trace_api_set(const struct api *api, struct exchange *exchange, const struct target *target)
{
    (void)target;
    struct error err = ERROR_INIT;
    struct oip_trace settings = settings_of(api->trace);
    if (oip_decode_trace(exchange->body ? exchange->body : "", exchange->body_length, &settings,
                         &err) != 0) {
        exchange_reply_error(exchange, &err);
        return;
    }
    atomic_store(&api->trace->rate, settings.rate);
    atomic_store(&api->trace->off, settings.off);
    reply(api, exchange);
}
