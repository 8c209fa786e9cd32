/* The server, and what it says that it serves. */
#include "clients/c/moectl/listing.h"

#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/run.h"

/* ---- the server ---- */

struct moed_client *connect_with(const struct settings *settings, bool (*cancelled)(void *context),
                                 void *context, struct moed_client_error *err)
{
    const struct moed_client_options options = {
        .timeout_seconds = settings->timeout,
        .token = settings->token,
        .ca_file = settings->ca,
        .tag = settings->tag,
        .uncounted = settings->uncounted,
        .cancelled = cancelled,
        .context = context,
        .max_answer_bytes = (size_t)settings->max_answer_mb << 20,
    };
    return moed_client_new(settings->url, &options, err);
}

struct moed_client *connect_client(const struct settings *settings, struct moed_client_error *err)
{
    return connect_with(settings, NULL, NULL, err);
}

/* ---- the listing ---- */

static bool is_list_of_names(json_t *list)
{
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        if (!json_is_string(entry))
            return false;
    }
    return json_is_array(list);
}

json_t *fetch_listing(struct moed_client *client, struct moed_client_error *err)
{
    char *text = moed_client_models(client, err);
    json_t *root = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    if (text && !is_list_of_names(json_object_get(root, "models"))) {
        fail_with(err, "/v1/models: expected {\"models\": [\"name\", ...]}, got %.100s", text);
        json_decref(root);
        root = NULL;
    }
    free(text);
    return root;
}

json_t *listing_entry(json_t *listing, const char *name)
{
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(listing, "data"), i, entry)
    {
        const char *id = json_string_value(json_object_get(entry, "id"));
        if (id && strcmp(id, name) == 0)
            return entry;
    }
    return NULL;
}

bool listing_does(json_t *entry, const char *what)
{
    size_t i;
    json_t *capability;
    json_array_foreach(json_object_get(entry, "capabilities"), i, capability)
    {
        const char *text = json_string_value(capability);
        if (text && strcmp(text, what) == 0)
            return true;
    }
    return false;
}

/* ---- the names ---- */

/* The names in the repository's index, of which there is an entry for every version. */
static json_t *names_in(json_t *index)
{
    json_t *names = json_array(), *entry, *last = NULL;
    size_t i;
    json_array_foreach(index, i, entry)
    {
        json_t *name = json_object_get(entry, "name");
        if (!json_is_string(name) || json_equal(name, last))
            continue;
        json_array_append(names, name);
        last = name;
    }
    return names;
}

json_t *fetch_names(struct moed_client *client, struct moed_client_error *err)
{
    char path[] = "/v2/repository/index", body[] = "{\"ready\":true}";
    const struct moed_client_call call = {"POST", path, body, strlen(body), 0};
    struct moed_client_answer answer;
    if (moed_client_exchange(client, &call, &answer, err) != 0)
        return NULL;
    json_t *index = json_loadb(answer.body, answer.length, JSON_REJECT_DUPLICATES, NULL);
    json_t *names = json_is_array(index) ? names_in(index) : NULL;
    if (!names)
        fail_with(err, "%s: expected [{\"name\", ...}, ...], got %.100s", path, answer.body);
    moed_client_answer_close(&answer);
    json_decref(index);
    return names;
}
