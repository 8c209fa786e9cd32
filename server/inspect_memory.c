/* Sizes come from the functions with which the server allocates. Memory that only exists, and that
 * nobody writes to, such as the scratch here, takes none of the machine's. */
#include "server/inspect_memory.h"

#include "server/compute/sequences.h"
#include "server/loop.h"

static const char *const FORMS[WEIGHT_FORMS] = {
    [MOED_WEIGHTS_STORED] = "stored", [MOED_WEIGHTS_INT8] = "int8", [MOED_WEIGHTS_INT4] = "int4"};

static uint64_t times(uint64_t a, uint64_t b)
{
    uint64_t product;
    return __builtin_mul_overflow(a, b, &product) ? UINT64_MAX : product;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static void note_weights(struct inspect_memory *memory, enum moed_weights form,
                         const struct moed_model_info *info)
{
    memory->weights[form].bytes = info->weight_bytes;
    memory->weights[form].mapped = info->mapped_bytes;
}

/* All forms: those that are not `model` from the headers. */
static int measure_weights(struct inspect_memory *memory, const char *directory,
                           const struct moed_model *model, const struct model_options *options,
                           struct error *err)
{
    struct moed_load_options load = model_load_options(options);
    load.headers_only = true;
    memory->chosen = options->weights;
    note_weights(memory, options->weights, moed_model_info(model));
    for (int form = 0; form < WEIGHT_FORMS; form++) {
        load.weights = (enum moed_weights)form;
        struct moed_model *other =
            load.weights == memory->chosen ? NULL : moed_model_load(directory, &load, err);
        if (other)
            note_weights(memory, load.weights, moed_model_info(other));
        else if (load.weights != memory->chosen)
            return -1;
        moed_model_free(other);
    }
    return 0;
}

/* Of a batch or a step: a model may have a limit of its own. */
static uint64_t most_rows(const struct moed_model_info *info, const struct serving *serving,
                          const struct model_options *options)
{
    return info->sequence ? info_step_rows(info, options->step_tokens)
                          : serving_limit(serving->limits.max_batch_rows, options->max_batch_rows);
}

static int measure_scratch(struct inspect_memory *memory, const struct moed_model *model,
                           const struct model_options *options, struct error *err)
{
    memory->threads = options->threads;
    const struct moed_scratch_options wanted = {
        .max_rows = memory->rows, .threads = options->threads, .distributions = true};
    struct moed_scratch *scratch = moed_scratch_new(model, &wanted, err);
    if (!scratch)
        return -1;
    memory->scratch = moed_scratch_bytes(scratch);
    moed_scratch_free(scratch);
    return 0;
}

static void measure_sequences(struct inspect_memory *memory, const struct moed_model_info *info,
                              const struct options *options)
{
    const struct sequences_options sequences = {
        .max_sequences = loop_share(options, options->max_sequences, 1),
        .step_tokens = options->step_tokens,
        .cache_bytes = loop_share(options, options->kv_cache_mb << 20, 0)};
    const size_t wanted = sequences_most_wanted(info, sequences.max_sequences, memory->rows);
    memory->scratch =
        plus(memory->scratch, times(wanted, info->outputs[0].elements * sizeof(float)));
    memory->room = sequences_room(info, &sequences);
    memory->cache = moed_room_bytes(info, &memory->room);
    const struct moed_room longest = {
        .positions = info->context, .sequences = 1, .step_rows = memory->rows};
    memory->context = moed_room_bytes(info, &longest);
}

int inspect_memory(struct inspect_memory *memory, const char *directory,
                   const struct moed_model *model, const struct serving *serving,
                   const struct options *options, struct error *err)
{
    const struct model_options own = loop_model_options(options);
    *memory = (struct inspect_memory){.loops = options->loops};
    memory->rows = most_rows(moed_model_info(model), serving, &own);
    if (measure_weights(memory, directory, model, &own, err) != 0 ||
        measure_scratch(memory, model, &own, err) != 0)
        return -1;
    if (moed_model_info(model)->sequence)
        measure_sequences(memory, moed_model_info(model), options);
    const uint64_t each = plus(memory->scratch, memory->cache);
    memory->total = plus(memory->weights[memory->chosen].bytes, times(memory->loops, each));
    return 0;
}

/* ---- for people ---- */

/* 1234567 -> 1.2 MiB */
static void print_bytes(FILE *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    for (; value >= 1024 && unit + 1 < sizeof units / sizeof *units; unit++)
        value /= 1024;
    fprintf(out, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void print_weights(const struct inspect_memory *memory, int form, FILE *out)
{
    fputs(form == 0 ? "Memory      " : "            ", out);
    print_bytes(out, memory->weights[form].bytes);
    fprintf(out, " of weights with --weights %s", FORMS[form]);
    if (memory->weights[form].mapped) {
        fputs(", ", out);
        print_bytes(out, memory->weights[form].mapped);
        fputs(" of them in mapped files", out);
    }
    fputc('\n', out);
}

/* The first kind has no layers where all have a window. */
static void print_kinds(const struct inspect_memory *memory, const struct moed_model_info *info,
                        FILE *out)
{
    for (size_t i = 0, told = 0; i < info->kind_count; i++) {
        const struct moed_kind *kind = &info->kinds[i];
        if (kind->position_bytes == 0 && info->kind_count > 1)
            continue;
        fprintf(out, "%s%zu tokens of ", told++ ? ", " : "",
                moed_room_pages(kind, &memory->room) * MOED_PAGE_POSITIONS);
        print_bytes(out, kind->position_bytes);
        if (kind->window)
            fprintf(out, " in windows of %zu", kind->window);
    }
}

static void print_sequences(const struct inspect_memory *memory, const struct moed_model_info *info,
                            FILE *out)
{
    fputs("            ", out);
    print_bytes(out, memory->cache);
    fputs(" of keys and values: ", out);
    print_kinds(memory, info, out);
    fputs("; ", out);
    print_bytes(out, memory->context);
    fprintf(out, " for a sequence of %zu, the longest\n", info->context);
}

void inspect_memory_print(const struct inspect_memory *memory, const struct moed_model_info *info,
                          FILE *out)
{
    for (int form = 0; form < WEIGHT_FORMS; form++)
        print_weights(memory, form, out);
    fputs("            ", out);
    print_bytes(out, memory->scratch);
    fprintf(out, " of scratch: %s of %llu %s, %u thread%s\n", info->sequence ? "steps" : "batches",
            (unsigned long long)memory->rows, info->sequence ? "tokens" : "rows", memory->threads,
            memory->threads == 1 ? "" : "s");
    if (info->sequence && info->position_bytes > 0)
        print_sequences(memory, info, out);
    fputs("            ", out);
    print_bytes(out, memory->total);
    fprintf(out, " in all with --weights %s", FORMS[memory->chosen]);
    if (memory->loops > 1)
        fprintf(out, " and %llu loops, each with its own scratch, keys and values",
                (unsigned long long)memory->loops);
    fputc('\n', out);
}

/* ---- for programs ---- */

static void json_number(struct buffer *body, const char *key, uint64_t value)
{
    buffer_format(body, ",\"%s\":%llu", key, (unsigned long long)value);
}

static void json_kinds(const struct inspect_memory *memory, const struct moed_model_info *info,
                       struct buffer *body)
{
    buffer_text(body, ",\"kinds\":[");
    for (size_t i = 0; i < info->kind_count; i++)
        buffer_format(body, "%s{\"window\":%zu,\"position_bytes\":%llu,\"positions\":%zu}",
                      i ? "," : "", info->kinds[i].window,
                      (unsigned long long)info->kinds[i].position_bytes,
                      moed_room_pages(&info->kinds[i], &memory->room) * MOED_PAGE_POSITIONS);
    buffer_text(body, "]");
}

void inspect_memory_json(const struct inspect_memory *memory, const struct moed_model_info *info,
                         struct buffer *body)
{
    buffer_format(body, ",\"memory\":{\"weights\":\"%s\"", FORMS[memory->chosen]);
    for (int form = 0; form < WEIGHT_FORMS; form++)
        buffer_format(body, ",\"%s\":{\"weight_bytes\":%llu,\"mapped_bytes\":%llu}", FORMS[form],
                      (unsigned long long)memory->weights[form].bytes,
                      (unsigned long long)memory->weights[form].mapped);
    json_number(body, "loops", memory->loops);
    json_number(body, "threads", memory->threads);
    json_number(body, "rows", memory->rows);
    json_number(body, "scratch_bytes", memory->scratch);
    if (info->sequence) {
        json_number(body, "positions", memory->room.positions);
        json_number(body, "cache_bytes", memory->cache);
        json_number(body, "context_bytes", memory->context);
        json_kinds(memory, info, body);
    }
    json_number(body, "total_bytes", memory->total);
    buffer_text(body, "}");
}
