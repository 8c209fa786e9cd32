/* `moectl export`: routing counts in the formats that other tools read. Rows are the document's
 * layers in its order, columns the experts by their index. */
#include "clients/c/moectl/export.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clients/c/moectl/run.h"

/* ---- CSV ---- */

/* RFC 4180: a quote is doubled. */
static void csv_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++)
        fprintf(out, *text == '"' ? "\"\"" : "%c", *text);
    fputc('"', out);
}

/* The shortest of 15 to 17 digits that reads back the same. */
static void print_number(FILE *out, double number)
{
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, number);
        if (strtod(text, NULL) == number)
            break;
    }
    fputs(text, out);
}

static void csv_number(FILE *out, double number)
{
    fputc(',', out);
    if (!isnan(number))
        print_number(out, number);
}

void export_csv(const struct document *document, FILE *out)
{
    fputs("layer,expert,selected,top1,dropped,share,weight,weight_share,probability\n", out);
    for (size_t i = 0; i < document->layer_count; i++) {
        const struct layer *layer = &document->layers[i];
        for (size_t j = 0; j < layer->expert_count; j++) {
            const struct expert *expert = &layer->experts[j];
            csv_text(out, layer->name);
            fprintf(out, ",%llu,%llu,%llu,%llu", (unsigned long long)expert->index,
                    (unsigned long long)expert->selected, (unsigned long long)expert->top1,
                    (unsigned long long)expert->dropped);
            csv_number(out, expert->share);
            csv_number(out, expert->weight);
            csv_number(out, expert->weight_share);
            csv_number(out, expert->probability);
            fputc('\n', out);
        }
    }
}

/* ---- the matrix ---- */

static double value_of(const struct expert *expert, const char *value)
{
    switch (*value) {
    case 'w':
        return expert->weight;
    case 'p':
        return expert->probability;
    case 't':
        return (double)expert->top1;
    default:
        return (double)expert->selected;
    }
}

/* One figure of every layer and expert. */
struct matrix {
    const char *value; /* which: "selected", "top1", "weight", "probability" */
    const char *first; /* the first layer's name */
    bool counts;       /* whole numbers */
    size_t layers, experts;
    double *values; /* [layers, experts] */
};

/* A document is believed so many experts of a layer, and so many of all layers. */
enum { MOST_EXPERTS = 1 << 20, MOST_VALUES = 1 << 26 };

/* Experts are numbered to the largest index: gates of one layer may choose among some of them. 0:
 * too many. */
static size_t width_of(const struct layer *layer)
{
    uint64_t most = 0;
    for (size_t i = 0; i < layer->expert_count; i++)
        if (layer->experts[i].index > most)
            most = layer->experts[i].index;
    return most < MOST_EXPERTS ? (size_t)most + 1 : 0;
}

static int fill_row(struct matrix *matrix, const struct layer *layer, size_t row,
                    struct moed_client_error *err)
{
    if (width_of(layer) != matrix->experts)
        return fail_with(
            err, "layer '%.64s' has %zu expert%s and '%.64s' has %zu: export one --layer",
            matrix->first, matrix->experts, ending(matrix->experts), layer->name, width_of(layer));
    for (size_t i = 0; i < layer->expert_count; i++) {
        double value = value_of(&layer->experts[i], matrix->value);
        if (isnan(value))
            return fail_with(err, "the document has no '%s' of layer '%.64s'", matrix->value,
                             layer->name);
        matrix->values[row * matrix->experts + layer->experts[i].index] = value;
    }
    return 0;
}

static void matrix_close(struct matrix *matrix)
{
    free(matrix->values);
    matrix->values = NULL;
}

static int matrix_init(struct matrix *matrix, const struct document *document, const char *value,
                       struct moed_client_error *err)
{
    *matrix = (struct matrix){.value = value, .counts = *value == 's' || *value == 't'};
    if (document->layer_count == 0)
        return fail_with(err, "model '%.100s' has no MoE layer", document->model);
    matrix->first = document->layers[0].name;
    matrix->layers = document->layer_count;
    matrix->experts = width_of(&document->layers[0]);
    if (matrix->experts == 0)
        return fail_with(err, "layer '%.64s' has an expert of index %d or more", matrix->first,
                         MOST_EXPERTS);
    if (matrix->layers > MOST_VALUES / matrix->experts)
        return fail_with(err, "too many layers and experts: %zu of %zu", matrix->layers,
                         matrix->experts);
    matrix->values = calloc(matrix->layers * matrix->experts, sizeof *matrix->values);
    if (!matrix->values)
        return fail_with(err, "no memory for %zu layer%s", matrix->layers, ending(matrix->layers));
    for (size_t i = 0; i < matrix->layers; i++)
        if (fill_row(matrix, &document->layers[i], i, err) != 0) {
            matrix_close(matrix);
            return -1;
        }
    return 0;
}

