/* Which experts each token went to, per layer: as nested lists, or as two arrays in base64. */
#include "proto/base64.h"
#include "proto/json.h"
#include "proto/openai_parts.h"

/* ---- lists ---- */

static void append_rows(const struct openai_routing_layer *layer, size_t tokens, bool experts,
                        struct buffer *body)
{
    buffer_text(body, experts ? ",\"experts\":[" : ",\"weights\":[");
    for (size_t i = 0; i < tokens; i++) {
        buffer_text(body, i == 0 ? "[" : ",[");
        if (experts)
            json_append_integers(body, layer->experts + i * layer->top_k, layer->top_k);
        else
            json_append_floats(body, layer->weights + i * layer->top_k, layer->top_k);
        buffer_text(body, "]");
    }
    buffer_text(body, "]");
}

/* ---- base64 ---- */

static size_t widest(const struct openai_routing *routing)
{
    size_t top_k = 0;
    for (size_t i = 0; i < routing->layer_count; i++)
        if (routing->layers[i].top_k > top_k)
            top_k = routing->layers[i].top_k;
    return top_k;
}

/* Appends [tokens, layers, k] of experts or of weights. */
static void append_packed(const struct openai_routing *routing, bool experts, struct buffer *packed)
{
    static const int32_t NO_EXPERT = -1;
    static const float NO_WEIGHT = 0;
    size_t top_k = widest(routing);
    for (size_t token = 0; token < routing->tokens; token++) {
        for (size_t i = 0; i < routing->layer_count; i++) {
            const struct openai_routing_layer *layer = &routing->layers[i];
            size_t at = token * layer->top_k;
            buffer_append(packed,
                          experts ? (const void *)(layer->experts + at)
                                  : (const void *)(layer->weights + at),
                          layer->top_k * sizeof(float));
            for (size_t k = layer->top_k; k < top_k; k++)
                buffer_append(packed, experts ? (const void *)&NO_EXPERT : (const void *)&NO_WEIGHT,
                              sizeof(float));
        }
    }
}

static void append_array(const struct openai_routing *routing, bool experts, struct buffer *body)
{
    struct buffer packed;
    buffer_init(&packed, body->limit);
    append_packed(routing, experts, &packed);
    buffer_text(body, experts ? ",\"experts\":\"" : ",\"weights\":\"");
    base64_append(body, packed.data, packed.length);
    buffer_text(body, "\"");
    body->failed = body->failed || packed.failed;
    body->no_memory = body->no_memory || packed.no_memory;
    buffer_close(&packed);
}

/* ---- both ---- */

void openai_write_routing(const struct openai_routing *routing, struct buffer *body)
{
    bool packed = routing->form == OPENAI_ROUTING_BASE64;
    buffer_text(body, "{\"layers\":[");
    for (size_t i = 0; i < routing->layer_count; i++) {
        const struct openai_routing_layer *layer = &routing->layers[i];
        buffer_text(body, i == 0 ? "{\"name\":" : ",{\"name\":");
        json_append_string(body, layer->name);
        if (!packed) {
            append_rows(layer, routing->tokens, true, body);
            append_rows(layer, routing->tokens, false, body);
        }
        buffer_text(body, "}");
    }
    buffer_text(body, "]");
    if (packed) {
        buffer_format(body, ",\"shape\":[%zu,%zu,%zu]", routing->tokens, routing->layer_count,
                      widest(routing));
        append_array(routing, true, body);
        append_array(routing, false, body);
    }
    buffer_text(body, "}");
}
