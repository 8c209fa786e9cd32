/* Reads a routing document; see document.h. */
#include "clients/c/moectl/document.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/run.h"

enum { MAX_LAYERS = 1 << 16, MAX_EXPERTS = 1 << 20 };

/* Of routing documents (ROUTING_FORMAT of the server). */
enum { FORMAT = 1 };

/* ---- values ---- */

static double number_of(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* A count may be absent (0), but not negative and not a fraction. */
static int read_count(json_t *object, const char *key, uint64_t *count,
                      struct moed_client_error *err)
{
    json_t *value = json_object_get(object, key);
    json_int_t number = json_integer_value(value);
    *count = (uint64_t)number;
    if (value && (!json_is_integer(value) || number < 0))
        return fail_with(err, "'%s' is not a count", key);
    return 0;
}

static int read_needed_count(json_t *object, const char *key, uint64_t *count,
                             struct moed_client_error *err)
{
    if (!json_object_get(object, key))
        return fail_with(err, "there is no '%s'", key);
    return read_count(object, key, count, err);
}

static char *text_of(json_t *object, const char *key, const char *otherwise)
{
    const char *text = json_string_value(json_object_get(object, key));
    return printable(text ? text : otherwise);
}

/* ---- experts and layers ---- */

static int read_expert(json_t *json, struct expert *expert, struct moed_client_error *err)
{
    if (read_needed_count(json, "index", &expert->index, err) != 0 ||
        read_needed_count(json, "selected", &expert->selected, err) != 0 ||
        read_count(json, "top1", &expert->top1, err) != 0 ||
        read_count(json, "dropped", &expert->dropped, err) != 0)
        return -1;
    expert->weight = number_of(json, "weight");
    expert->weight_share = number_of(json, "weight_share");
    expert->probability = number_of(json, "probability");
    expert->reference_share = number_of(json, "reference_share");
    expert->idle_seconds = number_of(json, "idle_seconds");
    expert->labelled = number_of(json, "labelled");
    expert->accuracy = number_of(json, "accuracy");
    expert->log_loss = number_of(json, "log_loss");
    expert->ece = number_of(json, "ece");
    return 0;
}

static int read_experts(json_t *list, struct layer *layer, struct moed_client_error *err)
{
    size_t count = json_array_size(list);
    if (count == 0 || count > MAX_EXPERTS)
        return fail_with(err, "expected a list of 1 to %d 'experts'", MAX_EXPERTS);
    layer->experts = calloc(count, sizeof *layer->experts);
    if (!layer->experts)
        return fail_with(err, "no memory for %zu expert%s", count, ending(count));
    layer->expert_count = count;
    for (size_t i = 0; i < count; i++) {
        if (read_expert(json_array_get(list, i), &layer->experts[i], err) != 0) {
            char place[32];
            snprintf(place, sizeof place, "experts[%zu]", i);
            fail_in(err, place);
            return -1;
        }
    }
    return 0;
}

/* Pairs are counted since the load, and so are ranks; what a window has selected is less. */
static void read_chosen(json_t *json, struct layer *layer, bool windowed)
{
    json_t *ranks = json_object_get(json, "ranks"), *count;
    const bool ranked = json_array_size(ranks) == layer->expert_count;
    layer->routed = ranked ? 0 : windowed ? NAN : (double)layer->rows;
    for (size_t i = 0; i < layer->expert_count; i++) {
        struct expert *expert = &layer->experts[i];
        size_t rank;
        expert->chosen = ranked ? 0 : windowed ? NAN : (double)expert->selected;
        json_array_foreach(ranked ? json_array_get(ranks, i) : NULL, rank, count)
        {
            expert->chosen += json_number_value(count);
            layer->routed += rank == 0 ? json_number_value(count) : 0;
        }
    }
}

static struct expert *find_expert(const struct layer *layer, json_t *index)
{
    for (size_t i = 0; json_is_integer(index) && i < layer->expert_count; i++)
        if ((json_int_t)layer->experts[i].index == json_integer_value(index))
            return &layer->experts[i];
    return NULL;
}

/* Pairs of the busiest experts come with what is counted of those, and of no other. */
static void read_busiest(json_t *busiest, struct layer *layer)
{
    json_t *entry;
    size_t i;
    if (!json_is_object(busiest))
        return;
    layer->routed = number_of(busiest, "rows");
    for (i = 0; i < layer->expert_count; i++)
        layer->experts[i].chosen = NAN;
    json_array_foreach(json_object_get(busiest, "experts"), i, entry)
    {
        struct expert *expert = find_expert(layer, json_array_get(entry, 0));
        if (expert)
            expert->chosen = json_number_value(json_array_get(entry, 1));
    }
}

static int read_layer(json_t *json, struct layer *layer, bool windowed,
                      struct moed_client_error *err)
{
    uint64_t top_k = 0;
    layer->json = json;
    layer->name = text_of(json, "name", "");
    if (!*layer->name)
        return fail_with(err, "there is no 'name'");
    if (read_needed_count(json, "rows", &layer->rows, err) != 0 ||
        read_needed_count(json, "top_k", &top_k, err) != 0 ||
        read_count(json, "dropped", &layer->dropped, err) != 0 ||
        read_count(json, "overflowed", &layer->overflowed, err) != 0 ||
        read_experts(json_object_get(json, "experts"), layer, err) != 0)
        return -1;
    if (top_k < 1 || top_k > MAX_EXPERTS)
        return fail_with(err, "'top_k' is not a number of experts");
    layer->top_k = top_k;
    layer->usage_entropy_bits = number_of(json, "usage_entropy_bits");
    layer->gate_entropy_bits = number_of(json, "gate_entropy_bits");
    layer->margin = number_of(json, "margin");
    read_chosen(json, layer, windowed);
    read_busiest(json_object_get(json, "pairs_of"), layer);
    layer_derive(layer);
    return 0;
}

static int read_layers(struct document *document, struct moed_client_error *err)
{
    json_t *list = json_object_get(document->json, "layers");
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > MAX_LAYERS)
        return fail_with(err, "not a routing document: there is no list of 'layers'");
    const bool windowed = strcmp(document->window, "all") != 0;
    document->layers = xcalloc(count, sizeof *document->layers);
    document->layer_count = count;
    for (size_t i = 0; i < count; i++) {
        if (read_layer(json_array_get(list, i), &document->layers[i], windowed, err) != 0) {
            char place[32];
            snprintf(place, sizeof place, "layers[%zu]", i);
            fail_in(err, place);
            return -1;
        }
    }
    return 0;
}