/* Values of a row between separators. */
static void print_row(const struct matrix *matrix, size_t row, const char *separator, FILE *out)
{
    for (size_t i = 0; i < matrix->experts; i++) {
        fputs(i ? separator : "", out);
        print_number(out, matrix->values[row * matrix->experts + i]);
    }
}

/* [[1,2],[3,4]] */
static void print_nested(const struct matrix *matrix, FILE *out)
{
    for (size_t i = 0; i < matrix->layers; i++) {
        fputs(i ? ",[" : "[[", out);
        print_row(matrix, i, ",", out);
        fputc(']', out);
    }
    fputc(']', out);
}

/* A little-endian 64-bit number: counts as they are, others by their bits. */
static void put_value(const struct matrix *matrix, double value, FILE *out)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (matrix->counts)
        bits = (uint64_t)value;
    for (int i = 0; i < 8; i++)
        fputc((int)(bits >> 8 * i & 0xFF), out);
}

static void put_values(const struct matrix *matrix, FILE *out)
{
    for (size_t i = 0; i < matrix->layers * matrix->experts; i++)
        put_value(matrix, matrix->values[i], out);
}

/* ---- one file each ---- */

/* NumPy: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html, version 1.0. The
 * head ends in a line feed at a multiple of 64. */
static void write_npy(const struct matrix *matrix, FILE *out)
{
    char head[192];
    int length = snprintf(head, sizeof head,
                          "{'descr': '<%c8', 'fortran_order': False, 'shape': (%zu, %zu), }",
                          matrix->counts ? 'i' : 'f', matrix->layers, matrix->experts);
    int padded = (10 + length + 1 + 63) / 64 * 64 - 10;
    fwrite("\x93NUMPY\1\0", 1, 8, out);
    fputc(padded & 0xFF, out);
    fputc(padded >> 8, out);
    fprintf(out, "%s%*s", head, padded - length, "\n");
    put_values(matrix, out);
}

/* SGLang: --init-expert-location FILE.json, which takes a matrix of two axes. */
static void write_sglang(const struct matrix *matrix, FILE *out)
{
    fputs("{\"logical_count\":", out);
    print_nested(matrix, out);
    fputs("}\n", out);
}

/* lmdeploy: LMDEPLOY_EPLB_EXPERTS_STATISTIC_FILE, a bare list of lists. */
static void write_lmdeploy(const struct matrix *matrix, FILE *out)
{
    print_nested(matrix, out);
    fputc('\n', out);
}

/* DeepSeek's EPLB defines no file: the table that rebalance_experts() takes as `weight`, for
 * torch.tensor(numpy.loadtxt(FILE, ndmin=2)). */
static void write_eplb(const struct matrix *matrix, FILE *out)
{
    for (size_t i = 0; i < matrix->layers; i++) {
        print_row(matrix, i, " ", out);
        fputc('\n', out);
    }
}

/* Experts of each layer, the most used first: a line {"layer": [index, ...]}. */
static void write_ranked(const struct document *document, FILE *out)
{
    for (size_t i = 0; i < document->layer_count; i++) {
        const struct layer *layer = &document->layers[i];
        size_t *ranking = layer_ranking(layer);
        fprintf(out, "{\"%zu\":[", i);
        for (size_t j = 0; j < layer->expert_count; j++)
            fprintf(out, "%s%llu", j ? "," : "",
                    (unsigned long long)layer->experts[ranking[j]].index);
        fputs("]}\n", out);
        free(ranking);
    }
}

/* ---- TensorRT-LLM: a directory ---- */

static FILE *open_in(const char *directory, const char *name, struct moed_client_error *err)
{
    char path[4096];
    FILE *file = NULL;
    if (snprintf(path, sizeof path, "%s/%s", directory, name) < (int)sizeof path)
        file = fopen(path, "we");
    if (!file)
        fail_with(err, "cannot write %.300s/%s: %s", directory, name, strerror(errno));
    return file;
}

/* safetensors: the length of the JSON, the JSON padded to a multiple of 8, the tensors. One tensor
 * per layer, named ITERATION_LAYER. */
static void write_safetensors(const struct matrix *matrix, FILE *out)
{
    char *head = NULL;
    size_t length = 0;
    FILE *json = open_memstream(&head, &length);
    if (!json)
        return;
    for (size_t i = 0; i < matrix->layers; i++)
        fprintf(json, "%s\"0_%zu\":{\"dtype\":\"I64\",\"shape\":[%zu],\"data_offsets\":[%zu,%zu]}",
                i ? "," : "{", i, matrix->experts, i * matrix->experts * 8,
                (i + 1) * matrix->experts * 8);
    fputc('}', json);
    fclose(json);
    size_t padded = (length + 7) / 8 * 8;
    for (int i = 0; i < 8; i++)
        fputc((int)(padded >> 8 * i & 0xFF), out);
    fprintf(out, "%s%*s", head, (int)(padded - length), "");
    put_values(matrix, out);
    free(head);
}

