/* Documents as text: paths are put together here, and what the server says is passed on. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/internal.h"

/* ---- paths ---- */

static bool is_unreserved(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.' || c == '~';
}

/* The text with everything but unreserved characters percent-encoded. The caller frees; NULL: no
 * memory. */
static char *escape(const char *text)
{
    static const char DIGITS[] = "0123456789ABCDEF";
    char *escaped = malloc(3 * strlen(text) + 1), *to = escaped;
    if (!escaped)
        return NULL;
    for (; *text; text++) {
        if (is_unreserved(*text)) {
            *to++ = *text;
            continue;
        }
        *to++ = '%';
        *to++ = DIGITS[(unsigned char)*text >> 4];
        *to++ = DIGITS[(unsigned char)*text & 15];
    }
    *to = '\0';
    return escaped;
}

/* A name of dots would be a step up in the path. */
static bool is_name(const char *text)
{
    return text && *text && text[strspn(text, ".")];
}

char *client_model_path(const char *protocol, const char *model, const char *version,
                        const char *suffix, struct moed_client_error *err)
{
    if (!is_name(model) || (version && !is_name(version))) {
        client_fail(err, MOED_CLIENT_INVALID, "'%.100s' cannot be the name of a %s",
                    is_name(model) ? version : (model ? model : ""),
                    is_name(model) ? "version" : "model");
        return NULL;
    }
    char *name = escape(model), *number = escape(version ? version : "");
    char *path = NULL;
    if (!name || !number ||
        asprintf(&path, "/%s/models/%s%s%s%s", protocol, name, version ? "/versions/" : "", number,
                 suffix) < 0) {
        path = NULL;
        client_no_memory(err);
    }
    free(name);
    free(number);
    return path;
}

/* Appends "?key=value" or "&key=value". */
static int add_query(char **path, const char *key, const char *value)
{
    if (!value)
        return 0;
    char *escaped = escape(value), *longer = NULL;
    int length = escaped ? asprintf(&longer, "%s%c%s=%s", *path, strchr(*path, '?') ? '&' : '?',
                                    key, escaped)
                         : -1;
    free(escaped);
    if (length < 0)
        return -1;
    free(*path);
    *path = longer;
    return 0;
}

/* ---- documents ---- */

static char *text_of(struct moed_client *client, const struct moed_client_call *call,
                     struct moed_client_error *err)
{
    struct moed_client_answer answer;
    return moed_client_exchange(client, call, &answer, err) == 0 ? answer.body : NULL;
}

/* The path is a literal; nothing writes to it. */
static char *text_at(struct moed_client *client, const char *path, struct moed_client_error *err)
{
    return text_of(client, &(struct moed_client_call){.method = "GET", .path = (char *)path}, err);
}

char *moed_client_server(struct moed_client *client, struct moed_client_error *err)
{
    return text_at(client, "/v2", err);
}

char *moed_client_models(struct moed_client *client, struct moed_client_error *err)
{
    return text_at(client, "/v1/models", err);
}

char *moed_client_metrics(struct moed_client *client, struct moed_client_error *err)
{
    return text_at(client, "/metrics", err);
}

char *moed_client_metadata(struct moed_client *client, const char *model, const char *version,
                           struct moed_client_error *err)
{
    char *path = client_model_path("v2", model, version, "", err);
    char *text = path ? text_at(client, path, err) : NULL;
    free(path);
    return text;
}

char *moed_client_routing(struct moed_client *client, const char *model, const char *version,
                          const struct moed_client_routing_query *query,
                          struct moed_client_error *err)
{
    static const struct moed_client_routing_query NO_QUERY;
    query = query ? query : &NO_QUERY;
    char *path = client_model_path("v2", model, version, "/routing", err);
    char *text = NULL;
    if (path &&
        (add_query(&path, "window", query->window) != 0 ||
         add_query(&path, "layer", query->layer) != 0 || add_query(&path, "tag", query->tag) != 0 ||
         add_query(&path, "include", query->include) != 0))
        client_no_memory(err);
    else if (path)
        text = text_at(client, path, err);
    free(path);
    return text;
}

char *moed_client_predict(struct moed_client *client, const char *model, const char *version,
                          const char *request, struct moed_client_error *err)
{
    char *path = client_model_path("v1", model, version, ":predict", err);
    if (!path)
        return NULL;
    struct moed_client_call call = {"POST", path, (char *)request, strlen(request), 0};
    char *text = text_of(client, &call, err);
    free(path);
    return text;
}

json_t *client_parse(const char *text, size_t length, const char *what,
                     struct moed_client_error *err)
{
    json_error_t at;
    json_t *root = json_loadb(text, length, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        client_fail(err, MOED_CLIENT_PROTOCOL, "%s: line %d, column %d: %s", what, at.line,
                    at.column, at.text);
    return root;
}
