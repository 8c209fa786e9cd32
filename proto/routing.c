/* Writes the document member by member; routing_figures.c has the formulas. */
#include "proto/routing.h"

#include <inttypes.h>
#include <stdlib.h>

#include "core/memory.h"
#include "proto/json.h"
#include "proto/routing_figures.h"
#include "proto/routing_include.h"

static void append_number(struct buffer *body, const char *key, double value)
{
    buffer_format(body, ",\"%s\":", key);
    json_append_double(body, value);
}

/* ---- an expert ---- */

static void append_idle(struct buffer *body, uint64_t last, uint64_t now)
{
    if (last == 0)
        buffer_text(body, ",\"idle_seconds\":null");
    else
        append_number(body, "idle_seconds", now > last ? (double)(now - last) / 1e9 : 0);
}

static void append_quality(const struct routing_quality *quality, struct buffer *body)
{
    const struct quality_figures figures = routing_quality_figures(quality);
    buffer_format(body, ",\"labelled\":%" PRIu64, figures.labelled);
    if (figures.labelled == 0) {
        buffer_text(body, ",\"accuracy\":null,\"log_loss\":null,\"ece\":null");
        return;
    }
    append_number(body, "accuracy", figures.accuracy);
    append_number(body, "log_loss", figures.log_loss);
    append_number(body, "ece", figures.ece);
}

static void append_expert(const struct routing_layer *layer, size_t i, double weight_share,
                          uint64_t now, struct buffer *body)
{
    const struct moed_expert_counts *expert = &layer->counts->expert[i];
    double selections = (double)layer->counts->items * (double)layer->top_k;
    buffer_format(body, "{\"index\":%zu,\"selected\":%" PRIu64,
                  routing_expert_index(layer->expert_index, i), expert->selected);
    append_number(body, "share", selections > 0 ? (double)expert->selected / selections : 0);
    append_number(body, "weight", moed_sum_value(expert->weight));
    append_number(body, "weight_share", weight_share);
    if (layer->reference.items > 0)
        append_number(body, "reference_share", layer->reference.share[i]);
    append_number(body, "probability", moed_sum_value(expert->probability));
    buffer_format(body, ",\"top1\":%" PRIu64, expert->top1);
    append_number(body, "compute_seconds", moed_sum_value(expert->seconds));
    if (layer->limited)
        buffer_format(body, ",\"dropped\":%" PRIu64, expert->dropped);
    append_idle(body, expert->last, now);
    if (layer->quality)
        append_quality(&layer->quality[i], body);
    buffer_text(body, "}");
}

static void append_experts(const struct routing_layer *layer, uint64_t now, struct buffer *body)
{
    const size_t experts = layer->counts->experts;
    double *weight_shares = xcalloc(experts, sizeof *weight_shares);
    routing_weight_shares(layer->counts, weight_shares);
    buffer_text(body, ",\"experts\":[");
    for (size_t i = 0; i < experts; i++) {
        buffer_text(body, i > 0 ? "," : "");
        append_expert(layer, i, weight_shares[i], now, body);
    }
    buffer_text(body, "]");
    free(weight_shares);
}

/* ---- a layer ---- */

static void append_figures(const struct routing_figures *figures, struct buffer *body)
{
    append_number(body, "usage_entropy_bits", figures->usage_entropy_bits);
    append_number(body, "gate_entropy_bits", figures->gate_entropy_bits);
    append_number(body, "margin", figures->margin);
    append_number(body, "imbalance", figures->imbalance);
    append_number(body, "weight_imbalance", figures->weight_imbalance);
    append_number(body, "balancedness", figures->balancedness);
    append_number(body, "cv", figures->cv);
    append_number(body, "jain", figures->jain);
    append_number(body, "effective_experts", figures->effective_experts);
    buffer_format(body, ",\"unused\":%zu", figures->unused);
}

static void append_dying(const struct routing_layer *layer, struct buffer *body)
{
    const char *separator = "";
    buffer_text(body, ",\"dying\":[");
    for (size_t i = 0; i < layer->counts->experts; i++) {
        if ((layer->quarantined && layer->quarantined[i]) ||
            !routing_is_dying(layer->earlier, layer->recent, routing_is_dense(layer), i))
            continue;
        buffer_format(body, "%s%zu", separator, routing_expert_index(layer->expert_index, i));
        separator = ",";
    }
    buffer_text(body, "]");
}

static void append_drift(const char *key, const struct routing_sample *sample,
                         const struct routing_sample *other, size_t experts, struct buffer *body)
{
    struct routing_drift drift;
    buffer_format(body, "\"%s\":", key);
    if (!routing_drift_of(experts, sample, other, &drift)) {
        buffer_text(body, "null");
        return;
    }
    buffer_text(body, "{\"js_bits\":");
    json_append_double(body, drift.js_bits);
    append_number(body, "psi", drift.psi);
    if (drift.tested)
        append_number(body, "p_value", drift.p_value);
    else
        buffer_text(body, ",\"p_value\":null");
    buffer_text(body, "}");
}

static void append_drifts(const struct routing_layer *layer, struct buffer *body)
{
    const size_t experts = layer->counts->experts;
    const bool dense = routing_is_dense(layer);
    double *shares = xcalloc(2 * experts, sizeof *shares);
    const struct routing_sample now = routing_sample_of(layer->counts, dense, shares);
    const struct routing_sample before = routing_sample_of(layer->before, dense, shares + experts);
    buffer_text(body, ",\"drift\":{");
    append_drift("reference", &now, &layer->reference, experts, body);
    buffer_text(body, ",");
    append_drift("previous", &now, &before, experts, body);
    buffer_text(body, "}");
    free(shares);
}

static void append_layer(const struct routing_document *document, const struct routing_layer *layer,
                         struct buffer *body)
{
    const struct routing_figures figures = routing_figures_of(layer->counts);
    buffer_text(body, "{\"name\":");
    json_append_string(body, layer->name);
    buffer_format(
        body,
        ",\"rows\":%" PRIu64 ",\"intervened\":%" PRIu64 ",\"overflowed\":%" PRIu64 ",\"top_k\":%zu",
        layer->counts->items, layer->counts->intervened, layer->counts->overflowed, layer->top_k);
    append_experts(layer, document->now, body);
    append_figures(&figures, body);
    append_dying(layer, body);
    append_drifts(layer, body);
    if (layer->limited)
        buffer_format(body, ",\"dropped\":%" PRIu64, routing_dropped(layer->counts));
    buffer_format(body, ",\"quarantine\":%s", layer->quarantine ? layer->quarantine : "[]");
    routing_include_append(document, layer, body);
    buffer_text(body, "}");
}

void routing_write(const struct routing_document *document, struct buffer *body)
{
    buffer_format(body, "{\"format\":%d,\"model\":", ROUTING_FORMAT);
    json_append_string(body, document->model);
    buffer_text(body, ",\"version\":");
    json_append_string(body, document->version);
    buffer_text(body, ",\"window\":");
    json_append_string(body, document->window);
    append_number(body, "seconds", document->seconds);
    buffer_format(body, ",\"rows\":%" PRIu64 ",\"tags\":[", document->rows);
    for (size_t i = 0; i < document->tag_count; i++) {
        buffer_text(body, i > 0 ? "," : "");
        json_append_string(body, document->tags[i]);
    }
    buffer_text(body, "],\"layers\":[");
    for (size_t i = 0; i < document->layer_count; i++) {
        buffer_text(body, i > 0 ? "," : "");
        append_layer(document, &document->layers[i], body);
    }
    buffer_text(body, "]");
    routing_include_append_memory(document, body);
    buffer_text(body, "}");
}
