/* The metrics page; see metrics.h. One function per family keeps samples of a family together, as
 * the format demands. Labels come from the models, never from request paths. */
#include "server/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "proto/routing_figures.h"
#include "server/api.h"
#include "server/log.h"

/* What is counted, at one moment. */
struct entry {
    const struct model *model;
    struct stats stats; /* of all loops */
};

struct page {
    const struct api *api;
    struct entry *entries; /* [count] one per model, in the catalog's order */
    size_t count;
    struct request_counts other_requests; /* those that reached no model */
};

/* Iterates over the served models. */
#define EACH_MODEL(all, entry)                                                                     \
    for (const struct entry *entry = (all)->entries; entry < (all)->entries + (all)->count; entry++)

enum { MODEL_LABELS = 2 };

static void label_model(struct prometheus_label *labels, const struct model *model)
{
    labels[0] = (struct prometheus_label){"model", model->name};
    labels[1] = (struct prometheus_label){"version", model->version};
}

static void request_samples(struct buffer *page, const char *model, const char *version,
                            const struct request_counts *counts)
{
    for (size_t i = 0; i < counts->count; i++) {
        char code[8];
        snprintf(code, sizeof code, "%d", counts->items[i].status);
        const struct prometheus_label labels[] = {{"model", model},
                                                  {"version", version},
                                                  {"protocol", counts->items[i].protocol},
                                                  {"code", code}};
        prometheus_sample(page, "moed_requests_total", labels, 4, (double)counts->items[i].count);
    }
}

static void requests(const struct page *all, struct buffer *page)
{
    prometheus_family(page, "moed_requests_total", "counter",
                      "Inference requests by model, protocol and HTTP status; with an empty model, "
                      "requests that named none and failed.");
    request_samples(page, "", "", &all->other_requests);
    EACH_MODEL (all, entry)
        request_samples(page, entry->model->name, entry->model->version, &entry->stats.requests);
}

static void histogram_family(const struct page *all, struct buffer *page, const char *name,
                             const char *help, size_t offset)
{
    prometheus_family(page, name, "histogram", help);
    EACH_MODEL (all, entry) {
        struct prometheus_label labels[MODEL_LABELS];
        label_model(labels, entry->model);
        const char *stats = (const char *)&entry->stats;
        prometheus_histogram(page, name, labels, MODEL_LABELS,
                             (const struct histogram *)(const void *)(stats + offset));
    }
}

static void histograms(const struct page *all, struct buffer *page)
{
    histogram_family(all, page, "moed_request_seconds",
                     "Inference requests from their first byte to the end of the answer.",
                     offsetof(struct stats, request_seconds));
    histogram_family(all, page, "moed_queue_seconds",
                     "Time from a request's arrival in the queue to the start of each batch that "
                     "holds rows of it.",
                     offsetof(struct stats, queue_seconds));
    histogram_family(all, page, "moed_compute_seconds", "Time to compute one batch.",
                     offsetof(struct stats, compute_seconds));
    histogram_family(all, page, "moed_batch_rows", "Rows per computed batch.",
                     offsetof(struct stats, batch_rows));
}

static double rows_total(const struct entry *entry)
{
    return (double)entry->stats.rows;
}

static double queue_rows(const struct entry *entry)
{
    return (double)entry->stats.queue_rows;
}

static double model_loaded(const struct entry *entry)
{
    (void)entry;
    return 1;
}

static double model_bytes(const struct entry *entry)
{
    return (double)entry->model->info->weight_bytes;
}

