/* Prints the same facts for people, aligned and with units, or for programs, as one JSON object. */
#include "server/inspect.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/moed.h"
#include "core/text.h"
#include "proto/json.h"
#include "server/inspect_memory.h"
#include "server/loop.h"
#include "server/models/model_name.h"
#include "server/models/model_parts.h"
#include "server/models/repository.h"
#include "server/models/serving_file.h"

static void print_shape(FILE *out, const struct moed_shape *shape)
{
    char text[SHAPE_TEXT_BYTES];
    fputs(text_of_shape(text, NULL, shape->dims, shape->rank, ", "), out);
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

/* Names and descriptions come from the checkpoint. Returns the bytes printed. */
static int print_untrusted(FILE *out, const char *text)
{
    char *copy = xstrdup(text);
    text_make_printable(copy);
    int used = fprintf(out, "%s", copy);
    free(copy);
    return used;
}

/* "5 experts, 2 serve a row"; for several gates, how many of how many experts each one chooses. */
static void print_gates(FILE *out, const struct moed_layer_info *layer)
{
    const struct moed_gate_info *gate = layer->gates;
    if (layer->gate_count == 1) {
        fprintf(out, ", %zu expert%s, %zu serve%s a %s", gate->experts,
                gate->experts == 1 ? "" : "s", gate->top_k, gate->top_k == 1 ? "s" : "",
                gate->items_per_row > 1 ? "position" : "row");
        return;
    }
    for (size_t i = 0; i < layer->gate_count; i++, gate++)
        fprintf(out, "%s %s %zu of %zu expert%s",
                i ? "," : ", gates:", gate->name + strlen(layer->name) + 1, gate->top_k,
                gate->experts, text_s(gate->experts));
}

static void print_role(FILE *out, const struct moed_layer_info *layer)
{
    bool experts = strcmp(layer->role, "experts") == 0;
    fprintf(out, "  %*s%s%s", 2 * layer->depth - 1, "", layer->role, experts ? " (each)" : "");
    if (*layer->part)
        fputc(' ', out);
    print_untrusted(out, layer->part);
    fputc('\n', out);
}

static void print_layer(const struct moed_layer_info *layer, void *context)
{
    FILE *out = context;
    if (*layer->role)
        print_role(out, layer);
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
    if (layer->gates)
        print_gates(out, layer);
    fputc('\n', out);
}

static void print_tensors(FILE *out, const char *title, const struct moed_tensor_info *tensors,
                          size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fputs(title, out);
        print_untrusted(out, tensors[i].name);
        fputc(' ', out);
        print_shape(out, &tensors[i].shape);
        if (tensors[i].categories)
            fprintf(out, " of %zu %s", tensors[i].categories,
                    tensors[i].categories == 1 ? "category" : "categories");
        fputc('\n', out);
    }
}

/* Of a published checkpoint: its family, and what of it is not used. */
static void print_family(FILE *out, const struct moed_model_info *info)
{
    if (!info->family)
        return;
    fprintf(out, "  translated from model_type %s\n", info->family);
    for (size_t i = 0; i < info->ignored_count; i++) {
        fputs("  ignored ", out);
        print_untrusted(out, info->ignored[i]);
        fputc('\n', out);
    }
}

static void print_text(const char *directory, const struct moed_model *model,
                       const struct inspect_memory *memory, FILE *out)
{
    const struct moed_model_info *info = moed_model_info(model);
    fprintf(out, "%s\n", directory);
    if (*info->description) {
        fputs("  ", out);
        print_untrusted(out, info->description);
        fputc('\n', out);
    }
    print_family(out, info);
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
    fputs(" multiply-adds)\n", out);
    inspect_memory_print(memory, info, out);
}

static void json_shape(struct buffer *body, const struct moed_shape *shape)
{
    char text[SHAPE_TEXT_BYTES];
    buffer_text(body, text_of_shape(text, NULL, shape->dims, shape->rank, ","));
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
        if (tensors[i].categories)
            buffer_format(body, ",\"categories\":%zu", tensors[i].categories);
        buffer_text(body, "}");
    }
    buffer_text(body, "]");
}

