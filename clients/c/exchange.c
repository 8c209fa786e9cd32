/* The handle's one operation: an exchange of HTTP over a connection that libcurl keeps, whose
 * answer is taken whole or as a stream of events. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "clients/c/events.h"
#include "clients/c/handle.h"
#include "clients/c/internal.h"

/* ---- the body of an answer ---- */

/* Always NUL-terminated once there is a byte. */
struct collector {
    char *data;
    size_t length, capacity, most;
    bool too_long, no_memory;
};

/* What the calls of curl know. */
struct exchange {
    struct moed_client *client;
    struct collector body;
    struct client_events *events; /* NULL: the answer is taken whole */
    enum client_events_end end;
    struct timespec heard; /* the last event, or the beginning */
    bool silent;           /* for too long */
};

static size_t collect(struct collector *collector, const char *bytes, size_t length)
{
    if (length > collector->most - collector->length) {
        collector->too_long = true;
        return CURL_WRITEFUNC_ERROR;
    }
    size_t needed = collector->length + length + 1;
    if (client_grow(&collector->data, &collector->capacity, needed) != 0) {
        collector->no_memory = true;
        return CURL_WRITEFUNC_ERROR;
    }
    memcpy(collector->data + collector->length, bytes, length);
    collector->length += length;
    collector->data[collector->length] = '\0';
    return length;
}

static const char *content_type(CURL *curl)
{
    const char *type = NULL;
    curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
    return type ? type : "nothing";
}

static int status_of(CURL *curl)
{
    long status = 0;
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    return (int)status;
}

/* Whether what comes is events and not the reason why there are none. */
static bool is_stream(CURL *curl)
{
    static const char TYPE[] = "text/event-stream";
    const char *type = content_type(curl);
    const size_t length = sizeof TYPE - 1;
    return status_of(curl) / 100 == 2 && strncasecmp(type, TYPE, length) == 0 &&
           (!type[length] || strchr("; \t", type[length]));
}

static size_t on_bytes(char *bytes, size_t size, size_t count, void *context)
{
    struct exchange *exchange = context;
    const size_t length = size * count;
    if (!exchange->events || !is_stream(exchange->client->curl))
        return collect(&exchange->body, bytes, length);
    exchange->end = client_events_feed(exchange->events, bytes, length);
    return exchange->end == EVENTS_GO_ON ? length : CURL_WRITEFUNC_ERROR;
}

static double seconds_since(const struct timespec *then)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - then->tv_sec) + (double)(now.tv_nsec - then->tv_nsec) / 1e9;
}

static int on_progress(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    struct exchange *exchange = context;
    const struct moed_client_options *options = &exchange->client->options;
    if (options->cancelled && options->cancelled(options->context))
        return 1;
    exchange->silent =
        exchange->events && seconds_since(&exchange->heard) > options->timeout_seconds;
    return exchange->silent;
}

/* ---- what went wrong ---- */

/* {"error": "text"}, or {"error": {"message": "text"}} as OpenAI's clients expect it. */
static void refused(const struct moed_client *client, const struct moed_client_call *call,
                    const struct moed_client_answer *answer, struct moed_client_error *err)
{
    json_t *root = answer->body ? json_loadb(answer->body, answer->length, 0, NULL) : NULL;
    json_t *error = json_object_get(root, "error");
    const char *text = json_string_value(error);
    if (!text)
        text = json_string_value(json_object_get(error, "message"));
    const bool lacks_token = answer->status == 401 && !client->options.token;
    client_fail(err, MOED_CLIENT_REFUSED, "%s %.120s: %d: %.300s%s", call->method, call->path,
                answer->status, text ? text : "no reason was given",
                lacks_token ? " (moectl: MOED_TOKEN or --token)" : "");
    if (err)
        err->status = answer->status;
    json_decref(root);
}

/* What to do about a failure of TLS, which curl tells in the words of OpenSSL. */
static const char *advice_for(CURLcode code)
{
    switch (code) {
    case CURLE_SSL_CONNECT_ERROR:
        return "; if the server has no TLS, it is http://";
    case CURLE_UNSUPPORTED_PROTOCOL: /* the alert of TLS for "GET /" is taken for HTTP/0.9 */
        return "; a server with TLS is https://";
    case CURLE_PEER_FAILED_VERIFICATION:
        return "; if its CA is a private one, give it, or the certificate itself, as the CA file "
               "(moectl: --ca)";
    default:
        return "";
    }
}