static void per_model(const struct page *all, struct buffer *page)
{
    static const struct {
        const char *name, *type, *help;
        double (*value)(const struct entry *entry);
    } families[] = {
        {"moed_rows_total", "counter", "Rows computed.", rows_total},
        {"moed_queue_rows", "gauge", "Rows waiting to be computed.", queue_rows},
        {"moed_model_loaded", "gauge", "1 for every model version that is served.", model_loaded},
        {"moed_model_bytes", "gauge", "Bytes of weights.", model_bytes},
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        prometheus_family(page, families[i].name, families[i].type, families[i].help);
        EACH_MODEL (all, entry) {
            struct prometheus_label labels[MODEL_LABELS];
            label_model(labels, entry->model);
            prometheus_sample(page, families[i].name, labels, MODEL_LABELS,
                              families[i].value(entry));
        }
    }
}

/* The family has no version label, so the versions [first, last) of a model are summed: a series
 * must not stand on the page twice. */
static void model_rejections(const struct entry *entries, size_t first, size_t last,
                             struct buffer *page)
{
    for (int reason = 0; reason < REJECT_COUNT; reason++) {
        uint64_t count = 0;
        for (size_t i = first; i < last; i++)
            count += entries[i].stats.rejected[reason];
        const struct prometheus_label labels[] = {
            {"model", entries[first].model->name},
            {"reason", reject_word((enum reject_reason)reason)}};
        prometheus_sample(page, "moed_rejected_total", labels, 2, (double)count);
    }
}

static void rejections(const struct page *all, struct buffer *page)
{
    prometheus_family(page, "moed_rejected_total", "counter",
                      "Inference requests answered without being computed, by reason.");
    for (size_t first = 0, last; first < all->count; first = last) {
        const char *name = all->entries[first].model->name;
        for (last = first + 1; last < all->count; last++)
            if (strcmp(all->entries[last].model->name, name) != 0)
                break;
        model_rejections(all->entries, first, last, page);
    }
}

/* ---- gates ---- */

static const struct moed_gate_counts *counts_of(const struct entry *entry, size_t gate)
{
    return entry->stats.routing->gates[gate];
}

static void label_gate(struct prometheus_label *labels, const struct entry *entry, size_t gate)
{
    label_model(labels, entry->model);
    labels[MODEL_LABELS] = (struct prometheus_label){"layer", entry->model->info->gates[gate].name};
}

static double usage_entropy(const struct routing_figures *figures)
{
    return figures->usage_entropy_bits;
}

static double gate_entropy(const struct routing_figures *figures)
{
    return figures->gate_entropy_bits;
}

static double imbalance(const struct routing_figures *figures)
{
    return figures->imbalance;
}

static double unused(const struct routing_figures *figures)
{
    return (double)figures->unused;
}

static void per_layer(const struct page *all, struct buffer *page)
{
    static const struct {
        const char *name, *help;
        double (*value)(const struct routing_figures *figures);
    } families[] = {
        {"moed_layer_usage_entropy_bits",
         "Entropy of the mean gate distribution: log2(experts) when all are used alike.",
         usage_entropy},
        {"moed_layer_gate_entropy_bits",
         "Mean entropy of the gate distribution of one row: 0 when the gate is sure.",
         gate_entropy},
        {"moed_layer_imbalance_ratio",
         "Largest share of selections over the mean share: 1 when balanced.", imbalance},
        {"moed_layer_unused_experts", "Experts that no row has selected yet.", unused},
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        prometheus_family(page, families[i].name, "gauge", families[i].help);
        EACH_MODEL (all, entry)
            for (size_t j = 0; j < entry->model->info->gate_count; j++) {
                const struct routing_figures figures = routing_figures_of(counts_of(entry, j));
                struct prometheus_label labels[MODEL_LABELS + 1];
                label_gate(labels, entry, j);
                prometheus_sample(page, families[i].name, labels, MODEL_LABELS + 1,
                                  families[i].value(&figures));
            }
    }
}

static void dropped(const struct page *all, struct buffer *page)
{
    prometheus_family(page, "moed_dropped_total", "counter",
                      "Selections dropped because the expert's capacity was taken.");
    EACH_MODEL (all, entry)
        for (size_t i = 0; i < entry->model->info->gate_count; i++) {
            struct prometheus_label labels[MODEL_LABELS + 1];
            label_gate(labels, entry, i);
            if (entry->model->info->gates[i].limited)
                prometheus_sample(page, "moed_dropped_total", labels, MODEL_LABELS + 1,
                                  (double)routing_dropped(counts_of(entry, i)));
        }
}