static void json_gate(struct buffer *body, const struct moed_gate_info *gate)
{
    buffer_text(body, "{\"name\":");
    json_append_string(body, gate->name);
    buffer_format(body, ",\"experts\":%zu,\"top_k\":%zu}", gate->experts, gate->top_k);
}

/* A single gate's numbers are members of the layer itself. */
static void json_gates(struct buffer *body, const struct moed_layer_info *layer)
{
    if (layer->gate_count == 1) {
        buffer_format(body, ",\"experts\":%zu,\"top_k\":%zu", layer->gates->experts,
                      layer->gates->top_k);
        return;
    }
    buffer_text(body, ",\"gates\":[");
    for (size_t i = 0; i < layer->gate_count; i++) {
        buffer_text(body, i ? "," : "");
        json_gate(body, &layer->gates[i]);
    }
    buffer_text(body, "]");
}

static void json_layer(const struct moed_layer_info *layer, void *context)
{
    struct buffer *body = context;
    bool first = body->data[body->length - 1] == '[';
    buffer_format(body, "%s{\"depth\":%d,\"role\":\"%s\",", first ? "" : ",", layer->depth,
                  layer->role);
    if (*layer->part) {
        buffer_text(body, "\"part\":");
        json_append_string(body, layer->part);
        buffer_text(body, ",");
    }
    buffer_format(body, "\"op\":\"%s\",\"name\":", layer->op);
    json_append_string(body, layer->name);
    buffer_text(body, ",\"output\":");
    json_shape(body, &layer->out);
    buffer_format(body, ",\"parameters\":%llu", (unsigned long long)layer->parameters);
    if (layer->gates)
        json_gates(body, layer);
    buffer_text(body, "}");
}

static void json_family(struct buffer *body, const struct moed_model_info *info)
{
    if (!info->family)
        return;
    buffer_text(body, ",\"model_type\":");
    json_append_string(body, info->family);
    buffer_text(body, ",\"ignored\":[");
    for (size_t i = 0; i < info->ignored_count; i++) {
        buffer_text(body, i ? "," : "");
        json_append_string(body, info->ignored[i]);
    }
    buffer_text(body, "]");
}

static void print_json(const char *directory, const struct moed_model *model,
                       const struct inspect_memory *memory, FILE *out)
{
    const struct moed_model_info *info = moed_model_info(model);
    struct buffer body;
    buffer_init(&body, SIZE_MAX);
    buffer_text(&body, "{\"directory\":");
    json_append_string(&body, directory);
    buffer_text(&body, ",\"description\":");
    json_append_string(&body, info->description);
    json_family(&body, info);
    if (info->sequence)
        buffer_format(&body, ",\"context\":%zu,\"position_bytes\":%llu", info->context,
                      (unsigned long long)info->position_bytes);
    json_tensors(&body, "inputs", info->inputs, info->input_count);
    json_tensors(&body, "outputs", info->outputs, info->output_count);
    buffer_format(&body,
                  ",\"parameters\":%llu,\"active_parameters\":%llu,\"macs_per_row\":%llu,"
                  "\"weight_bytes\":%llu,\"mapped_bytes\":%llu,\"scratch_bytes_per_row\":%llu",
                  (unsigned long long)info->parameters, (unsigned long long)info->active_parameters,
                  (unsigned long long)info->macs_per_row, (unsigned long long)info->weight_bytes,
                  (unsigned long long)info->mapped_bytes,
                  (unsigned long long)info->scratch_bytes_per_row);
    inspect_memory_json(memory, info, &body);
    buffer_text(&body, ",\"layers\":[");
    moed_model_visit(model, json_layer, &body);
    buffer_text(&body, "]}\n");
    fwrite(body.data, 1, body.length, out);
    buffer_close(&body);
}

/* ---- one checkpoint, or all of a repository ---- */

/* Checks the name under which a server would serve the checkpoint: its directory's. */
static int check_name(const char *directory, struct error *err)
{
    char *path = realpath(directory, NULL);
    if (!path)
        return 0; /* loading says what is wrong */
    const int result = model_name_check(strrchr(path, '/') + 1, err);
    if (result != 0)
        error_prefix(err, "%s: cannot be served under its name", path);
    free(path);
    return result;
}

