/* Routing statistics: formulas and document; see routing.h. */
#include "proto/routing.h"

#include <inttypes.h>
#include <math.h>

#include "proto/json.h"

/* -p log2 p, with its limit at 0. */
static double surprise(double p)
{
    return p > 0 ? -p * log2(p) : 0;
}

struct routing_summary routing_summarize(const struct routing_totals *totals)
{
    struct routing_summary summary = {0};
    uint64_t selections = 0, most = 0;
    for (size_t i = 0; i < totals->experts; i++) {
        selections += totals->selected[i];
        most = totals->selected[i] > most ? totals->selected[i] : most;
        summary.unused += totals->selected[i] == 0;
    }
    if (totals->rows == 0)
        return summary;
    double rows = (double)totals->rows;
    for (size_t i = 0; i < totals->experts; i++)
        summary.usage_entropy_bits += surprise(totals->probability_sum[i] / rows);
    summary.gate_entropy_bits = totals->entropy_sum / rows;
    if (selections > 0)
        summary.imbalance = (double)most * (double)totals->experts / (double)selections;
    return summary;
}

size_t routing_expert_index(const struct routing_totals *totals, size_t i)
{
    return totals->expert_index ? (size_t)totals->expert_index[i] : i;
}

static void append_expert(const struct routing_totals *layer, size_t i, struct buffer *body)
{
    double selections = (double)layer->rows * (double)layer->top_k;
    double share = selections > 0 ? (double)layer->selected[i] / selections : 0;
    buffer_format(body, "{\"index\":%zu,\"selected\":%" PRIu64 ",\"share\":",
                  routing_expert_index(layer, i), layer->selected[i]);
    json_append_double(body, share);
    buffer_text(body, ",\"weight\":");
    json_append_double(body, layer->weight_sum[i]);
    buffer_format(body, ",\"top1\":%" PRIu64 "}", layer->top1[i]);
}

static void append_layer(const struct routing_totals *layer, struct buffer *body)
{
    struct routing_summary summary = routing_summarize(layer);
    buffer_text(body, "{\"name\":");
    json_append_string(body, layer->layer);
    buffer_format(body, ",\"rows\":%" PRIu64 ",\"top_k\":%zu,\"experts\":[", layer->rows,
                  layer->top_k);
    for (size_t i = 0; i < layer->experts; i++) {
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
        buffer_format(body, ",\"dropped\":%" PRIu64, layer->dropped);
    buffer_text(body, "}");
}

void routing_document(const char *model, const char *version, const struct routing_totals *layers,
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
