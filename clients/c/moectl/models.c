/* `moectl models`: what a server serves. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/run.h"

struct moed_client *connect_client(const struct settings *settings, struct moed_client_error *err)
{
    const struct moed_client_options options = {
        .timeout_seconds = settings->timeout,
        .token = settings->token,
        .ca_file = settings->ca,
        .tag = settings->tag,
        .uncounted = settings->uncounted,
    };
    return moed_client_new(settings->url, &options, err);
}

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

json_t *fetch_names(struct moed_client *client, struct moed_client_error *err)
{
    char *text = moed_client_models(client, err);
    json_t *root = text ? json_loads(text, JSON_REJECT_DUPLICATES, NULL) : NULL;
    json_t *names = json_object_get(root, "models");
    names = is_list_of_names(names) ? json_incref(names) : NULL;
    if (text && !names)
        fail_with(err, "/v1/models: expected {\"models\": [\"name\", ...]}, got %.100s", text);
    json_decref(root);
    free(text);
    return names;
}

/* ---- the table ---- */

/* "image FP32[-1,1,28,28]" */
static void print_tensor(const char *title, const struct moed_client_tensor *tensor)
{
    char *name = printable(tensor->name);
    printf("  %-8s%s %s[", title, name, moed_client_datatype_name(tensor->datatype));
    for (size_t i = 0; i < tensor->rank; i++)
        printf("%s%lld", i ? "," : "", (long long)tensor->dims[i]);
    fputs("]\n", stdout);
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

static void print_model(const struct moed_client_model *model)
{
    char *name = printable(model->name);
    fputs(name, stdout);
    free(name);
    for (size_t i = 0; i < model->version_count; i++) {
        char *version = printable(model->versions[i]);
        printf("%s%s", i ? ", " : "  version ", version);
        free(version);
    }
    putchar('\n');
    for (size_t i = 0; i < model->input_count; i++)
        print_tensor("input", &model->inputs[i]);
    for (size_t i = 0; i < model->output_count; i++)
        print_output(&model->outputs[i]);
}

/* ---- what is printed of each model ---- */

static int show(struct moed_client *client, const char *name, struct moed_client_error *err)
{
    const struct moed_client_model *model = moed_client_model(client, name, NULL, err);
    if (model)
        print_model(model);
    moed_client_model_free(model);
    return model ? 0 : -1;
}

static void show_name(const char *name)
{
    char *text = printable(name);
    puts(text);
    free(text);
}

/* The server's own metadata of every model, as one list. */
static int show_json(struct moed_client *client, json_t *names, struct moed_client_error *err)
{
    json_t *list = json_array(), *entry;
    int result = 0;
    size_t i;
    json_array_foreach(names, i, entry)
    {
        char path[1024];
        snprintf(path, sizeof path, "/v2/models/%.1000s", json_string_value(entry));
        struct moed_client_call call = {.method = "GET", .path = path};
        struct moed_client_answer answer;
        result = moed_client_exchange(client, &call, &answer, err);
        if (result != 0)
            break;
        json_array_append_new(list, json_loadb(answer.body, answer.length, 0, NULL));
        moed_client_answer_close(&answer);
    }
    if (result == 0)
        json_dumpf(list, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(list);
    return result;
}

static int show_all(const struct settings *settings, struct moed_client *client, json_t *names,
                    struct moed_client_error *err)
{
    if (settings->json)
        return show_json(client, names, err);
    size_t i;
    json_t *entry;
    json_array_foreach(names, i, entry)
    {
        const char *name = json_string_value(entry);
        if (settings->names)
            show_name(name);
        else if (show(client, name, err) != 0)
            return -1;
    }
    return 0;
}

int run_models(const struct settings *settings, struct moed_client_error *err)
{
    struct moed_client *client = connect_client(settings, err);
    json_t *names = client ? fetch_names(client, err) : NULL;
    int result = names ? show_all(settings, client, names, err) : -1;
    json_decref(names);
    moed_client_free(client);
    return result;
}
