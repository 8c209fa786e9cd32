/* One row for each name: a client's word, and who writes that part. */
#include "proto/routing_include.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"
#include "proto/json.h"
#include "proto/members.h"
#include "proto/routing_cache.h"
#include "proto/routing_figures.h"

/* ---- tables ---- */

static void append_counts(struct buffer *body, const uint64_t *counts, size_t count)
{
    buffer_text(body, "[");
    for (size_t i = 0; i < count; i++)
        buffer_format(body, "%s%" PRIu64, i > 0 ? "," : "", counts[i]);
    buffer_text(body, "]");
}

/* [rows][columns]; null when the table is left out. */
static void append_table(struct buffer *body, const uint64_t *table, size_t rows, size_t columns)
{
    if (!table) {
        buffer_text(body, "null");
        return;
    }
    for (size_t row = 0; row < rows; row++) {
        buffer_text(body, row > 0 ? "," : "[");
        append_counts(body, table + row * columns, columns);
    }
    buffer_text(body, "]");
}

/* ---- since the load ---- */

static void append_ranks(const struct routing_layer *layer, struct buffer *body)
{
    buffer_text(body, ",\"ranks\":");
    append_table(body, layer->detail->ranks, layer->detail->experts, layer->detail->top_k);
}

/* Which experts those are, and since when; null: they are still to be chosen. */
static void append_busiest(const struct routing_layer *layer, uint64_t now, struct buffer *body)
{
    const struct routing_detail *detail = layer->detail;
    const struct routing_busiest *busiest = &detail->busiest;
    buffer_text(body, ",\"pairs_of\":");
    if (!detail->pairs) {
        buffer_text(body, "null");
        return;
    }
    buffer_format(body,
                  "{\"rows\":%" PRIu64 ",\"outside\":%" PRIu64 ",\"seconds\":", busiest->items,
                  busiest->outside);
    json_append_double(body, now > busiest->since ? (double)(now - busiest->since) / 1e9 : 0);
    for (size_t i = 0; i < busiest->side; i++)
        buffer_format(body, "%s[%zu,%" PRIu64 "]", i > 0 ? "," : ",\"experts\":[",
                      routing_expert_index(layer->expert_index, busiest->expert[i]),
                      detail->pairs[i * busiest->side + i]);
    buffer_text(body, "]}");
}

static void append_pairs(const struct routing_layer *layer, struct buffer *body)
{
    const struct routing_detail *detail = layer->detail;
    const size_t side = detail->busiest.side;
    const char *separator = "";
    buffer_text(body, detail->pairs ? ",\"pairs\":[" : ",\"pairs\":null");
    for (size_t i = 0; detail->pairs && i < side; i++)
        for (size_t j = i + 1; j < side; j++) {
            const uint64_t rows = detail->pairs[i * side + j];
            if (rows == 0)
                continue;
            buffer_format(
                body, "%s[%zu,%zu,%" PRIu64 "]", separator,
                routing_expert_index(layer->expert_index, routing_detail_paired(detail, i)),
                routing_expert_index(layer->expert_index, routing_detail_paired(detail, j)), rows);
            separator = ",";
        }
    buffer_text(body, detail->pairs ? "]" : "");
}

/* In the order of the pairs. */
static void append_lifts(const struct routing_layer *layer, struct buffer *body)
{
    const struct routing_detail *detail = layer->detail;
    const size_t side = detail->busiest.side;
    const bool known = routing_has_lifts(detail);
    const char *separator = "";
    buffer_text(body, known ? ",\"lifts\":[" : ",\"lifts\":null");
    for (size_t i = 0; known && i < side; i++)
        for (size_t j = i + 1; j < side; j++) {
            if (detail->pairs[i * side + j] == 0)
                continue;
            buffer_text(body, separator);
            json_append_double(body, routing_lift(detail, i, j));
            separator = ",";
        }
    buffer_text(body, known ? "]" : "");
}

static void append_class_table(const struct routing_detail *detail, const uint64_t *table,
                               struct buffer *body)
{
    buffer_text(body, "\"counts\":");
    append_table(body, table, detail->experts, detail->classes);
    buffer_text(body, ",\"mi_bits\":");
    json_append_double(
        body, table ? routing_mutual_information(table, detail->experts, detail->classes) : 0);
    buffer_text(body, ",\"dispatch_entropy_bits\":");
    json_append_double(
        body, table ? routing_dispatch_entropy(table, detail->experts, detail->classes) : 0);
}

