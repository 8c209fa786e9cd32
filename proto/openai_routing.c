/* Which experts each token went to, per layer: as nested lists, or as arrays in base64. */
#include <stdio.h>
#include <string.h>

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

/* The header of numpy's format 1.0: its length makes the numbers begin at a multiple of 64. */
static void append_npy_header(const struct openai_routing *routing, struct buffer *packed)
{
    enum { HEADER_BYTES = 128, TEXT_BYTES = HEADER_BYTES - 10 };
    char text[TEXT_BYTES + 1];
    const int used = snprintf(
        text, sizeof text, "{'descr': '<i4', 'fortran_order': False, 'shape': (%zu, %zu, %zu), }",
        routing->tokens, routing->layer_count, widest(routing));
    memset(text + used, ' ', (size_t)(TEXT_BYTES - used));
    text[TEXT_BYTES - 1] = '\n';
    buffer_append(packed, "\x93NUMPY\1\0", 8);
    buffer_append(packed, (const unsigned char[]){TEXT_BYTES, 0}, 2);
    buffer_append(packed, text, TEXT_BYTES);
}

static void append_array(const struct openai_routing *routing, const char *before, bool experts,
                         struct buffer *body)
{
    struct buffer packed;
    buffer_init(&packed, body->limit);
    if (routing->form == OPENAI_ROUTING_NPY)
        append_npy_header(routing, &packed);
    append_packed(routing, experts, &packed);
    buffer_text(body, before);
    base64_append(body, packed.data, packed.length);
    buffer_text(body, "\"");
    buffer_fail_with(body, &packed);
    buffer_close(&packed);
}

/* ---- all forms ---- */

static void append_layers(const struct openai_routing *routing, bool packed, struct buffer *body)
{
    buffer_text(body, ",\"routing\":{\"layers\":[");
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
        append_array(routing, ",\"experts\":\"", true, body);
        append_array(routing, ",\"weights\":\"", false, body);
    }
    buffer_text(body, "}");
}

void openai_write_routing(const struct openai_routing *routing, struct buffer *body)
{
    switch (routing->form) {
    case OPENAI_ROUTING_NPY:
        append_array(routing, ",\"routed_experts\":\"", true, body);
        break;
    case OPENAI_ROUTING_SGLANG:
        append_array(routing, ",\"sgl_ext\":{\"routed_experts\":\"", true, body);
        buffer_text(body, "}");
        break;
    default:
        append_layers(routing, routing->form == OPENAI_ROUTING_BASE64, body);
    }
}