/* What ended the exchange here and not at the server; 0: nothing. */
static int ended_here(const struct exchange *exchange, CURLcode code, struct moed_client_error *err)
{
    const struct moed_client *client = exchange->client;
    if (exchange->body.no_memory || exchange->end == EVENTS_NO_MEMORY ||
        code == CURLE_OUT_OF_MEMORY)
        return client_no_memory(err);
    if (exchange->body.too_long || exchange->end == EVENTS_TOO_LONG)
        return client_fail(err, MOED_CLIENT_PROTOCOL,
                           "%s: an %s of more than %zu bytes (moectl: --max-answer-mb)",
                           client->shown, exchange->body.too_long ? "answer" : "event",
                           client->options.max_answer_bytes);
    if (exchange->silent)
        return client_fail(err, MOED_CLIENT_UNREACHABLE, "%s: no event for %g s", client->shown,
                           client->options.timeout_seconds);
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return client_fail(err, MOED_CLIENT_CANCELLED, "%s: cancelled", client->shown);
    return 0;
}

static int unreachable(const struct exchange *exchange, CURLcode code,
                       struct moed_client_error *err)
{
    const struct moed_client *client = exchange->client;
    if (ended_here(exchange, code, err) != 0)
        return -1;
    const char *reason = *client->reason ? client->reason : curl_easy_strerror(code);
    long system_error = 0;
    if (code == CURLE_COULDNT_CONNECT && client->base != client->url &&
        curl_easy_getinfo(client->curl, CURLINFO_OS_ERRNO, &system_error) == CURLE_OK &&
        system_error != 0)
        reason = strerror((int)system_error); /* curl tells of a port, of which there is none */
    if (code == CURLE_SSL_CACERT_BADFILE)     /* and the reason names it */
        return client_fail(err, MOED_CLIENT_INVALID,
                           "%s: cannot use the CA file: %s; expected a file of certificates in PEM "
                           "that may be read",
                           client->shown, reason);
    const bool begun = exchange->events && is_stream(client->curl);
    return client_fail(err, MOED_CLIENT_UNREACHABLE, "%s: %s: %s%s", client->shown,
                       begun ? "the answer broke off" : "no answer", reason, advice_for(code));
}
/* ---- an exchange ---- */

/* Digits and nothing else; 0: absent, or no number, as Retry-After may be a date. */
static size_t number_field(CURL *curl, const char *name)
{
    enum { MOST_DIGITS = 18 };
    struct curl_header *field;
    if (curl_easy_header(curl, name, 0, CURLH_HEADER, -1, &field) != CURLHE_OK)
        return 0;
    const size_t digits = strspn(field->value, "0123456789");
    return digits <= MOST_DIGITS && !field->value[digits] ? strtoull(field->value, NULL, 10) : 0;
}

/* Whoever puts names into a path must not be able to make a request of it. */
static int check_call(const struct moed_client_call *call, struct moed_client_error *err)
{
    const char *method = call->method, *path = call->path;
    if (!method || !*method || method[strspn(method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")])
        return client_fail(err, MOED_CLIENT_INVALID, "'%.20s' is no method of HTTP",
                           method ? method : "");
    bool fits = path && *path == '/';
    for (const char *at = path; fits && *at; at++)
        fits = *at > ' ' && *at < 0x7F && *at != '#';
    return fits ? 0
                : client_fail(err, MOED_CLIENT_INVALID,
                              "'%.200s' is no path: expected /..., percent-encoded",
                              path ? path : "");
}

static void set_body(CURL *curl, const struct moed_client_call *call)
{
    bool has_body = call->body || strcmp(call->method, "POST") == 0;
    curl_easy_setopt(curl, has_body ? CURLOPT_POST : CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
    if (has_body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, call->body ? call->body : "");
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->length);
    }
}

/* The fields of this call in front of those of every call; the caller frees what is in front.
 * NULL: no memory. */
static struct curl_slist *call_fields(const struct moed_client *client,
                                      const struct moed_client_call *call)
{
    char line[64];
    snprintf(line, sizeof line, "Inference-Header-Content-Length: %zu", call->json_length);
    struct curl_slist *fields =
        curl_slist_append(NULL, call->json_length && call->length > call->json_length
                                    ? "Content-Type: application/octet-stream"
                                    : "Content-Type: application/json");
    struct curl_slist *last =
        fields && call->json_length ? curl_slist_append(fields, line) : fields;
    if (!last) {
        curl_slist_free_all(fields);
        return NULL;
    }
    while (last->next)
        last = last->next;
    last->next = client->fields;
    return fields;
}

static void free_call_fields(const struct moed_client *client, struct curl_slist *fields)
{
    for (struct curl_slist *at = fields; at; at = at->next)
        if (at->next == client->fields)
            at->next = NULL;
    curl_slist_free_all(fields);
}

static void set_calls(struct exchange *exchange)
{
    const struct moed_client *client = exchange->client;
    const bool watched = exchange->events || client->options.cancelled;
    CURL *curl = client->curl;
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
    curl_easy_setopt(curl, CURLOPT_NOPROGRESS, watched ? 0L : 1L);
    curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(curl, CURLOPT_XFERINFODATA, exchange);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS,
                     exchange->events ? 0L : (long)(client->options.timeout_seconds * 1000));
}

static int perform(struct exchange *exchange, const struct moed_client_call *call,
                   struct moed_client_error *err)
{
    struct moed_client *client = exchange->client;
    size_t bytes = strlen(client->base) + strlen(call->path) + 1;
    char *url = malloc(bytes);
    struct curl_slist *fields = call_fields(client, call);
    CURLcode code = CURLE_OUT_OF_MEMORY;
    if (url && fields) {
        snprintf(url, bytes, "%s%s", client->base, call->path);
        *client->reason = '\0';
        set_body(client->curl, call);
        set_calls(exchange);
        curl_easy_setopt(client->curl, CURLOPT_URL, url);
        curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, fields);
        clock_gettime(CLOCK_MONOTONIC, &exchange->heard);
        code = curl_easy_perform(client->curl);
        curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
    }
    free_call_fields(client, fields);
    free(url);
    return code == CURLE_OK || exchange->end == EVENTS_STOPPED ? 0
                                                               : unreachable(exchange, code, err);
}

