/* GET .../routing: what was counted in the window that the query asks for. */
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/routing.h"
#include "proto/routing_include.h"
#include "server/background.h"
#include "server/routes/describe.h"
#include "server/routes/live.h"
#include "server/statistics/state.h"

/* Names of layers are at most two names and a dot. */
enum { WINDOW_BYTES = 16, LAYER_BYTES = 256, INCLUDE_BYTES = 256 };

/* What the query asks for. */
struct query {
    enum window window;
    int tag;
    size_t first, end; /* of the gates */
    unsigned include;
};

int describe_read_window(const struct exchange *exchange, enum window *window, struct error *err)
{
    char text[WINDOW_BYTES];
    int given = exchange_query(exchange, "window", text, sizeof text, err);
    if (given <= 0)
        return given;
    int found = window_find(text);
    if (found < 0)
        return error_set(err, ERROR_INVALID, "window is '%s', expected 1m, 5m, 1h or all", text);
    *window = (enum window)found;
    return 0;
}

static int read_layer(const struct exchange *exchange, const struct moed_model_info *info,
                      struct query *query, struct error *err)
{
    char text[LAYER_BYTES];
    int given = exchange_query(exchange, "layer", text, sizeof text, err);
    query->first = 0;
    query->end = info->gate_count;
    if (given <= 0)
        return given;
    for (size_t i = 0; i < info->gate_count; i++)
        if (strcmp(info->gates[i].name, text) == 0) {
            query->first = i;
            query->end = i + 1;
            return 0;
        }
    return error_set(err, ERROR_INVALID, "layer is '%.64s', and no gate of the model is called so",
                     text);
}

static int read_tag(const struct exchange *exchange, struct model_stats *stats, struct query *query,
                    struct error *err)
{
    char text[NAME_MAX_BYTES + 1];
    int given = exchange_query(exchange, "tag", text, sizeof text, err);
    query->tag = STATS_ALL_TAGS;
    if (given <= 0)
        return given;
    query->tag = tags_find(&stats->tags, text);
    return query->tag < 0 ? error_set(err, ERROR_INVALID,
                                      "tag is '%s', and no request with it was counted", text)
                          : 0;
}

static int read_include(const struct exchange *exchange, struct query *query, struct error *err)
{
    char text[INCLUDE_BYTES] = "";
    if (exchange_query(exchange, "include", text, sizeof text, err) < 0)
        return -1;
    return routing_include_read(text, &query->include, err);
}

static struct routing_layer layer_of(const struct model *model, const struct stats_window *counted,
                                     size_t index)
{
    const struct moed_gate_info *gate = &model->info->gates[index];
    const struct moed_tensor_info *output =
        model->class_output < 0 ? NULL : &model->info->outputs[model->class_output];
    return (struct routing_layer){
        .name = gate->name,
        .class_labels = output && output->label_count > 0 ? output->labels : NULL,
        .top_k = gate->top_k,
        .expert_index = gate->expert_index,
        .limited = gate->limited,
        .counts = counted->tally->gates[index],
        .quality = counted->tally->labelled > 0 ? counted->tally->quality[index] : NULL,
        .recent = counted->recent->gates[index],
        .earlier = counted->earlier->gates[index],
        .before = counted->before->gates[index],
        .reference = model->references[index],
        .expert_bytes = gate->expert_bytes};
}

/* The details of the layers that are asked for; NULL when none are included. */
static struct routing_detail *details_of(const struct model *model, const struct query *query)
{
    if (!query->include)
        return NULL;
    struct routing_detail *details = xcalloc(model->info->gate_count, sizeof *details);
    for (size_t i = query->first; i < query->end; i++) {
        const struct moed_gate_info *gate = &model->info->gates[i];
        routing_detail_init(&details[i], gate->experts, gate->top_k, model_classes(model),
                            model->info->gate_count);
        model_stats_detail(model->stats, i, &details[i]);
        routing_detail_fill(&details[i]);
    }
    return details;
}

/* What a phase's tokens chose in the layers that are asked for; NULL: as above, or not a model of
 * sequences. */
static struct routing_detail *phase_of(const struct model *model, const struct query *query,
                                       enum phase phase)
{
    if (!query->include || !model_has_sequences(model))
        return NULL;
    struct routing_detail *details = xcalloc(model->info->gate_count, sizeof *details);
    for (size_t i = query->first; i < query->end; i++) {
        const struct moed_gate_info *gate = &model->info->gates[i];
        routing_detail_init_steps(&details[i], gate->experts, gate->top_k);
        model_stats_phase(model->stats, phase, i, &details[i]);
        routing_detail_fill(&details[i]);
    }
    return details;
}

static void free_details(struct routing_detail *details, const struct query *query)
{
    for (size_t i = query->first; details && i < query->end; i++)
        routing_detail_close(&details[i]);
    free(details);
}

/* The tags that were seen. Returns how many. */
static size_t list_tags(struct model_stats *stats, const char **tags)
{
    size_t count = 0;
    for (size_t i = TAG_FIRST; i < tags_end(&stats->tags); i++) {
        const char *name = tags_name(&stats->tags, i);
        if (name && model_stats_rows(stats, i, true) > 0)
            tags[count++] = name;
    }
    return count;
}

