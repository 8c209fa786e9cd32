/* Models are counted by their holders, not owned: a request that began before a reload ends with
 * the model it began with. */
#include "server/models/model.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "core/hash.h"
#include "core/memory.h"
#include "core/text.h"
#include "proto/annotation.h"
#include "server/log.h"
#include "server/models/model_parts.h"

/* ---- what its clients see ---- */

static struct signature_tensor signature_tensor(const struct moed_tensor_info *info)
{
    return (struct signature_tensor){.name = info->name,
                                     .rank = info->shape.rank,
                                     .dims = info->shape.dims,
                                     .elements = info->elements,
                                     .categories = info->categories,
                                     .has_unknown = info->categories > 0 && info->unknown >= 0,
                                     .unknown = (int32_t)info->unknown,
                                     .has_missing = info->has_missing,
                                     .missing = info->missing,
                                     .label_count = info->label_count,
                                     .labels = info->labels};
}

static void fill_signature(struct model *model)
{
    const struct moed_model_info *info = model->info;
    model->tensors = xcalloc(info->input_count + info->output_count, sizeof *model->tensors);
    model->gates = xcalloc(info->gate_count, sizeof *model->gates);
    model->words = xcalloc(info->input_count, sizeof *model->words);
    for (size_t i = 0; i < info->input_count; i++) {
        model->tensors[i] = signature_tensor(&info->inputs[i]);
        if (!info->inputs[i].words)
            continue;
        words_init(&model->words[i], info->inputs[i].words, info->inputs[i].categories);
        model->tensors[i].words = &model->words[i];
    }
    for (size_t i = 0; i < info->output_count; i++)
        model->tensors[info->input_count + i] = signature_tensor(&info->outputs[i]);
    for (size_t i = 0; i < info->gate_count; i++)
        model->gates[i] = (struct signature_gate){
            info->gates[i].name, info->gates[i].experts, info->gates[i].top_k,
            info->gates[i].items_per_row, info->gates[i].expert_index};
    model->signature = (struct signature){
        .model = model->name,
        .version = model->version,
        .input_count = info->input_count,
        .output_count = info->output_count,
        .gate_count = info->gate_count,
        .inputs = model->tensors,
        .outputs = model->tensors + info->input_count,
        .gates = model->gates,
    };
}

/* ---- what its routing and its answers are compared with ---- */

/* A gate that uses every expert is known by their weights. */
static struct routing_sample reference_of(const struct moed_gate_info *gate)
{
    const struct moed_routing_reference *reference = gate->reference;
    const double *list = NULL;
    double sum = 0;
    if (reference)
        list = gate->top_k == gate->experts ? reference->weight : reference->share;
    if (!list)
        return (struct routing_sample){0};
    double *share = xcalloc(gate->experts, sizeof *share);
    for (size_t i = 0; i < gate->experts; i++)
        sum += list[i];
    for (size_t i = 0; i < gate->experts; i++)
        share[i] = list[i] / sum;
    return (struct routing_sample){share, (double)reference->rows};
}

static void fill_references(struct model *model)
{
    const size_t gates = model->info->gate_count;
    model->class_output =
        model_has_sequences(model) ? -1 : annotation_class_output(&model->signature);
    model->items_per_row = xcalloc(gates, sizeof *model->items_per_row);
    for (size_t i = 0; i < gates; i++)
        model->items_per_row[i] = (uint32_t)model->info->gates[i].items_per_row;
    model->references = xcalloc(model->info->gate_count, sizeof *model->references);
    for (size_t i = 0; i < model->info->gate_count; i++)
        model->references[i] = reference_of(&model->info->gates[i]);
}

size_t model_classes(const struct model *model)
{
    return model->class_output < 0 ? 0 : model->info->outputs[model->class_output].elements;
}

/* ---- loading ---- */

static void *zeros(const struct moed_tensor_info *info, size_t rows, bool *failed)
{
    void *zeros = calloc(rows, info->elements * MOED_ELEMENT_BYTES); /* of a tensor that exists */
    *failed |= !zeros;
    return zeros;
}

/* What is taken for granted: so many multiply-accumulates and bytes of weights a nanosecond, and so
 * long for any forward. These are less than any machine does, so that ordinary models are what
 * their arithmetic says they are; what takes longer than that has other work in it. */
enum { MACS_PER_NS = 25, BYTES_PER_NS = 5, FORWARD_NS = 10 * 1000 };

/* A first forward that takes longer than this is not repeated: it is expensive, however exactly. */
enum { LONG_NS = 20 * 1000 * 1000, REPETITIONS = 3 };

