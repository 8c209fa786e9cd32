/* `moectl models`: what a server serves. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/run.h"

struct moed_client *connect_client(const struct settings *settings, struct moed_client_error *err)
{
    const struct moed_client_options options = {
        .timeout_seconds = settings->timeout,
        .token = settings->token,
        .ca_file = settings->ca,
        .tag = settings->tag,
        .uncounted = settings->uncounted,
        .max_answer_bytes = (size_t)settings->max_answer_mb << 20,
    };
    return moed_client_new(settings->url, &options, err);
}

/* ---- lists ---- */

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

/* /v1/models, with its list of names. The caller decrefs. */
static json_t *fetch_listing(struct moed_client *client, struct moed_client_error *err)
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

/* What OpenAI's half of the listing says about a model; NULL: nothing. Borrowed. */
static json_t *entry_of(json_t *listing, const char *name)
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

static bool does(json_t *entry, const char *what)
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

/* ---- the table ---- */

/* "image FP32[-1,1,28,28]", "occupation INT32[-1,1], 15 categories" */
static void print_tensor(const char *title, const struct moed_client_tensor *tensor)
{
    char *name = printable(tensor->name);
    printf("  %-8s%s %s[", title, name, moed_client_datatype_name(tensor->datatype));
    for (size_t i = 0; i < tensor->rank; i++)
        printf("%s%lld", i ? "," : "", (long long)tensor->dims[i]);
    putchar(']');
    if (tensor->categories > 0)
        printf(", %zu %s", tensor->categories, tensor->categories == 1 ? "category" : "categories");
    putchar('\n');
    free(name);
}

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length >= tail && strcmp(text + length - tail, end) == 0;
}

/* "routing.moe.experts" says that there is a layer `moe`, and how many experts serve a row. */
static void print_output(const struct moed_client_tensor *tensor)
{
    if (strncmp(tensor->name, "routing.", 8) != 0) {
        print_tensor("output", tensor);
    } else if (ends_with(tensor->name + 8, ".experts") && tensor->rank > 0) {
        char *name = printable(tensor->name + 8);
        name[strlen(name) - strlen(".experts")] = '\0';
        const long long experts = (long long)tensor->dims[tensor->rank - 1];
        printf("  %-8s%s, %lld %s a row\n", "gate", name, experts,
               experts == 1 ? "expert serves" : "experts serve");
        free(name);
    }
}

/* "   language model, 512 tokens": what is asked with texts and not with rows. */
static void print_kind(json_t *entry)
{
    const bool generates = does(entry, "completion"), embeds = does(entry, "embedding");
    const long long tokens = (long long)json_integer_value(json_object_get(entry, "max_model_len"));
    if (!generates && !embeds)
        return;
    printf("   %s", generates ? "language model" : "embedder");
    if (tokens > 0)
        printf(", %lld token%s", tokens, ending((uint64_t)tokens));
    if (generates && !does(entry, "chat"))
        fputs(", no chat", stdout);
}

static void print_model(const struct moed_client_model *model, json_t *entry)
{
    char *name = printable(model->name);
    fputs(name, stdout);
    free(name);
    for (size_t i = 0; i < model->version_count; i++) {
        char *version = printable(model->versions[i]);
        printf("%s%s", i ? ", " : "  version ", version);
        free(version);
    }
    print_kind(entry);
    putchar('\n');
    for (size_t i = 0; i < model->input_count; i++)
        print_tensor("input", &model->inputs[i]);
    for (size_t i = 0; i < model->output_count; i++)
        print_output(&model->outputs[i]);
}

/* ---- what is printed of each model ---- */

static int show(struct moed_client *client, json_t *listing, const char *name,
                struct moed_client_error *err)
{
    const struct moed_client_model *model = moed_client_model(client, name, NULL, err);
    if (model)
        print_model(model, entry_of(listing, name));
    moed_client_model_free(model);
    return model ? 0 : -1;
}

static void show_name(const char *name)
{
    char *text = printable(name);
    puts(text);
    free(text);
}

/* The server's metadata of one model, with what the listing says of language models. */
static json_t *json_model(struct moed_client *client, json_t *listing, const char *name,
                          struct moed_client_error *err)
{
    static const char *const OF_LISTING[] = {"capabilities", "max_model_len"};
    char *text = moed_client_metadata(client, name, NULL, err);
    json_t *model = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    free(text);
    if (!json_is_object(model)) {
        fail_with(err, "the metadata of '%.100s' is no JSON object", name);
        json_decref(model);
        return NULL;
    }
    for (size_t i = 0; i < LENGTH(OF_LISTING); i++) {
        json_t *value = json_object_get(entry_of(listing, name), OF_LISTING[i]);
        if (value)
            json_object_set(model, OF_LISTING[i], value);
    }
    return model;
}

static int show_json(struct moed_client *client, json_t *listing, struct moed_client_error *err)
{
    json_t *list = json_array(), *entry;
    int result = 0;
    size_t i;
    json_array_foreach(json_object_get(listing, "models"), i, entry)
    {
        json_t *model = json_model(client, listing, json_string_value(entry), err);
        result = model ? json_array_append_new(list, model) : -1;
        if (result != 0)
            break;
    }
    if (result == 0)
        print_json(stdout, list, JSON_INDENT(2));
    json_decref(list);
    return result;
}

static int show_all(const struct settings *settings, struct moed_client *client, json_t *listing,
                    struct moed_client_error *err)
{
    if (settings->json)
        return show_json(client, listing, err);
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(listing, "models"), i, entry)
    {
        const char *name = json_string_value(entry);
        if (settings->names)
            show_name(name);
        else if (show(client, listing, name, err) != 0)
            return -1;
    }
    return 0;
}

int run_models(const struct settings *settings, struct moed_client_error *err)
{
    struct moed_client *client = connect_client(settings, err);
    json_t *listing = client ? fetch_listing(client, err) : NULL;
    int result = listing ? show_all(settings, client, listing, err) : -1;
    json_decref(listing);
    moed_client_free(client);
    return result;
}
