/* A short form of the routing document for a page that draws it every second: one share for each
 * expert, four digits of it, and the figures of the layer. */
#include <inttypes.h>
#include <stdlib.h>

#include "core/memory.h"
#include "proto/json.h"
#include "proto/routing.h"
#include "proto/routing_figures.h"

/* A share and its comma: "0.0001234,". */
enum { SHARE_BYTES = 12, LAYER_BYTES = 512 };

static void append_shares(const struct routing_layer *layer, struct buffer *body)
{
    const size_t experts = layer->counts->experts;
    double *shares = xcalloc(experts, sizeof *shares);
    if (routing_is_dense(layer))
        routing_weight_shares(layer->counts, shares);
    else
        routing_shares(layer->counts, shares);
    buffer_format(body, ",\"of\":\"%s\",\"share\":[",
                  routing_is_dense(layer) ? "weight" : "selections");
    for (size_t i = 0; i < experts; i++)
        buffer_format(body, i > 0 ? ",%.4g" : "%.4g", shares[i]);
    buffer_text(body, "]}");
    free(shares);
}

static void append_layer(const struct routing_layer *layer, struct buffer *body)
{
    const struct routing_figures figures = routing_figures_of(layer->counts);
    buffer_text(body, "{\"name\":");
    json_append_string(body, layer->name);
    buffer_format(body, ",\"rows\":%" PRIu64 ",\"top_k\":%zu,\"unused\":%zu", layer->counts->items,
                  layer->top_k, figures.unused);
    buffer_format(body, ",\"usage_entropy_bits\":%.4f,\"gate_entropy_bits\":%.4f,\"margin\":%.4f",
                  figures.usage_entropy_bits, figures.gate_entropy_bits, figures.margin);
    append_shares(layer, body);
}

void routing_write_live(const struct routing_document *document, size_t max_bytes,
                        struct buffer *body)
{
    size_t written = 0;
    buffer_text(body, "{\"model\":");
    json_append_string(body, document->model);
    buffer_text(body, ",\"version\":");
    json_append_string(body, document->version);
    buffer_format(body, ",\"window\":\"%s\",\"seconds\":%.3f,\"rows\":%" PRIu64 ",\"layers\":[",
                  document->window, document->seconds, document->rows);
    for (; written < document->layer_count; written++) {
        const struct routing_layer *layer = &document->layers[written];
        if (body->length + LAYER_BYTES + SHARE_BYTES * layer->counts->experts > max_bytes)
            break;
        buffer_text(body, written > 0 ? "," : "");
        append_layer(layer, body);
    }
    buffer_format(body, "],\"layers_left_out\":%zu}", document->layer_count - written);
}
