/* `moectl models`: what a server serves. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/listing.h"
#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/run.h"

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
    const bool generates = listing_does(entry, "completion"),
               embeds = listing_does(entry, "embedding");
    const long long tokens = (long long)json_integer_value(json_object_get(entry, "max_model_len"));
    if (!generates && !embeds)
        return;
    printf("   %s", generates ? "language model" : "embedder");
    if (tokens > 0)
        printf(", %lld token%s", tokens, ending((uint64_t)tokens));
    if (generates && !listing_does(entry, "chat"))
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
        print_model(model, listing_entry(listing, name));
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
        json_t *value = json_object_get(listing_entry(listing, name), OF_LISTING[i]);
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
