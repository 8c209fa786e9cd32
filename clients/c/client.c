/* The handle and its one operation: an exchange of HTTP over a connection that libcurl keeps. */
#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "clients/c/internal.h"
#include "clients/c/text.h"

enum {
    DEFAULT_TIMEOUT_SECONDS = 60,
    DEFAULT_MAX_ANSWER_BYTES = 256 << 20, /* a confused server must not fill our memory */
};

struct moed_client {
    CURL *curl;
    char *url;                          /* as given, without a slash at its end */
    char *shown;                        /* the same for errors: without a password */
    const char *base;                   /* what URLs of requests begin with; `url` or static */
    struct curl_slist *fields;          /* sent with every request */
    struct moed_client_options options; /* strings are not read after the handle is made */
    char reason[CURL_ERROR_SIZE];
};

/* ---- the body of an answer ---- */

/* Grows by doubling; always NUL-terminated once there is a byte. */
struct collector {
    char *data;
    size_t length, capacity, most;
    bool too_long, no_memory;
};

static int collector_grow(struct collector *collector, size_t needed)
{
    size_t capacity = collector->capacity ? collector->capacity : 4096;
    while (capacity < needed)
        capacity *= 2;
    char *data = realloc(collector->data, capacity);
    if (!data)
        return -1;
    collector->data = data;
    collector->capacity = capacity;
    return 0;
}

static size_t collect(char *bytes, size_t size, size_t count, void *context)
{
    struct collector *collector = context;
    size_t length = size * count;
    if (length > collector->most - collector->length) {
        collector->too_long = true;
        return CURL_WRITEFUNC_ERROR;
    }
    size_t needed = collector->length + length + 1;
    if (needed > collector->capacity && collector_grow(collector, needed) != 0) {
        collector->no_memory = true;
        return CURL_WRITEFUNC_ERROR;
    }
    memcpy(collector->data + collector->length, bytes, length);
    collector->length += length;
    collector->data[collector->length] = '\0';
    return length;
}

/* ---- a handle's life ---- */

static void initialize_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

static int ask_cancelled(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)a, (void)b, (void)c, (void)d;
    const struct moed_client *client = context;
    return client->options.cancelled(client->options.context);
}

/* A value with a line break would be a header field of its own. */
static int add_field(struct moed_client *client, const char *name, const char *value,
                     struct moed_client_error *err)
{
    if (!value)
        return 0;
    for (const char *at = value; *at; at++)
        if ((unsigned char)*at < ' ' || *at == 0x7F)
            return client_fail(err, MOED_CLIENT_INVALID,
                               "the value of %s holds a control character", name);
    size_t bytes = strlen(name) + strlen(value) + sizeof ": ";
    char *line = malloc(bytes);
    if (!line)
        return client_no_memory(err);
    snprintf(line, bytes, "%s: %s", name, value);
    struct curl_slist *fields = curl_slist_append(client->fields, line);
    free(line);
    if (!fields)
        return client_no_memory(err);
    client->fields = fields;
    return 0;
}

static int add_authorization(struct moed_client *client, const char *token,
                             struct moed_client_error *err)
{
    if (!token)
        return 0;
    size_t bytes = strlen(token) + sizeof "Bearer ";
    char *value = malloc(bytes);
    if (!value)
        return client_no_memory(err);
    snprintf(value, bytes, "Bearer %s", token);
    int result = add_field(client, "Authorization", value, err);
    free(value);
    return result;
}

static int add_fields(struct moed_client *client, struct moed_client_error *err)
{
    const struct moed_client_options *options = &client->options;
    /* curl would wait for "100 Continue" before it sends a large body. */
    if (add_field(client, "Expect", "", err) != 0 ||
        add_authorization(client, options->token, err) != 0 ||
        add_field(client, "Moed-Tag", options->tag, err) != 0)
        return -1;
    return add_field(client, "Moed-Statistics", options->uncounted ? "off" : NULL, err);
}

static int take_copy(struct moed_client *client, const char *url, struct moed_client_error *err)
{
    client->url = strdup(url);
    return client->url ? 0 : client_no_memory(err);
}

static int no_url(const char *url, struct moed_client_error *err)
{
    char *shown = text_without_password(url);
    client_fail(err, MOED_CLIENT_INVALID,
                "'%.200s' is not the URL of a server: expected http://HOST[:PORT], "
                "https://HOST[:PORT] or unix:PATH",
                shown ? shown : "");
    free(shown);
    return -1;
}

static int take_socket(struct moed_client *client, const char *url, struct moed_client_error *err)
{
    size_t most = sizeof((struct sockaddr_un *)NULL)->sun_path - 1, length = strlen(url + 5);
    if (length == 0 || length > most)
        return client_fail(err, MOED_CLIENT_INVALID,
                           "'%.200s': expected unix: and the path of a socket, 1 to %zu bytes", url,
                           most);
    client->base = "http://localhost";
    return take_copy(client, url, err);
}

static int take_url(struct moed_client *client, const char *url, struct moed_client_error *err)
{
    if (url && strncmp(url, "unix:", 5) == 0)
        return take_socket(client, url, err);
    size_t scheme = url && strncmp(url, "http://", 7) == 0    ? 7
                    : url && strncmp(url, "https://", 8) == 0 ? 8
                                                              : 0;
    if (!scheme || !url[scheme] || strpbrk(url, " \t\r\n?#"))
        return no_url(url ? url : "", err);
    if (take_copy(client, url, err) != 0)
        return -1;
    client->base = client->url;
    for (size_t length = strlen(client->url); client->url[length - 1] == '/'; length--)
        client->url[length - 1] = '\0';
    return 0;
}