/* The caller frees it. NULL: none of the gate's experts is in quarantine, as always before the
 * first. */
static char *quarantine_of(const struct model *model, size_t gate)
{
    if (!model->quarantine || atomic_load(&model->quarantine->change) == 0)
        return NULL;
    return quarantine_text(model->quarantine, model, gate);
}

static void free_layers(struct routing_layer *layers, const struct query *query)
{
    for (size_t i = query->first; i < query->end; i++) {
        free((char *)layers[i].quarantine);
        free((bool *)layers[i].quarantined);
    }
    free(layers);
}

static void write_document(const struct model *model, const struct query *query,
                           struct buffer *body)
{
    struct routing_layer *layers = xcalloc(model->info->gate_count, sizeof *layers);
    const char **tags = xcalloc(tags_end(&model->stats->tags), sizeof *tags);
    struct stats_window counted;
    stats_window_init(&counted, model->stats, query->window, query->tag, true, stats_now());
    struct routing_detail *details = details_of(model, query);
    struct routing_detail *prompt = phase_of(model, query, PHASE_PROMPT);
    struct routing_detail *generated = phase_of(model, query, PHASE_GENERATED);
    for (size_t i = query->first; i < query->end; i++) {
        layers[i] = layer_of(model, &counted, i);
        layers[i].detail = details ? &details[i] : NULL;
        layers[i].prompt = prompt ? &prompt[i] : NULL;
        layers[i].generated = generated ? &generated[i] : NULL;
        layers[i].quarantine = quarantine_of(model, i);
        layers[i].quarantined = quarantine_marks(model->quarantine, model, i);
    }
    const struct routing_document document = {.model = model->name,
                                              .version = model->version,
                                              .window = window_name(query->window),
                                              .seconds = counted.seconds,
                                              .rows = counted.tally->rows,
                                              .now = counted.now,
                                              .tags = tags,
                                              .tag_count = list_tags(model->stats, tags),
                                              .layers = layers + query->first,
                                              .layer_count = query->end - query->first,
                                              .include = query->include,
                                              .shared_bytes = model->info->shared_bytes};
    routing_write(&document, body);
    stats_window_close(&counted);
    free_details(details, query);
    free_details(prompt, query);
    free_details(generated, query);
    free_layers(layers, query);
    free(tags);
}

/* ---- answers ---- */

static int make_document(const struct exchange *exchange, void *context, struct buffer *body,
                         struct error *err)
{
    (void)err;
    write_document(exchange->model, context, body);
    return 0;
}

void describe_routing(const struct api *api, struct exchange *exchange, const struct target *target)
{
    static const char *const NAMES[] = {"window", "layer", "tag", "include", NULL};
    struct error err = ERROR_INIT;
    struct query query = {.window = WINDOW_ALL};
    struct buffer body;
    if (exchange_query_names(exchange, NAMES, &err) != 0 ||
        describe_read_window(exchange, &query.window, &err) != 0 ||
        read_include(exchange, &query, &err) != 0 ||
        read_tag(exchange, target->model->stats, &query, &err) != 0 ||
        read_layer(exchange, target->model->info, &query, &err) != 0) {
        exchange_reply_error(exchange, &err);
        return;
    }
    if (routing_include_takes_long(query.include)) {
        struct query *copy = xcalloc(1, sizeof *copy);
        *copy = query;
        background_answer(api->live->loop, exchange, make_document, copy, free);
        return;
    }
    describe_new(&body);
    write_document(target->model, &query, &body);
    describe_reply(exchange, 200, NULL, &body);
}

/* Whether the query is empty; else the exchange is answered. */
static bool takes_no_query(struct exchange *exchange)
{
    static const char *const NONE[] = {NULL};
    struct error err = ERROR_INIT;
    if (exchange_query_names(exchange, NONE, &err) == 0)
        return true;
    exchange_reply_error(exchange, &err);
    return false;
}

void describe_routing_reset(const struct api *api, struct exchange *exchange,
                            const struct target *target)
{
    struct buffer body;
    (void)api;
    if (!takes_no_query(exchange))
        return;
    model_stats_reset(target->model->stats, stats_now());
    describe_new(&body);
    buffer_text(&body, "{\"reset\":true}");
    describe_reply(exchange, 200, NULL, &body);
}

static int make_snapshot(const struct exchange *exchange, void *context, struct buffer *body,
                         struct error *err)
{
    const struct query everything = {.window = WINDOW_ALL,
                                     .tag = STATS_ALL_TAGS,
                                     .end = exchange->model->info->gate_count,
                                     .include = ROUTING_INCLUDE_ALL};
    if (state_save(context, exchange->model, err) != 0) {
        error_prefix(err, "the snapshot was not written");
        return -1;
    }
    write_document(exchange->model, &everything, body);
    return 0;
}

void describe_routing_snapshot(const struct api *api, struct exchange *exchange,
                               const struct target *target)
{
    (void)target;
    if (!takes_no_query(exchange))
        return;
    background_answer(api->live->loop, exchange, make_snapshot, api->state, NULL);
}