/* The answer is the caller's, also after an error; any status but 2xx is one. */
static int exchange_run(struct exchange *exchange, const struct moed_client_call *call,
                        struct moed_client_answer *answer, struct moed_client_error *err)
{
    struct moed_client *client = exchange->client;
    exchange->body.most = client->options.max_answer_bytes;
    if (check_call(call, err) != 0)
        return -1;
    if (client_grow(&exchange->body.data, &exchange->body.capacity, 1) != 0)
        return client_no_memory(err);
    *exchange->body.data = '\0';
    const int result = perform(exchange, call, err);
    *answer = (struct moed_client_answer){
        .body = exchange->body.data,
        .length = exchange->body.length,
        .json_length = number_field(client->curl, "Inference-Header-Content-Length"),
        .status = status_of(client->curl),
    };
    if (result != 0 || answer->status / 100 == 2)
        return result;
    refused(client, call, answer, err);
    if (err)
        err->retry_after_seconds = (double)number_field(client->curl, "Retry-After");
    return -1;
}

int moed_client_exchange(struct moed_client *client, const struct moed_client_call *call,
                         struct moed_client_answer *answer, struct moed_client_error *err)
{
    struct exchange exchange = {.client = client};
    *answer = (struct moed_client_answer){0};
    const int result = exchange_run(&exchange, call, answer, err);
    if (result != 0)
        moed_client_answer_close(answer);
    return result;
}

/* ---- a stream ---- */

struct listener {
    moed_client_on_event *on_event;
    void *context;
    struct exchange exchange;
};

/* The time that `on_event` takes is not the server's. */
static bool hear(void *context, const char *data, size_t length)
{
    struct listener *listener = context;
    const bool goes_on = listener->on_event(listener->context, data, length);
    clock_gettime(CLOCK_MONOTONIC, &listener->exchange.heard);
    return goes_on;
}

int moed_client_stream(struct moed_client *client, const struct moed_client_call *call,
                       moed_client_on_event *on_event, void *context, struct moed_client_error *err)
{
    struct listener listener = {on_event, context, {.client = client}};
    struct client_events events = {
        .on_event = hear, .context = &listener, .most = client->options.max_answer_bytes};
    struct moed_client_answer answer = {0};
    listener.exchange.events = &events;
    int result = exchange_run(&listener.exchange, call, &answer, err);
    if (result == 0 && !is_stream(client->curl))
        result = client_fail(err, MOED_CLIENT_PROTOCOL,
                             "%s %.120s: expected text/event-stream, got %.100s", call->method,
                             call->path, content_type(client->curl));
    client_events_close(&events);
    moed_client_answer_close(&answer);
    return result;
}

/* ---- the end ---- */

void moed_client_answer_close(struct moed_client_answer *answer)
{
    free(answer->body);
    *answer = (struct moed_client_answer){0};
}

void moed_client_call_close(struct moed_client_call *call)
{
    free(call->path);
    free(call->body);
    *call = (struct moed_client_call){0};
}