static bool has_labels(const struct routing_detail *detail)
{
    bool has = false;
    for (size_t i = 0; detail->truth && i < detail->experts * detail->classes; i++)
        has |= detail->truth[i] > 0;
    return has;
}

static double log_loss_of(const struct quality_figures *figures)
{
    return figures->log_loss;
}

static double ece_of(const struct quality_figures *figures)
{
    return figures->ece;
}

/* One figure of each expert and class; null where no item of the class ranked the expert first, and
 * for all when that was not counted. */
static void append_qualities(const struct routing_detail *detail,
                             double (*figure)(const struct quality_figures *), struct buffer *body)
{
    if (!detail->quality) {
        buffer_text(body, "null");
        return;
    }
    for (size_t i = 0; i < detail->experts * detail->classes; i++) {
        const struct quality_figures figures = routing_quality_figures(&detail->quality[i]);
        buffer_text(body, i == 0 ? "[[" : i % detail->classes == 0 ? "],[" : ",");
        if (figures.labelled > 0)
            json_append_double(body, figure(&figures));
        else
            buffer_text(body, "null");
    }
    buffer_text(body, "]]");
}

static void append_truth(const struct routing_detail *detail, struct buffer *body)
{
    buffer_text(body, ",\"truth\":{");
    append_class_table(detail, detail->truth, body);
    buffer_text(body, ",\"correct\":");
    append_table(body, detail->correct, detail->experts, detail->classes);
    buffer_text(body, ",\"log_loss\":");
    append_qualities(detail, log_loss_of, body);
    buffer_text(body, ",\"ece\":");
    append_qualities(detail, ece_of, body);
    buffer_text(body, "}");
}

static void append_classes(const struct routing_layer *layer, struct buffer *body)
{
    const struct routing_detail *detail = layer->detail;
    if (detail->classes == 0) {
        buffer_text(body, ",\"classes\":null");
        return;
    }
    buffer_text(body, ",\"classes\":{\"labels\":");
    for (size_t i = 0; layer->class_labels && i < detail->classes; i++) {
        buffer_text(body, i > 0 ? "," : "[");
        json_append_string(body, layer->class_labels[i]);
    }
    buffer_text(body, layer->class_labels ? "]," : "null,");
    append_class_table(detail, detail->predicted, body);
    if (has_labels(detail))
        append_truth(detail, body);
    buffer_text(body, "}");
}

static void append_steps(const struct routing_detail *detail, struct buffer *body)
{
    const double batches = detail->batches > 0 ? (double)detail->batches : 1;
    buffer_format(body, "\"count\":%" PRIu64 ",\"mean_rows\":", detail->batches);
    json_append_double(body, (double)detail->batch_items / batches);
    buffer_text(body, ",\"mean_experts\":");
    json_append_double(body, (double)detail->batch_experts / batches);
    buffer_text(body, ",\"experts\":");
    if (detail->distinct)
        append_counts(body, detail->distinct, detail->experts);
    else
        buffer_text(body, "null");
}

static void append_batches(const struct routing_layer *layer, struct buffer *body)
{
    buffer_text(body, ",\"batches\":{");
    append_steps(layer->detail, body);
    buffer_text(body, "}");
}

/* ---- caches ---- */

struct policy_hits {
    uint64_t *depths; /* [experts] */
    uint64_t hits;    /* of the size at hand */
};

static void append_rates(struct buffer *body, struct policy_hits hits[CACHE_POLICIES],
                         size_t experts, uint64_t uses)
{
    static const char *const NAMES[] = {"lru", "lfu", "belady"};
    size_t next = 1;
    for (size_t size = 1; size < experts; size++) {
        for (int i = 0; i < CACHE_POLICIES; i++)
            hits[i].hits += hits[i].depths[size - 1];
        if (size != next)
            continue;
        next *= 2;
        buffer_format(body, "%s{\"size\":%zu,\"uses\":%" PRIu64, size > 1 ? "," : "", size, uses);
        for (int i = 0; i < CACHE_POLICIES; i++) {
            buffer_format(body, ",\"%s\":", NAMES[i]);
            json_append_double(body, (double)hits[i].hits / (double)uses);
        }
        buffer_text(body, "}");
    }
}