/* Both strings are copied by curl. */
static CURLcode set_transport(const struct moed_client *client)
{
    CURLcode code = CURLE_OK;
    if (client->base != client->url) {
        curl_easy_setopt(client->curl, CURLOPT_PROXY, ""); /* no proxy leads to a file */
        code = curl_easy_setopt(client->curl, CURLOPT_UNIX_SOCKET_PATH, client->url + 5);
    }
    if (code == CURLE_OK && client->options.ca_file) {
        curl_easy_setopt(client->curl, CURLOPT_CAPATH, NULL); /* these, and not the system's too */
        code = curl_easy_setopt(client->curl, CURLOPT_CAINFO, client->options.ca_file);
    }
    return code;
}

static int set_up(struct moed_client *client, const char *url, struct moed_client_error *err)
{
    if (take_url(client, url, err) != 0 || add_fields(client, err) != 0)
        return -1;
    client->shown = text_without_password(client->url);
    client->curl = curl_easy_init();
    if (!client->shown || !client->curl || set_transport(client) != CURLE_OK)
        return client_no_memory(err);
    curl_easy_setopt(client->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(client->curl, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(client->curl, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(client->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, client->reason);
    curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(client->curl, CURLOPT_TIMEOUT_MS,
                     (long)(client->options.timeout_seconds * 1000));
    if (client->options.cancelled) {
        curl_easy_setopt(client->curl, CURLOPT_NOPROGRESS, 0L);
        curl_easy_setopt(client->curl, CURLOPT_XFERINFOFUNCTION, ask_cancelled);
        curl_easy_setopt(client->curl, CURLOPT_XFERINFODATA, client);
    }
    return 0;
}

struct moed_client *moed_client_new(const char *url, const struct moed_client_options *options,
                                    struct moed_client_error *err)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, initialize_curl);
    struct moed_client *client = calloc(1, sizeof *client);
    if (!client) {
        client_no_memory(err);
        return NULL;
    }
    if (options)
        client->options = *options;
    if (!(client->options.timeout_seconds > 0 && client->options.timeout_seconds < 1e6))
        client->options.timeout_seconds = DEFAULT_TIMEOUT_SECONDS;
    if (client->options.max_answer_bytes == 0)
        client->options.max_answer_bytes = DEFAULT_MAX_ANSWER_BYTES;
    if (set_up(client, url, err) != 0) {
        moed_client_free(client);
        return NULL;
    }
    return client;
}

void moed_client_free(struct moed_client *client)
{
    if (!client)
        return;
    curl_easy_cleanup(client->curl);
    curl_slist_free_all(client->fields);
    free(client->url);
    free(client->shown);
    free(client);
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

static int unreachable(const struct moed_client *client, CURLcode code,
                       const struct collector *collector, struct moed_client_error *err)
{
    if (collector->no_memory || code == CURLE_OUT_OF_MEMORY)
        return client_no_memory(err);
    if (collector->too_long)
        return client_fail(err, MOED_CLIENT_PROTOCOL,
                           "%s: an answer of more than %zu bytes (moectl: --max-answer-mb)",
                           client->shown, collector->most);
    if (code == CURLE_ABORTED_BY_CALLBACK)
        return client_fail(err, MOED_CLIENT_CANCELLED, "%s: cancelled", client->shown);
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
    return client_fail(err, MOED_CLIENT_UNREACHABLE, "%s: no answer: %s%s", client->shown, reason,
                       advice_for(code));
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

static int perform(struct moed_client *client, const struct moed_client_call *call,
                   struct collector *collector, struct moed_client_error *err)
{
    size_t bytes = strlen(client->base) + strlen(call->path) + 1;
    char *url = malloc(bytes);
    struct curl_slist *fields = call_fields(client, call);
    CURLcode code = CURLE_OUT_OF_MEMORY;
    if (url && fields) {
        snprintf(url, bytes, "%s%s", client->base, call->path);
        *client->reason = '\0';
        set_body(client->curl, call);
        curl_easy_setopt(client->curl, CURLOPT_URL, url);
        curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, fields);
        curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, collector);
        code = curl_easy_perform(client->curl);
        curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
    }
    free_call_fields(client, fields);
    free(url);
    return code == CURLE_OK ? 0 : unreachable(client, code, collector, err);
}

int moed_client_exchange(struct moed_client *client, const struct moed_client_call *call,
                         struct moed_client_answer *answer, struct moed_client_error *err)
{
    struct collector collector = {.most = client->options.max_answer_bytes};
    *answer = (struct moed_client_answer){0};
    if (check_call(call, err) != 0)
        return -1;
    if (collector_grow(&collector, 1) != 0)
        return client_no_memory(err);
    *collector.data = '\0';
    if (perform(client, call, &collector, err) != 0) {
        free(collector.data);
        return -1;
    }
    long status = 0;
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
    *answer = (struct moed_client_answer){
        .body = collector.data,
        .length = collector.length,
        .json_length = number_field(client->curl, "Inference-Header-Content-Length"),
        .status = (int)status,
    };
    if (status / 100 == 2)
        return 0;
    refused(client, call, answer, err);
    if (err)
        err->retry_after_seconds = (double)number_field(client->curl, "Retry-After");
    moed_client_answer_close(answer);
    return -1;
}

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
