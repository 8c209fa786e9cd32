/* Fuzzes moed_model_load() with any checkpoint: one that loads must run, and route as moed.h
 * promises.
 *
 * An input is four bytes of config length, little-endian, config.json, and the weights: a whole
 * safetensors file or, if the length's highest bit is set, lines "dtype name size size ..." from
 * which a well-formed file is made, so that mutations reach the layers and not only the
 * container. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/gate_counts.h"
#include "core/moed.h"
#include "fuzz_directory.h"
#include "libfuzzer.h"

enum { LISTED = 1u << 31 };
/* Bounds tensors made from a list: larger ones make a run slow, not interesting. */
enum { MAX_DATA_BYTES = 1 << 20 };
/* Bounds a forward pass: its activations in bytes, and a rough count of its steps. */
enum { MAX_SCRATCH_BYTES = 64 << 20, MAX_STEPS = 1 << 24 };
/* Bounds the input of a pooling layer, because the steps do not count its windows, which are up to
 * 4096 wide. */
enum { MAX_POOLED = 1 << 12 };

static char directory[FUZZ_DIRECTORY_BYTES];

static void require(int condition)
{
    if (!condition)
        abort();
}

/* ---- the checkpoint on disk ---- */

static const char *path_of(const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static void remove_directory(void)
{
    remove(path_of("config.json"));
    remove(path_of("model.safetensors"));
    remove(directory);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    make_fuzz_directory(directory);
    atexit(remove_directory);
    return 0;
}

static FILE *create(const char *name)
{
    FILE *file = fopen(path_of(name), "wb");
    require(file != NULL);
    return file;
}

static void write_file(const char *name, const uint8_t *bytes, size_t count)
{
    FILE *file = create(name);
    require(fwrite(bytes, 1, count, file) == count && fclose(file) == 0);
}

/* ---- weights from a list ---- */

/* Writes one line as a header entry; returns the bytes of its data, or 0 if the line is invalid. */
static size_t describe(char *line, size_t offset, FILE *header)
{
    char *rest, *dtype = strtok_r(line, " ", &rest), *name = strtok_r(NULL, " ", &rest), *size;
    if (!dtype || !name)
        return 0;
    size_t bytes = strcmp(dtype, "F32") == 0 ? 4 : 2;
    fprintf(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[", offset ? "," : "", name, dtype);
    for (size_t axis = 0; (size = strtok_r(NULL, " ", &rest)); axis++) {
        size_t count = strtoul(size, NULL, 10) % (MAX_DATA_BYTES / 4);
        bytes = bytes * count > MAX_DATA_BYTES ? MAX_DATA_BYTES : bytes * count;
        fprintf(header, "%s%zu", axis ? "," : "", count);
    }
    fprintf(header, "],\"data_offsets\":[%zu,%zu]}", offset, offset + bytes);
    return bytes;
}

/* Fills with positive numbers of about 1 or less in any dtype, which are valid as variances too. */
static void fill(uint8_t *data, size_t count)
{
    for (size_t i = 0; i < count; i++)
        data[i] = (uint8_t)(i % 2 ? 0x3c + i / 2 % 3 : i * 29);
}

static void write_listed(const uint8_t *list, size_t count)
{
    char *header, *text = strndup((const char *)list, count), *rest;
    size_t length, data_bytes = 0;
    FILE *stream = open_memstream(&header, &length);
    fputc('{', stream);
    for (char *line = strtok_r(text, "\n", &rest); line && data_bytes < MAX_DATA_BYTES;
         line = strtok_r(NULL, "\n", &rest))
        data_bytes += describe(line, data_bytes, stream);
    fputc('}', stream);
    fclose(stream);
    uint8_t *data = malloc(data_bytes + 1);
    fill(data, data_bytes);
    FILE *file = create("model.safetensors");
    for (size_t i = 0; i < 8; i++)
        fputc((int)(length >> 8 * i & 0xff), file);
    require(fwrite(header, 1, length, file) == length);
    require(fwrite(data, 1, data_bytes, file) == data_bytes && fclose(file) == 0);
    free(data);
    free(header);
    free(text);
}

/* ---- what loads ---- */

struct steps {
    size_t count;
    bool pooled_too_large;
};

static void count_steps(const struct moed_layer_info *layer, void *context)
{
    struct steps *steps = context;
    const size_t elements = moed_shape_elements(&layer->in) + moed_shape_elements(&layer->out);
    size_t times = !layer->gates;
    for (size_t i = 0; i < layer->gate_count; i++)
        times += layer->gates[i].experts;
    steps->count += elements * times;
    steps->pooled_too_large |= strstr(layer->op, "pool") && elements > MAX_POOLED;
}

static bool is_affordable(const struct moed_model *model)
{
    const struct moed_model_info *info = moed_model_info(model);
    struct steps steps = {info->macs_per_row, false};
    moed_model_visit(model, count_steps, &steps);
    return !steps.pooled_too_large && steps.count <= MAX_STEPS &&
           2 * info->scratch_bytes_per_row <= MAX_SCRATCH_BYTES;
}

static bool is_of_gate(const struct moed_gate_info *gate, int32_t expert)
{
    if (!gate->expert_index)
        return expert >= 0 && (size_t)expert < gate->experts;
    for (size_t e = 0; e < gate->experts; e++)
        if (gate->expert_index[e] == expert)
            return true;
    return false;
}

static void check_counts(const struct moed_gate_info *gate, const struct moed_routing *routing,
                         uint64_t dropped)
{
    struct moed_gate_counts *counts = moed_gate_counts_new(gate->experts);
    uint64_t selected = 0, top1 = 0, all_dropped = 0;
    moed_gate_counts_count(counts, routing, 0, routing->items, 1);
    for (size_t e = 0; e < gate->experts; e++) {
        const struct moed_expert_counts *expert = &counts->expert[e];
        selected += expert->selected;
        top1 += expert->top1;
        require(gate->limited || expert->top1 <= expert->selected);
        require(expert->probability >= 0 && expert->part >= 0);
        all_dropped += expert->dropped;
    }
    require(counts->entropy >= 0 && counts->margin >= 0 && all_dropped == dropped);
    require(top1 == routing->items && selected + dropped == routing->items * routing->top_k);
    moed_gate_counts_free(counts);
}

static void check_routing(const struct moed_gate_info *gate, const struct moed_routing *routing)
{
    const size_t pairs = routing->items * routing->top_k;
    uint64_t dropped = 0;
    for (size_t i = 0; i < pairs; i++)
        if (gate->limited && routing->expert[i] == -1)
            require(routing->weight[i] == 0 && ++dropped);
        else
            require(is_of_gate(gate, routing->expert[i]));
    for (size_t i = 0; i < routing->items; i++)
        require(routing->margin[i] >= 0 && routing->margin[i] <= 1.0001f);
    check_counts(gate, routing, dropped);
}

/* Gives the spans of a model that has memory a session each. False: there is not so much memory. */
static bool open_sessions(const struct moed_model *model, struct moed_span *spans, size_t count,
                          struct moed_pages **pages)
{
    struct error err = ERROR_INIT;
    const struct moed_model_info *info = moed_model_info(model);
    if (info->position_bytes == 0)
        return true;
    *pages =
        moed_pages_new(model, &(struct moed_room){.positions = count * MOED_PAGE_POSITIONS}, &err);
    require(*pages || (err.code != ERROR_NONE && *err.text));
    for (size_t i = 0; *pages && i < count; i++) {
        spans[i].session = moed_session_new(*pages);
        require(moed_session_reserve(spans[i].session, 1) == 0);
    }
    return *pages != NULL;
}

/* Makes every row a span of its own: rows of one span compete for an expert's capacity. */
static void forward(const struct moed_model *model, size_t rows, float *const x[], float *const y[])
{
    struct error err = ERROR_INIT;
    const struct moed_model_info *info = moed_model_info(model);
    const struct moed_scratch_options options = {rows, 1, .distributions = true};
    struct moed_scratch *scratch = moed_scratch_new(model, &options, &err);
    if (!scratch) {
        require(err.code != ERROR_NONE && *err.text);
        return;
    }
    struct moed_span spans[] = {{.rows = 1}, {.rows = 1}};
    struct moed_pages *pages = NULL;
    if (open_sessions(model, spans, rows, &pages)) {
        moed_forward(model, scratch, NULL,
                     &(struct moed_batch){spans, rows, (const void *const *)x, y, NULL});
        for (size_t i = 0; i < info->gate_count; i++)
            check_routing(&info->gates[i], moed_routing(scratch, i));
    }
    for (size_t i = 0; i < 2; i++)
        moed_session_free(spans[i].session);
    moed_pages_free(pages);
    moed_scratch_free(scratch);
}

/* Memory for two rows of every tensor, and pointers to the second ones. */
struct rows {
    float **all, **second;
    size_t count;
};

static struct rows new_rows(const struct moed_tensor_info *tensors, size_t count)
{
    struct rows rows = {calloc(count, sizeof *rows.all), calloc(count, sizeof *rows.second), count};
    for (size_t i = 0; i < count; i++) {
        rows.all[i] = calloc(2 * tensors[i].elements, sizeof **rows.all);
        rows.second[i] = rows.all[i] + tensors[i].elements;
    }
    return rows;
}

static void free_rows(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++)
        free(rows->all[i]);
    free(rows->all);
    free(rows->second);
}

/* Fills two rows with small integers, except for both ends of the first. */
static void fill_rows(float *x, size_t elements)
{
    for (size_t i = 0; i < 2 * elements; i++)
        x[i] = (float)(i * 7 % 11) - 5;
    x[0] = NAN;
    x[elements - 1] = INFINITY;
}

/* Runs two rows at once, then the second alone, which must give the same bits. */
static void run(const struct moed_model *model)
{
    const struct moed_model_info *info = moed_model_info(model);
    struct rows x = new_rows(info->inputs, info->input_count);
    struct rows y = new_rows(info->outputs, info->output_count);
    struct rows alone = new_rows(info->outputs, info->output_count);
    for (size_t i = 0; i < x.count; i++)
        fill_rows(x.all[i], info->inputs[i].elements);
    forward(model, 2, x.all, y.all);
    forward(model, 1, x.second, alone.all);
    for (size_t i = 0; i < y.count; i++)
        for (size_t j = 0; j < info->outputs[i].elements; j++) {
            const float together = y.second[i][j], apart = alone.all[i][j];
            require(together == apart || (isnan(together) && isnan(apart)));
        }
    free_rows(&alone);
    free_rows(&y);
    free_rows(&x);
}

/* ---- inputs ---- */

static uint64_t get_number(const uint8_t *data, size_t bytes)
{
    uint64_t number = 0;
    while (bytes-- > 0)
        number = number << 8 | data[bytes];
    return number;
}

static void put_number(uint8_t *data, size_t bytes, uint64_t number)
{
    for (size_t i = 0; i < bytes; i++)
        data[i] = (uint8_t)(number >> 8 * i);
}

/* Mutates data[begin, begin + *count) in place; the data after it moves. Returns the new size of
 * data. */
static size_t mutate_part(uint8_t *data, size_t size, size_t max_size, size_t begin, size_t *count)
{
    const size_t rest = size - begin - *count;
    uint8_t *tail = malloc(rest + 1);
    memcpy(tail, data + begin + *count, rest);
    *count = LLVMFuzzerMutate(data + begin, *count, max_size - begin - rest);
    memcpy(data + begin + *count, tail, rest);
    free(tail);
    return begin + *count + rest;
}

/* Mutates one part at a time and adjusts the length in front; otherwise nearly every mutation would
 * only give a wrong length. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    if (size < 4 || seed % 16 == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    const uint32_t head = (uint32_t)get_number(data, 4);
    size_t count = head & ~(uint32_t)LISTED;
    if (count > size - 4)
        return LLVMFuzzerMutate(data, size, max_size);
    if (seed % 2) {
        size = mutate_part(data, size, max_size, 4, &count);
        put_number(data, 4, (head & LISTED) | count);
        return size;
    }
    size_t begin = 4 + count;
    count = size - begin;
    const size_t header = count < 8 || head & LISTED ? 0 : get_number(data + begin, 8);
    if (header == 0 || header > count - 8)
        return mutate_part(data, size, max_size, begin, &count);
    count = header;
    size = mutate_part(data, size, max_size, begin + 8, &count);
    put_number(data + begin, 8, count);
    return size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return -1;
    const uint32_t head = (uint32_t)get_number(data, 4);
    const size_t config = head & ~(uint32_t)LISTED;
    if (config > size - 4)
        return -1;
    write_file("config.json", data + 4, config);
    if (head & LISTED)
        write_listed(data + 4 + config, size - 4 - config);
    else
        write_file("model.safetensors", data + 4 + config, size - 4 - config);

    struct error err = ERROR_INIT;
    const struct moed_load_options options = {.weights = (enum moed_weights)(size % 3),
                                              .activations = (enum moed_activations)(size / 3 % 3)};
    struct moed_model *model = moed_model_load(directory, &options, &err);
    require(model ? err.code == ERROR_NONE : err.code != ERROR_NONE && *err.text);
    if (model && is_affordable(model))
        run(model);
    moed_model_free(model);
    return 0;
}