struct listing {
    FILE *out;
    const struct inspect_options *options;
    size_t count;   /* checkpoints printed */
    size_t refused; /* those that cannot be served; said on standard error */
};

static int list_model(const char *directory, const struct moed_model *model,
                      const struct serving *serving, struct listing *listing, struct error *err)
{
    struct inspect_memory memory;
    if (inspect_memory(&memory, directory, model, serving, listing->options->server, err) != 0)
        return -1;
    if (listing->options->json) {
        print_json(directory, model, &memory, listing->out);
    } else {
        fputs(listing->count > 0 ? "\n" : "", listing->out);
        print_text(directory, model, &memory, listing->out);
    }
    listing->count++;
    return 0;
}

static int list_parts(const char *directory, const struct serving *serving, struct listing *listing,
                      struct error *err)
{
    const struct model_options options = loop_model_options(listing->options->server);
    struct moed_load_options load = model_load_options(&options);
    struct model_parts parts;
    load.headers_only = !listing->options->check;
    if (model_parts_load(&parts, directory, &load, err) != 0)
        return -1;
    int result = list_model(directory, parts.engine, serving, listing, err);
    model_parts_close(&parts);
    return result;
}

/* In the order in which a server looks at it (server/models/repository_scan.c). */
static int list_checkpoint(const char *directory, struct listing *listing, struct error *err)
{
    struct serving serving;
    serving_init(&serving);
    int result = -1;
    if (check_name(directory, err) == 0 && serving_read_for(&serving, directory, err) == 0)
        result = model_lacks(directory)
                     ? error_set(err, ERROR_INVALID, "%s: %s", directory, model_lacks(directory))
                     : list_parts(directory, &serving, listing, err);
    serving_close(&serving);
    return result;
}

static bool is_checkpoint(const char *directory)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/config.json", directory);
    return (size_t)length < sizeof path && access(path, F_OK) == 0;
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* As in the server, a checkpoint that cannot be served hides no other. */
static void list_one(const char *directory, struct listing *listing)
{
    struct error err = ERROR_INIT;
    if (list_checkpoint(directory, listing, &err) == 0)
        return;
    listing->refused++;
    fflush(listing->out);
    fprintf(stderr, "moed: %s\n", err.text);
}

/* The checkpoints of a repository are <name>/ or <name>/<version>/: two levels below it. */
enum { REPOSITORY_LEVELS = 2 };

static void list_below(const char *directory, int levels, struct listing *listing)
{
    struct dirent **entries;
    int count = levels > 0 ? scandir(directory, &entries, is_visible, versionsort) : -1;
    for (int i = 0; i < count; i++) {
        char path[PATH_MAX];
        int length = snprintf(path, sizeof path, "%s/%s", directory, entries[i]->d_name);
        free(entries[i]);
        if ((size_t)length >= sizeof path)
            continue;
        if (is_checkpoint(path))
            list_one(path, listing);
        else
            list_below(path, levels - 1, listing);
    }
    if (count >= 0)
        free(entries);
}

/* What is wrong with a path below which no checkpoint was found. */
static int no_checkpoint(const char *directory, struct error *err)
{
    DIR *opened = opendir(directory);
    if (!opened)
        return error_set(err, error_of_errno(errno), "%s: cannot read the directory: %s", directory,
                         strerror(errno));
    closedir(opened);
    return error_set(err, ERROR_INVALID,
                     "%s is neither a checkpoint nor a repository of them: expected config.json, "
                     "NAME/config.json or NAME/VERSION/config.json in it",
                     directory);
}

int inspect(const char *directory, const struct inspect_options *options, FILE *out,
            struct error *err)
{
    struct listing listing = {.out = out, .options = options};
    if (!is_checkpoint(directory))
        list_below(directory, REPOSITORY_LEVELS, &listing);
    if (listing.refused > 0)
        return error_set(err, ERROR_INVALID, "%s: %zu of %zu checkpoint%s cannot be served",
                         directory, listing.refused, listing.refused + listing.count,
                         text_s(listing.refused + listing.count));
    if (listing.count > 0)
        return 0;
    return is_checkpoint(directory) ? list_checkpoint(directory, &listing, err)
                                    : no_checkpoint(directory, err);
}