/* Element-wise layers, pooling and the like count no multiply-accumulates, but take time. What one
 * row takes beyond what its arithmetic and its weights explain is charged as arithmetic. */
static uint64_t cost_of(const struct moed_model_info *info, uint64_t row_ns)
{
    const double active = (double)info->active_parameters / (double)(info->parameters + 1);
    const uint64_t explained_ns = info->macs_per_row / MACS_PER_NS + FORWARD_NS +
                                  (uint64_t)((double)info->weight_bytes * active) / BYTES_PER_NS;
    const uint64_t rest_ns = row_ns > explained_ns ? row_ns - explained_ns : 0;
    return info->macs_per_row + rest_ns * MACS_PER_NS;
}

/* Of this thread: what other processes take does not count. */
static uint64_t cpu_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* False only if there is not a page. */
static bool reserve(struct moed_session *session, size_t rows)
{
    return !session || moed_session_reserve(session, rows) == 0;
}

/* The shortest of several times; the first forward finds nothing in the caches. */
static uint64_t row_ns(const struct model *model, struct moed_scratch *scratch,
                       const struct moed_batch *row, struct moed_session *session)
{
    uint64_t shortest = UINT64_MAX;
    for (int i = 0; i < REPETITIONS && (i == 0 || shortest < LONG_NS); i++) {
        const uint64_t began = cpu_ns();
        if (!reserve(session, 1))
            break;
        moed_forward(model->engine, scratch, NULL, row);
        const uint64_t took = cpu_ns() - began;
        if (session)
            moed_session_truncate(session, 0);
        shortest = took < shortest ? took : shortest;
    }
    return shortest;
}

/* Of one forward pass of a lane. */
static uint64_t most_rows(const struct model *model, const struct model_options *options)
{
    return model_has_sequences(model)
               ? model_step_rows(model, options->step_tokens)
               : serving_limit(model->limits.max_batch_rows, options->max_batch_rows);
}

/* One row to see what it costs, then all `rows`. */
static int run_rows(struct model *model, struct moed_scratch *scratch, const void *const inputs[],
                    float *const outputs[], uint64_t rows, struct error *err)
{
    const struct moed_model_info *info = model->info;
    struct moed_span span = {.rows = 1};
    const struct moed_batch batch = {
        .inputs = inputs, .outputs = outputs, .spans = &span, .span_count = 1};
    struct moed_pages *pages = NULL;
    if (model_keeps_positions(model)) {
        pages = moed_pages_new(model->engine, &(struct moed_room){.positions = rows}, err);
        if (!pages)
            return -1;
        span.session = moed_session_new(pages);
    }
    model->cost_per_row = cost_of(info, row_ns(model, scratch, &batch, span.session));
    span.rows = rows;
    if (rows > 1 && reserve(span.session, rows))
        moed_forward(model->engine, scratch, NULL, &batch);
    moed_session_free(span.session);
    moed_pages_free(pages);
    return 0;
}

/* Rows of zeros in a scratch of the size that lanes will have. */
static int warm_up(struct model *model, const struct model_options *options, uint64_t rows,
                   struct error *err)
{
    const struct moed_model_info *info = model->info;
    const uint64_t max_rows = most_rows(model, options);
    const struct moed_scratch_options wanted = {
        .max_rows = max_rows, .threads = options->threads, .distributions = true};
    struct moed_scratch *scratch = moed_scratch_new(model->engine, &wanted, err);
    if (!scratch)
        return -1;
    model->scratch_bytes = moed_scratch_bytes(scratch);
    void **inputs = xcalloc(info->input_count, sizeof *inputs);
    float **outputs = xcalloc(info->output_count, sizeof *outputs);
    bool failed = false;
    rows = rows < max_rows ? rows : max_rows;
    if (info->context > 0 && rows > info->context)
        rows = info->context;
    for (size_t i = 0; i < info->input_count; i++)
        inputs[i] = zeros(&info->inputs[i], rows, &failed);
    for (size_t i = 0; i < info->output_count; i++)
        outputs[i] = zeros(&info->outputs[i], rows, &failed);
    int result = failed ? error_set(err, ERROR_UNAVAILABLE, "no memory for %llu row%s",
                                    (unsigned long long)rows, text_s(rows))
                        : run_rows(model, scratch, (const void *const *)inputs, outputs, rows, err);
    for (size_t i = 0; i < info->input_count; i++)
        free(inputs[i]);
    for (size_t i = 0; i < info->output_count; i++)
        free(outputs[i]);
    free(inputs);
    free(outputs);
    moed_scratch_free(scratch);
    return result;
}

