/* `moed inspect`; see inspect.h. */
#include "inspect.h"

#include <stdint.h>
#include <string.h>

#include "../core/moed.h"
#include "../proto/json.h"

/* Rows of the batch whose scratch is reported; the server's default. */
enum { REPORTED_BATCH_ROWS = 64 };

static void print_shape(FILE *out, const struct moed_shape *shape)
{
    fputc('[', out);
    for (size_t i = 0; i < shape->rank; i++)
        fprintf(out, "%s%zu", i ? ", " : "", shape->dims[i]);
    fputc(']', out);
}

/* 1234567 -> 1.23 M */
static void print_count(FILE *out, double value)
{
    static const char *const units[] = {"", " k", " M", " G", " T"};
    size_t unit = 0;
    for (; value >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1000;
    fprintf(out, unit ? "%.2f%s" : "%.0f%s", value, units[unit]);
}

static void print_bytes(FILE *out, double value)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1024;
    fprintf(out, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void print_layer(const struct moed_layer_info *layer, void *context)
{
    FILE *out = context;
    const bool experts = strcmp(layer->role, "experts") == 0;
    if (*layer->role)
        fprintf(out, "  %*s%s%s\n", 2 * layer->depth - 1, "", layer->role,
                experts ? " (each)" : "");
    int used = fprintf(out, "  %*s%s", 2 * layer->depth, "", layer->op);
    if (*layer->name)
        used += fprintf(out, " %s", layer->name);
    fprintf(out, "%*s", used < 32 ? 32 - used : 1, "");
    print_shape(out, &layer->out);
    if (layer->parameters) {
        fputs("  ", out);
        print_count(out, (double)layer->parameters);
        fputs(" parameters", out);
    }
    if (layer->moe)
        fprintf(out, ", %zu experts, %zu serve a row", layer->moe->experts, layer->moe->top_k);
    fputc('\n', out);
}

static void print_tensors(FILE *out, const char *title, const struct moed_tensor_info *tensors,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fprintf(out, "%s%s ", title, tensors[i].name);
        print_shape(out, &tensors[i].shape);
        fputc('\n', out);
    }
}

static void print_text(const char *directory, const struct moed_model *model, FILE *out)
{
    const struct moed_model_info *info = moed_model_info(model);
    fprintf(out, "%s\n", directory);
    if (*info->description)
        fprintf(out, "  %s\n", info->description);
    print_tensors(out, "  input   ", info->inputs, info->input_count);
    print_tensors(out, "  output  ", info->outputs, info->output_count);
    fputs("\nLayers                            output of one row\n", out);
    moed_model_visit(model, print_layer, out);
    fputs("\nParameters  ", out);
    print_count(out, (double)info->parameters);
    fputs(" in all, ", out);
    print_count(out, (double)info->active_parameters);
    fputs(" active for one row (", out);
    print_count(out, (double)info->macs_per_row);
    fputs(" multiply-adds)\nMemory      ", out);
    print_bytes(out, (double)info->weight_bytes);
    fputs(" of weights, ", out);
    print_bytes(out, (double)info->scratch_bytes_per_row * REPORTED_BATCH_ROWS);
    fprintf(out, " for batches of %d rows\n", REPORTED_BATCH_ROWS);
}

static void json_shape(struct buffer *body, const struct moed_shape *shape)
{
    buffer_text(body, "[");
    for (size_t i = 0; i < shape->rank; i++)
        buffer_format(body, "%s%zu", i ? "," : "", shape->dims[i]);
    buffer_text(body, "]");
}

static void json_tensors(struct buffer *body, const char *key,
                         const struct moed_tensor_info *tensors, size_t count)
{
    buffer_format(body, ",\"%s\":[", key);
    for (size_t i = 0; i < count; i++) {
        buffer_text(body, i ? ",{\"name\":" : "{\"name\":");
        json_append_string(body, tensors[i].name);
        buffer_text(body, ",\"shape\":");
        json_shape(body, &tensors[i].shape);
        buffer_text(body, "}");
    }
    buffer_text(body, "]");
}

static void json_layer(const struct moed_layer_info *layer, void *context)
{
    struct buffer *body = context;
    const bool first = body->data[body->length - 1] == '[';
    buffer_format(body, "%s{\"depth\":%d,\"role\":\"%s\",\"op\":\"%s\",\"name\":", first ? "" : ",",
                  layer->depth, layer->role, layer->op);
    json_append_string(body, layer->name);
    buffer_text(body, ",\"output\":");
    json_shape(body, &layer->out);
    buffer_format(body, ",\"parameters\":%llu", (unsigned long long)layer->parameters);
    if (layer->moe)
        buffer_format(body, ",\"experts\":%zu,\"top_k\":%zu", layer->moe->experts,
                      layer->moe->top_k);
    buffer_text(body, "}");
}

static void print_json(const struct moed_model *model, FILE *out)
{
    const struct moed_model_info *info = moed_model_info(model);
    struct buffer body;
    buffer_init(&body, SIZE_MAX);
    buffer_text(&body, "{\"description\":");
    json_append_string(&body, info->description);
    json_tensors(&body, "inputs", info->inputs, info->input_count);
    json_tensors(&body, "outputs", info->outputs, info->output_count);
    buffer_format(&body,
                  ",\"parameters\":%llu,\"active_parameters\":%llu,\"macs_per_row\":%llu,"
                  "\"weight_bytes\":%llu,\"scratch_bytes_per_row\":%llu,\"layers\":[",
                  (unsigned long long)info->parameters, (unsigned long long)info->active_parameters,
                  (unsigned long long)info->macs_per_row, (unsigned long long)info->weight_bytes,
                  (unsigned long long)info->scratch_bytes_per_row);
    moed_model_visit(model, json_layer, &body);
    buffer_text(&body, "]}\n");
    fwrite(body.data, 1, body.length, out);
    buffer_close(&body);
}

int inspect(const char *directory, bool json, FILE *out, struct error *err)
{
    struct moed_model *model = moed_model_load(directory, err);
    if (!model)
        return -1;
    if (json)
        print_json(model, out);
    else
        print_text(directory, model, out);
    moed_model_free(model);
    return 0;
}