/* What caches of 1, 2, 4, ... experts would have had of the latest uses. */
static void append_caches(const struct routing_detail *detail, struct buffer *body)
{
    struct policy_hits hits[CACHE_POLICIES] = {{0}};
    if (!detail->recent) {
        buffer_text(body, ",\"cache\":null");
        return;
    }
    for (int i = 0; i < CACHE_POLICIES; i++) {
        hits[i].depths = xcalloc(detail->experts, sizeof *hits[i].depths);
        routing_cache_depths(detail->recent, detail->recorded, detail->experts,
                             (enum routing_cache_policy)i, hits[i].depths);
    }
    buffer_text(body, ",\"cache\":[");
    append_rates(body, hits, detail->experts, detail->recorded);
    buffer_text(body, "]");
    for (int i = 0; i < CACHE_POLICIES; i++)
        free(hits[i].depths);
}

static void append_cache(const struct routing_layer *layer, struct buffer *body)
{
    append_caches(layer->detail, body);
}

/* ---- phases of sequences ---- */

static void append_phase(const struct routing_detail *detail, const char *before,
                         struct buffer *body)
{
    buffer_text(body, before);
    append_steps(detail, body);
    append_caches(detail, body);
    buffer_text(body, "}");
}

static void append_phases(const struct routing_layer *layer, struct buffer *body)
{
    if (!layer->prompt) {
        buffer_text(body, ",\"phases\":null");
        return;
    }
    append_phase(layer->prompt, ",\"phases\":{\"prompt\":{", body);
    append_phase(layer->generated, ",\"generated\":{", body);
    buffer_format(body, "},\"expert_bytes\":%" PRIu64, layer->expert_bytes);
}

/* ---- in the window ---- */

static void append_histogram(struct buffer *body, const char *name, const uint64_t *counts,
                             double most)
{
    buffer_format(body, ",\"%s\":{\"bounds\":[0", name);
    for (int i = 1; i <= MOED_HISTOGRAM_PARTS; i++) {
        buffer_text(body, ",");
        json_append_double(body, most * i / MOED_HISTOGRAM_PARTS);
    }
    buffer_text(body, "],\"counts\":");
    append_counts(body, counts, MOED_HISTOGRAM_PARTS);
    buffer_text(body, "}");
}

static void append_margins(const struct routing_layer *layer, struct buffer *body)
{
    append_histogram(body, "margins", layer->counts->margins, 1);
}

static void append_entropies(const struct routing_layer *layer, struct buffer *body)
{
    append_histogram(body, "entropies", layer->counts->entropies,
                     log2((double)layer->counts->experts));
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static void append_coverage(const struct routing_layer *layer, struct buffer *body)
{
    const size_t experts = layer->counts->experts;
    double *shares = xcalloc(experts, sizeof *shares), sum = 0;
    (void)routing_sample_of(layer->counts, routing_is_dense(layer), shares);
    qsort(shares, experts, sizeof *shares, by_size);
    buffer_text(body, ",\"coverage\":[");
    for (size_t i = 0; i < experts; i++) {
        sum += shares[i];
        buffer_format(body, "%s{\"experts\":%zu,\"share\":", i > 0 ? "," : "", i + 1);
        json_append_double(body, sum);
        buffer_text(body, "}");
    }
    buffer_text(body, "]");
    free(shares);
}

/* ---- exactly ---- */

/* Sums as integers of 2^-32, which add up; in strings, for they may be longer than a reader's. */
static void append_sum(struct buffer *body, const char *before, __int128 sum)
{
    char digits[44];
    size_t at = sizeof digits - 1;
    unsigned __int128 rest = sum < 0 ? -(unsigned __int128)sum : (unsigned __int128)sum;
    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + (int)(rest % 10));
    while ((rest /= 10) > 0);
    buffer_format(body, "%s\"%s%s\"", before, sum < 0 ? "-" : "", digits + at);
}

static void append_exact_quality(struct buffer *body, const struct routing_quality *quality)
{
    append_sum(body, "\"log_loss\":", quality->log_loss);
    buffer_text(body, ",\"bins\":[");
    for (size_t i = 0; i < QUALITY_BINS; i++) {
        const struct quality_bin *bin = &quality->bins[i];
        buffer_format(body, "%s[%" PRIu64 ",%" PRIu64, i > 0 ? "," : "", bin->items, bin->correct);
        append_sum(body, ",", bin->confidence);
        buffer_text(body, "]");
    }
    buffer_text(body, "]");
}

/* [experts][classes], since the load; {}: no item. */
static void append_exact_classes(const struct routing_detail *detail, struct buffer *body)
{
    buffer_text(body, ",\"classes\":");
    for (size_t i = 0; i < detail->experts * detail->classes; i++) {
        const struct routing_quality *quality = &detail->quality[i];
        buffer_text(body, i == 0 ? "[[{" : i % detail->classes == 0 ? "],[{" : ",{");
        if (routing_quality_figures(quality).labelled > 0)
            append_exact_quality(body, quality);
        buffer_text(body, "}");
    }
    buffer_text(body, "]]");
}

