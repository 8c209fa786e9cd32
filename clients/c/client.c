/* The handle's life: what every exchange has in common is set once. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "clients/c/handle.h"
#include "clients/c/internal.h"
#include "clients/c/text.h"

enum {
    DEFAULT_TIMEOUT_SECONDS = 60,
    DEFAULT_MAX_ANSWER_BYTES = 256 << 20, /* a confused server must not fill our memory */
};

static void initialize_curl(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
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
