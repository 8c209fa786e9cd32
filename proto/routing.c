/* Every derived figure is computed from counts when it is read; nothing derived is stored. */
#include "proto/routing.h"

#include <inttypes.h>
#include <math.h>

#include "proto/json.h"

/* -p log2 p, with its limit at 0. */
static double surprise(double p)
{
    return p > 0 ? -p * log2(p) : 0;
}

struct routing_summary routing_summarize(const struct routing_layer *layer)
{
    const struct moed_gate_counts *counts = layer->counts;
    struct routing_summary summary = {0};
    uint64_t selections = 0, most = 0;
    for (size_t i = 0; i < counts->experts; i++) {
        uint64_t selected = counts->expert[i].selected;
        selections += selected;
        most = selected > most ? selected : most;
        summary.unused += selected == 0;
    }
    if (counts->items == 0)
        return summary;
    double rows = (double)counts->items;
    for (size_t i = 0; i < counts->experts; i++)
        summary.usage_entropy_bits += surprise(counts->expert[i].probability / rows);
    summary.gate_entropy_bits = counts->entropy / rows;
    if (selections > 0)
        summary.imbalance = (double)most * (double)counts->experts / (double)selections;
    return summary;
}

size_t routing_expert_index(const struct routing_layer *layer, size_t i)
{
    return layer->expert_index ? (size_t)layer->expert_index[i] : i;
}

static void append_expert(const struct routing_layer *layer, size_t i, struct buffer *body)
{
    const struct moed_expert_counts *expert = &layer->counts->expert[i];
    double selections = (double)layer->counts->items * (double)layer->top_k;
    double share = selections > 0 ? (double)expert->selected / selections : 0;
    buffer_format(body, "{\"index\":%zu,\"selected\":%" PRIu64 ",\"share\":",
                  routing_expert_index(layer, i), expert->selected);
    json_append_double(body, share);
    buffer_text(body, ",\"weight\":");
    json_append_double(body, expert->weight);
    buffer_format(body, ",\"top1\":%" PRIu64 "}", expert->top1);
}

static void append_layer(const struct routing_layer *layer, struct buffer *body)
{
    struct routing_summary summary = routing_summarize(layer);
    buffer_text(body, "{\"name\":");
    json_append_string(body, layer->name);
    buffer_format(body, ",\"rows\":%" PRIu64 ",\"top_k\":%zu,\"experts\":[", layer->counts->items,
                  layer->top_k);
    for (size_t i = 0; i < layer->counts->experts; i++) {
        if (i > 0)
            buffer_text(body, ",");
        append_expert(layer, i, body);
    }
    buffer_text(body, "],\"usage_entropy_bits\":");
    json_append_double(body, summary.usage_entropy_bits);
    buffer_text(body, ",\"gate_entropy_bits\":");
    json_append_double(body, summary.gate_entropy_bits);
    buffer_text(body, ",\"imbalance\":");
    json_append_double(body, summary.imbalance);
    buffer_format(body, ",\"unused\":%zu", summary.unused);
    if (layer->limited)
        buffer_format(body, ",\"dropped\":%" PRIu64, layer->counts->dropped);
    buffer_text(body, "}");
}

void routing_document(const char *model, const char *version, const struct routing_layer *layers,
                      size_t layer_count, struct buffer *body)
{
    buffer_text(body, "{\"model\":");
    json_append_string(body, model);
    buffer_text(body, ",\"version\":");
    json_append_string(body, version);
    buffer_text(body, ",\"layers\":[");
    for (size_t i = 0; i < layer_count; i++) {
        if (i > 0)
            buffer_text(body, ",");
        append_layer(&layers[i], body);
    }
    buffer_text(body, "]}");
}