/* ---- documents ---- */

/* What a later format means is not known. Documents of servers before the first have none. */
static int check_format(json_t *json, struct moed_client_error *err)
{
    json_t *format = json_object_get(json, "format");
    if (!format || (json_is_integer(format) && json_integer_value(format) == FORMAT))
        return 0;
    return fail_with(err, "'format' is %lld, and this moectl reads %d: take that of the server",
                     (long long)json_integer_value(format), FORMAT);
}

struct document *document_read(const char *text, size_t length, const char *name,
                               struct moed_client_error *err)
{
    json_error_t at;
    struct document *document = xcalloc(1, sizeof *document);
    document->json = json_loadb(text, length, JSON_REJECT_DUPLICATES, &at);
    int result = 0;
    if (!document->json)
        result = fail_with(err, "line %d, column %d: %s", at.line, at.column, at.text);
    else {
        document->model = text_of(document->json, "model", "");
        document->version = text_of(document->json, "version", "");
        document->window = text_of(document->json, "window", "all");
        document->seconds = number_of(document->json, "seconds");
        result = check_format(document->json, err);
        if (result == 0)
            result = read_layers(document, err);
    }
    if (result == 0)
        return document;
    fail_in(err, name);
    document_free(document);
    return NULL;
}

struct document *document_read_file(const char *path, struct moed_client_error *err)
{
    size_t length;
    char *text = read_file(path, DOCUMENT_MAX_BYTES, &length, err);
    struct document *document = text ? document_read(text, length, path, err) : NULL;
    free(text);
    return document;
}

static void layer_close(struct layer *layer)
{
    free(layer->name);
    free(layer->experts);
}

void document_free(struct document *document)
{
    if (!document)
        return;
    for (size_t i = 0; i < document->layer_count; i++)
        layer_close(&document->layers[i]);
    free(document->layers);
    free(document->model);
    free(document->version);
    free(document->window);
    json_decref(document->json);
    free(document);
}

/* ---- where documents come from ---- */

/* A server that does not know a question answers another one: that must not pass for an answer. */
static int check_answered(const struct document *document, const struct settings *settings,
                          struct moed_client_error *err)
{
    const char *window = settings->window;
    bool named = json_object_get(document->json, "window") != NULL;
    if (named ? window && strcmp(window, document->window) != 0
              : settings->tag || (window && strcmp(window, "all") != 0))
        return fail_with(err, "the server knows no %s: it answered for all traffic since the start",
                         settings->tag ? "tags" : "windows");
    return 0;
}

struct document *document_of_model(const struct settings *settings, struct moed_client *client,
                                   const char *model, const char *include,
                                   struct moed_client_error *err)
{
    const struct moed_client_routing_query query = {settings->window, settings->layer,
                                                    settings->tag, include};
    char *text = moed_client_routing(client, model, settings->version, &query, err);
    struct document *document = text ? document_read(text, strlen(text), model, err) : NULL;
    free(text);
    if (document && check_answered(document, settings, err) != 0) {
        document_free(document);
        return NULL;
    }
    return document;
}

static struct document *ask(const struct settings *settings, const char *include,
                            struct moed_client_error *err)
{
    struct moed_client *client = connect_client(settings, err);
    struct document *document =
        client ? document_of_model(settings, client, settings->operands[0], include, err) : NULL;
    moed_client_free(client);
    return document;
}

int document_check_source(const struct settings *settings, struct moed_client_error *err)
{
    if (!settings->from && settings->operand_count == 0)
        return fail_with(err, "expected a MODEL, or --from FILE");
    if (settings->from && settings->operand_count > 0)
        return fail_with(err, "a MODEL and --from FILE: expected one of them");
    return 0;
}

struct document *document_fetch(const struct settings *settings, const char *include,
                                struct moed_client_error *err)
{
    struct document *document =
        settings->from ? document_read_file(settings->from, err) : ask(settings, include, err);
    if (document && document_keep_layer(document, settings->layer, err) != 0) {
        document_free(document);
        return NULL;
    }
    return document;
}

int document_keep_layer(struct document *document, const char *name, struct moed_client_error *err)
{
    char known[256] = "";
    if (!name)
        return 0;
    for (size_t i = 0; i < document->layer_count; i++) {
        if (strcmp(document->layers[i].name, name) == 0) {
            struct layer kept = document->layers[i];
            document->layers[i] = document->layers[0];
            document->layers[0] = kept;
            while (document->layer_count > 1)
                layer_close(&document->layers[--document->layer_count]);
            return 0;
        }
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, " '%s'", document->layers[i].name);
    }
    return fail_with(err, "model '%.100s' has no MoE layer '%.100s'; there are%s", document->model,
                     name, *known ? known : " none");
}
