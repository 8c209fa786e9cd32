/* The files of clients/web are linked into the binary as they are, and sent with a policy that lets
 * the page load nothing from elsewhere and run no script but its own. */
#include "server/routes/page.h"

#include <string.h>

#include "server/routes/describe.h"

/* Makes NAME_begin[] and NAME_end[] of a file. */
#define ASSET(name, file)                                                                          \
    __asm__(".section .rodata\n"                                                                   \
            "page_" #name "_begin: .incbin \"" MOED_WEB_DIRECTORY "/" file "\"\n"                  \
            "page_" #name "_end: .byte 0\n"                                                        \
            ".previous\n");                                                                        \
    extern const char page_##name##_begin[], page_##name##_end[]

ASSET(index, "index.html");
ASSET(style, "style.css");
ASSET(app, "app.js");
ASSET(alarms, "alarms.js");
ASSET(ask, "ask.js");
ASSET(charts, "charts.js");
ASSET(given, "given.js");
ASSET(tryit, "tryit.js");
ASSET(samples, "samples.js");
ASSET(speak, "speak.js");
ASSET(worth, "worth.js");

struct asset {
    const char *path, *type;
    const char *begin, *end;
};

#define JAVASCRIPT "text/javascript; charset=utf-8"

static const struct asset INDEX = {"/", "text/html; charset=utf-8", page_index_begin,
                                   page_index_end};
static const struct asset ASSETS[] = {
    {"/ui/style.css", "text/css; charset=utf-8", page_style_begin, page_style_end},
    {"/ui/app.js", JAVASCRIPT, page_app_begin, page_app_end},
    {"/ui/alarms.js", JAVASCRIPT, page_alarms_begin, page_alarms_end},
    {"/ui/ask.js", JAVASCRIPT, page_ask_begin, page_ask_end},
    {"/ui/charts.js", JAVASCRIPT, page_charts_begin, page_charts_end},
    {"/ui/given.js", JAVASCRIPT, page_given_begin, page_given_end},
    {"/ui/tryit.js", JAVASCRIPT, page_tryit_begin, page_tryit_end},
    {"/ui/samples.js", JAVASCRIPT, page_samples_begin, page_samples_end},
    {"/ui/speak.js", JAVASCRIPT, page_speak_begin, page_speak_end},
    {"/ui/worth.js", JAVASCRIPT, page_worth_begin, page_worth_end},
};

static void send_asset(struct exchange *exchange, const struct asset *asset)
{
    struct buffer body;
    describe_new(&body);
    buffer_append(&body, asset->begin, (size_t)(asset->end - asset->begin));
    exchange_literal_header(exchange, "Content-Security-Policy",
                            "default-src 'none'; script-src 'self'; style-src 'self'; "
                            "connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
                            "form-action 'none'; frame-ancestors 'none'");
    exchange_literal_header(exchange, "X-Content-Type-Options", "nosniff");
    exchange_literal_header(exchange, "Referrer-Policy", "no-referrer");
    /* The page belongs to the server that sent it: after an upgrade a browser asks again. */
    exchange_literal_header(exchange, "Cache-Control", "no-cache");
    describe_reply(exchange, 200, asset->type, &body);
}

/* Browsers name HTML; "Accept: *" of curl and of probes does not. */
static bool wants_html(const struct exchange *exchange)
{
    const char *accept = exchange_header_in(exchange, "Accept");
    return accept && strstr(accept, "text/html");
}

void page_root(const struct api *api, struct exchange *exchange, const struct target *target)
{
    exchange_literal_header(exchange, "Vary", "Accept");
    if (wants_html(exchange))
        send_asset(exchange, &INDEX);
    else
        describe_alive(api, exchange, target);
}

void page_asset(const struct api *api, struct exchange *exchange, const struct target *target)
{
    struct error err = ERROR_INIT;
    (void)api, (void)target;
    for (size_t i = 0; i < sizeof ASSETS / sizeof *ASSETS; i++)
        if (strcmp(ASSETS[i].path, exchange->path) == 0) {
            send_asset(exchange, &ASSETS[i]);
            return;
        }
    error_set(&err, ERROR_NOT_FOUND, "no such path: %.200s", exchange->path);
    exchange_reply_error(exchange, &err);
}