static int same_top_k(const struct document *document, struct moed_client_error *err)
{
    for (size_t i = 1; i < document->layer_count; i++)
        if (document->layers[i].top_k != document->layers[0].top_k)
            return fail_with(err, "layers choose %zu and %zu experts: export one --layer",
                             document->layers[0].top_k, document->layers[i].top_k);
    return 0;
}

/* What EXPERT_STATISTIC_PATH holds, for generate_eplb_config.py. */
static int write_tensorrt(const struct document *document, const struct matrix *matrix,
                          const char *directory, struct moed_client_error *err)
{
    if (same_top_k(document, err) != 0)
        return -1;
    if (mkdir(directory, 0777) != 0 && errno != EEXIST)
        return fail_with(err, "cannot make the directory %.300s: %s", directory, strerror(errno));
    FILE *file = open_in(directory, "meta_info.json", err);
    if (!file)
        return -1;
    fprintf(file, "{\"num_experts\": %zu, \"num_experts_per_token\": %zu}\n", matrix->experts,
            document->layers[0].top_k);
    if (finish_output(file, "meta_info.json", err) != 0 ||
        !(file = open_in(directory, "rank0.safetensors", err)))
        return -1;
    write_safetensors(matrix, file);
    return finish_output(file, "rank0.safetensors", err);
}

/* ---- the command ---- */

static const struct format {
    const char *name;
    void (*write)(const struct matrix *matrix, FILE *out);
    bool counts; /* its reader takes counts only */
} FORMATS[] = {
    {"npy", write_npy, false},           {"sglang", write_sglang, true},
    {"lmdeploy", write_lmdeploy, false}, {"eplb", write_eplb, false},
    {"tensorrt-llm", NULL, true},
};

static const struct format *find_format(const char *name)
{
    for (size_t i = 0; i < LENGTH(FORMATS); i++)
        if (strcmp(FORMATS[i].name, name) == 0)
            return &FORMATS[i];
    return NULL;
}

/* A matrix in that format; NULL: one of those that are written from the document. */
static int write_format(const struct settings *settings, const struct document *document, FILE *out,
                        struct moed_client_error *err)
{
    const struct format *format = find_format(settings->format);
    if (!format) {
        if (*settings->format == 'c')
            export_csv(document, out);
        else
            write_ranked(document, out);
        return 0;
    }
    struct matrix matrix;
    if (matrix_init(&matrix, document, settings->value, err) != 0)
        return -1;
    int result = 0;
    if (format->write)
        format->write(&matrix, out);
    else
        result = write_tensorrt(document, &matrix, settings->output, err);
    matrix_close(&matrix);
    return result;
}

static int write_out(const struct settings *settings, const struct document *document,
                     struct moed_client_error *err)
{
    bool directory = strcmp(settings->format, "tensorrt-llm") == 0;
    FILE *out = settings->output && !directory ? fopen(settings->output, "we") : stdout;
    if (!out)
        return fail_with(err, "cannot write %.300s: %s", settings->output, strerror(errno));
    int result = write_format(settings, document, out, err);
    if (out != stdout && finish_output(out, settings->output, err) != 0)
        result = -1;
    return result;
}

/* A file of zeros is a file: who reads it later cannot tell that nothing was counted. */
static void tell_of_no_rows(const struct document *document)
{
    for (size_t i = 0; i < document->layer_count; i++)
        if (document->layers[i].rows > 0)
            return;
    if (document->layer_count > 0)
        fprintf(stderr, "moectl: model '%.100s' has no rows in this document: every count is 0\n",
                document->model);
}

static int check_settings(const struct settings *settings, struct moed_client_error *err)
{
    const struct format *format = settings->format ? find_format(settings->format) : NULL;
    if (!settings->format)
        return fail_with(err, "which --format?");
    if (format && format->counts && *settings->value != 's' && *settings->value != 't')
        return fail_with(err, "--format %s takes counts: --value selected or top1",
                         settings->format);
    if (format && !format->write && !settings->output)
        return fail_with(err, "--format %s writes a directory: --output DIRECTORY",
                         settings->format);
    if (format && format->write == write_npy && !settings->output && isatty(STDOUT_FILENO))
        return fail_with(err, "--format npy is not for a terminal: --output FILE");
    return document_check_source(settings, err);
}

int run_export(const struct settings *settings, struct moed_client_error *err)
{
    if (check_settings(settings, err) != 0)
        return EXIT_USAGE;
    struct document *document = document_fetch(settings, NULL, err);
    int result = document ? write_out(settings, document, err) : -1;
    if (result == 0)
        tell_of_no_rows(document);
    document_free(document);
    return result;
}