static double selected(const struct moed_expert_counts *expert)
{
    return (double)expert->selected;
}

static double weight(const struct moed_expert_counts *expert)
{
    return moed_sum_value(expert->weight);
}

static void expert_family(const struct page *all, struct buffer *page, const char *name,
                          const char *help,
                          double (*value)(const struct moed_expert_counts *expert))
{
    prometheus_family(page, name, "counter", help);
    EACH_MODEL (all, entry)
        for (size_t i = 0; i < entry->model->info->gate_count; i++) {
            const struct moed_gate_info *gate = &entry->model->info->gates[i];
            const struct moed_gate_counts *counts = counts_of(entry, i);
            struct prometheus_label labels[MODEL_LABELS + 2];
            label_gate(labels, entry, i);
            for (size_t expert = 0; expert < counts->experts; expert++) {
                char text[24];
                snprintf(text, sizeof text, "%zu",
                         gate->expert_index ? (size_t)gate->expert_index[expert] : expert);
                labels[MODEL_LABELS + 1] = (struct prometheus_label){"expert", text};
                prometheus_sample(page, name, labels, MODEL_LABELS + 2,
                                  value(&counts->expert[expert]));
            }
        }
}

/* Per-expert series grow with layers x experts: above the configured number a scrape keeps the
 * layer aggregates only, and the full matrix stays at /v2/models/M/routing. */
static void per_expert(const struct page *all, struct buffer *page)
{
    uint64_t series = 0;
    EACH_MODEL (all, entry)
        for (size_t i = 0; i < entry->model->info->gate_count; i++)
            series += 2 * entry->model->info->gates[i].experts;
    if (series > all->api->options->max_expert_series)
        return;
    expert_family(all, page, "moed_expert_selected_total", "Rows that selected the expert.",
                  selected);
    expert_family(all, page, "moed_expert_weight_total", "Combine weight given to the expert.",
                  weight);
}

static void process(const struct page *all, struct buffer *page)
{
    const struct prometheus_label version = {"version", MOED_VERSION};
    prometheus_family(page, "moed_connections", "gauge", "Open HTTP connections.");
    prometheus_sample(page, "moed_connections", NULL, 0, totals_connections(all->api->totals));
    prometheus_family(page, "moed_log_dropped_total", "counter",
                      "Log lines lost because nobody read standard error in time.");
    prometheus_sample(page, "moed_log_dropped_total", NULL, 0, (double)log_dropped());
    prometheus_family(page, "moed_build_info", "gauge", "1, labelled with the version.");
    prometheus_sample(page, "moed_build_info", &version, 1, 1);
}

static void page_init(struct page *all, const struct api *api)
{
    const struct catalog *catalog = api->lanes->catalog;
    *all = (struct page){.api = api, .count = catalog->count};
    all->entries = xcalloc(all->count, sizeof *all->entries);
    for (size_t i = 0; i < all->count; i++) {
        const struct model *model = all->entries[i].model = catalog->models[i];
        stats_snapshot(model->stats, model->info, &all->entries[i].stats);
    }
    totals_other_requests(api->totals, &all->other_requests);
}

static void page_close(struct page *all)
{
    for (size_t i = 0; i < all->count; i++)
        stats_close(&all->entries[i].stats);
    free(all->entries);
    request_counts_close(&all->other_requests);
}

void metrics_page(const struct api *api, struct buffer *page)
{
    struct page all;
    page_init(&all, api);
    process(&all, page);
    requests(&all, page);
    histograms(&all, page);
    per_model(&all, page);
    rejections(&all, page);
    per_layer(&all, page);
    dropped(&all, page);
    per_expert(&all, page);
    page_close(&all);
}