struct moed_load_options model_load_options(const struct model_options *options)
{
    return (struct moed_load_options){.weights = options->weights,
                                      .activations = options->activations,
                                      .kv = options->kv_f32 ? MOED_KV_F32 : MOED_KV_F16,
                                      .copy = options->copy};
}

struct model *model_load(const char *directory, const char *name, const char *version,
                         const struct model_options *options, const struct serving *serving,
                         struct error *err)
{
    const struct moed_load_options load = model_load_options(options);
    struct model_parts parts;
    if (quarantine_read(options->quarantine, err) != 0 ||
        model_parts_load(&parts, directory, &load, err) != 0)
        return NULL;
    struct model *model = xcalloc(1, sizeof *model);
    atomic_init(&model->holders, 1);
    model->name = xstrdup(name);
    model->version = xstrdup(version);
    model->version_number = strtoull(version, NULL, 10);
    model->limits = serving->limits;
    model->engine = parts.engine;
    model->info = moed_model_info(parts.engine);
    model->language = parts.language;
    model->pooling = parts.pooling;
    model->quarantine = options->quarantine;
    if (uv_mutex_init(&model->mutex) != 0)
        out_of_memory();
    fill_signature(model);
    fill_references(model);
    model->loaded = (int64_t)time(NULL);
    model->stats = model_stats_new(model->info, model_classes(model), options->loops,
                                   options->max_tags, stats_now());
    if (warm_up(model, options, serving->warm_up_rows, err) == 0 &&
        !moed_model_is_damaged(model->engine))
        return model;
    error_set(err, ERROR_INVALID, "its weights were truncated while they were read");
    error_in(err, directory);
    model_release(model);
    return NULL;
}

void model_tell_loaded(const struct model *model)
{
    const struct moed_model_info *info = model->info;
    char positions[64] = "";
    if (model_has_sequences(model))
        snprintf(positions, sizeof positions, ", %llu for each position of a sequence",
                 (unsigned long long)info->position_bytes);
    log_message(LOG_INFO, "model_loaded",
                "%s version %s: %llu parameters; bytes: %llu of weights, %llu of them in mapped "
                "files, %llu of scratch for each loop%s",
                model->name, model->version, (unsigned long long)info->parameters,
                (unsigned long long)info->weight_bytes, (unsigned long long)info->mapped_bytes,
                (unsigned long long)model->scratch_bytes, positions);
}

bool model_adopt_stats(struct model *model, const struct model *other)
{
    if (!model_stats_fit(other->stats, model->info, model_classes(model)))
        return false;
    model_stats_release(model->stats);
    model->stats = model_stats_hold(other->stats);
    return true;
}

/* ---- holding ---- */

struct model *model_hold(struct model *model)
{
    atomic_fetch_add_explicit(&model->holders, 1, memory_order_relaxed);
    return model;
}

void model_release(struct model *model)
{
    if (!model || atomic_fetch_sub(&model->holders, 1) > 1)
        return;
    model_stats_release(model->stats);
    quarantined_release(model->quarantined);
    uv_mutex_destroy(&model->mutex);
    for (size_t i = 0; i < model->info->gate_count; i++)
        free((double *)model->references[i].share);
    free(model->references);
    free(model->items_per_row);
    language_free(model->language);
    for (size_t i = 0; model->words && i < model->info->input_count; i++)
        words_close(&model->words[i]);
    free(model->words);
    free(model->tensors);
    free(model->gates);
    moed_model_free(model->engine); /* whose info says how many of them there are */
    free(model->version);
    free(model->name);
    free(model);
}

/* ---- its files ---- */

uint64_t model_fingerprint(const char *directory)
{
    uint64_t sum = 0; /* in whatever order they are listed */
    DIR *files = opendir(directory);
    for (struct dirent *file; files && (file = readdir(files));) {
        struct stat status;
        if (file->d_name[0] == '.' || strcmp(file->d_name, "serving.json") == 0 ||
            fstatat(dirfd(files), file->d_name, &status, 0) != 0)
            continue;
        const uint64_t facts[] = {(uint64_t)status.st_dev, (uint64_t)status.st_ino,
                                  (uint64_t)status.st_size, (uint64_t)status.st_mtim.tv_sec,
                                  (uint64_t)status.st_mtim.tv_nsec};
        uint64_t hash = hash_bytes(HASH_BASIS, file->d_name, strlen(file->d_name));
        sum += hash_bytes(hash, facts, sizeof facts);
    }
    if (files)
        closedir(files);
    return sum;
}