static void append_exact(const struct routing_layer *layer, struct buffer *body)
{
    const struct moed_gate_counts *counts = layer->counts;
    append_sum(body, ",\"exact\":{\"gate_entropy_bits\":", counts->entropy);
    append_sum(body, ",\"margin\":", counts->margin);
    buffer_text(body, ",\"experts\":[");
    for (size_t i = 0; i < counts->experts; i++) {
        append_sum(body, i > 0 ? ",{\"weight\":" : "{\"weight\":", counts->expert[i].weight);
        append_sum(body, ",\"part\":", counts->expert[i].part);
        append_sum(body, ",\"probability\":", counts->expert[i].probability);
        append_sum(body, ",\"compute_seconds\":", counts->expert[i].seconds);
        if (layer->quality) {
            buffer_text(body, ",");
            append_exact_quality(body, &layer->quality[i]);
        }
        buffer_text(body, "}");
    }
    buffer_text(body, "]");
    if (has_labels(layer->detail) && layer->detail->quality)
        append_exact_classes(layer->detail, body);
    buffer_text(body, "}");
}

/* ---- by name ---- */

static const struct {
    const char *name;
    void (*append)(const struct routing_layer *layer, struct buffer *body);
} PARTS[] = {{"ranks", append_ranks},       {"pairs", append_pairs},
             {"lifts", append_lifts},       {"classes", append_classes},
             {"margins", append_margins},   {"entropies", append_entropies},
             {"coverage", append_coverage}, {"batches", append_batches},
             {"exact", append_exact},       {"cache", append_cache},
             {"phases", append_phases},     {"drift", NULL}}; /* drift is always there */

enum { PART_COUNT = sizeof PARTS / sizeof *PARTS };

static int find_part(const char *name, size_t length)
{
    for (int i = 0; i < PART_COUNT; i++)
        if (strlen(PARTS[i].name) == length && memcmp(PARTS[i].name, name, length) == 0)
            return i;
    return -1;
}

static unsigned bit_of(const char *name)
{
    return 1u << find_part(name, strlen(name));
}

int routing_include_read(const char *text, unsigned *include, struct error *err)
{
    const char *item;
    size_t length;
    *include = 0;
    while (text_next_item(&text, &item, &length)) {
        const int part = find_part(item, length);
        if (part < 0)
            return error_set(
                err, ERROR_INVALID,
                "include has " QUOTED ", expected ranks, pairs, lifts, classes, margins, "
                "entropies, coverage, batches, exact, cache, phases or drift, separated by commas",
                item);
        *include |= 1u << part;
    }
    return 0;
}

bool routing_include_takes_long(unsigned include)
{
    return include & (bit_of("cache") | bit_of("phases"));
}

void routing_include_append(const struct routing_document *document,
                            const struct routing_layer *layer, struct buffer *body)
{
    for (int i = 0; i < PART_COUNT; i++)
        if ((document->include & 1u << i) && PARTS[i].append)
            PARTS[i].append(layer, body);
    if ((document->include & bit_of("pairs")) && routing_detail_has_busiest(layer->detail))
        append_busiest(layer, document->now, body);
}

/* A step reads what all its tokens share, and every expert that any of them needs. */
static double bytes_per_token(const struct routing_document *document, bool generated)
{
    const struct routing_layer *first = document->layers;
    const struct routing_detail *steps = generated ? first->generated : first->prompt;
    double bytes = (double)document->shared_bytes * (double)steps->batches;
    for (size_t i = 0; i < document->layer_count; i++) {
        const struct routing_layer *layer = &document->layers[i];
        const struct routing_detail *phase = generated ? layer->generated : layer->prompt;
        bytes += (double)layer->expert_bytes * (double)phase->batch_experts;
    }
    return steps->batch_items > 0 ? bytes / (double)steps->batch_items : 0;
}

void routing_include_append_memory(const struct routing_document *document, struct buffer *body)
{
    if (!(document->include & bit_of("phases")) || document->layer_count == 0 ||
        !document->layers->prompt)
        return;
    buffer_format(body, ",\"memory\":{\"shared_bytes\":%" PRIu64 ",\"prompt_bytes_per_token\":",
                  document->shared_bytes);
    json_append_double(body, bytes_per_token(document, false));
    buffer_text(body, ",\"generated_bytes_per_token\":");
    json_append_double(body, bytes_per_token(document, true));
    buffer_text(body, "}");
}
