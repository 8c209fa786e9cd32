/* One function per family keeps its samples together, as the format demands. Labels come from the
 * models, never from request paths. */
#include "server/statistics/metrics.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"
#include "server/log.h"
#include "server/statistics/metrics_page.h"
#include "server/statistics/repository_metrics.h"
#include "server/statistics/state.h"

/* ---- requests ---- */

static void request_samples(struct prometheus_page *page, const char *model, const char *version,
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

static void requests(struct metrics *all)
{
    prometheus_family(&all->page, "moed_requests_total", "counter",
                      "Inference requests by model, protocol and HTTP status; with an empty model, "
                      "requests that named none and failed.");
    request_samples(&all->page, "", "", &all->other_requests);
    EACH_MODEL (all, entry)
        request_samples(&all->page, entry->model->name, entry->model->version,
                        &entry->stats.requests);
}

static void histogram_family(struct metrics *all, const char *name, const char *help, size_t offset)
{
    prometheus_family(&all->page, name, "histogram", help);
    EACH_MODEL (all, entry) {
        struct prometheus_label labels[METRICS_MODEL_LABELS];
        metrics_label_model(labels, entry->model);
        const char *stats = (const char *)&entry->stats;
        prometheus_histogram(&all->page, name, labels, METRICS_MODEL_LABELS,
                             (const struct histogram *)(const void *)(stats + offset));
    }
}

static void histograms(struct metrics *all)
{
    histogram_family(all, "moed_request_seconds",
                     "Inference requests from their first byte to the end of the answer.",
                     offsetof(struct stats, request_seconds));
    histogram_family(all, "moed_queue_seconds",
                     "Time from a request's arrival in the queue to the start of each batch that "
                     "holds rows of it.",
                     offsetof(struct stats, queue_seconds));
    histogram_family(all, "moed_compute_seconds", "Time to compute one batch.",
                     offsetof(struct stats, compute_seconds));
    histogram_family(all, "moed_batch_rows", "Rows per computed batch.",
                     offsetof(struct stats, batch_rows));
}

static double rows_total(const struct metrics_model *entry)
{
    return (double)entry->stats.rows;
}

static double nonfinite_rows_total(const struct metrics_model *entry)
{
    return (double)entry->stats.times.nonfinite_count;
}

static double feedback_lost_total(const struct metrics_model *entry)
{
    return (double)feedback_lost(&entry->model->stats->feedback);
}

static double queue_rows(const struct metrics_model *entry)
{
    return (double)entry->stats.queue_rows;
}

static double model_loaded(const struct metrics_model *entry)
{
    (void)entry;
    return 1;
}

static double model_bytes(const struct metrics_model *entry)
{
    return (double)entry->model->info->weight_bytes;
}

static void per_model(struct metrics *all)
{
    static const struct {
        const char *name, *type, *help;
        double (*value)(const struct metrics_model *entry);
    } families[] = {
        {"moed_rows_total", "counter", "Rows computed.", rows_total},
        {"moed_nonfinite_rows_total", "counter",
         "Rows whose answer is not finite; of language models, positions for which no token can be "
         "chosen.",
         nonfinite_rows_total},
        {"moed_feedback_lost_total", "counter",
         "Requests with labels for an answer that was not, or no longer, remembered.",
         feedback_lost_total},
        {"moed_queue_rows", "gauge", "Rows waiting to be computed.", queue_rows},
        {"moed_model_loaded", "gauge", "1 for every model version that is served.", model_loaded},
        {"moed_model_bytes", "gauge", "Bytes of weights.", model_bytes},
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        prometheus_family(&all->page, families[i].name, families[i].type, families[i].help);
        EACH_MODEL (all, entry) {
            struct prometheus_label labels[METRICS_MODEL_LABELS];
            metrics_label_model(labels, entry->model);
            prometheus_sample(&all->page, families[i].name, labels, METRICS_MODEL_LABELS,
                              families[i].value(entry));
        }
    }
}

static void rejections(struct metrics *all)
{
    prometheus_family(&all->page, "moed_rejected_total", "counter",
                      "Inference requests answered without being computed, by reason.");
    EACH_MODEL (all, entry) {
        struct prometheus_label labels[METRICS_MODEL_LABELS + 1];
        metrics_label_model(labels, entry->model);
        for (int reason = 0; reason < REJECT_COUNT; reason++) {
            const char *word = reject_word((enum reject_reason)reason);
            labels[METRICS_MODEL_LABELS] = (struct prometheus_label){"reason", word};
            prometheus_sample(&all->page, "moed_rejected_total", labels, METRICS_MODEL_LABELS + 1,
                              (double)entry->stats.rejected[reason]);
        }
    }
}

static void tagged_rows(struct metrics *all)
{
    prometheus_family(&all->page, "moed_tag_rows_total", "counter",
                      "Rows counted on behalf of a tag; of those without one, the tag is empty.");
    EACH_MODEL (all, entry) {
        struct model_stats *stats = entry->model->stats;
        struct prometheus_label labels[METRICS_MODEL_LABELS + 1];
        metrics_label_model(labels, entry->model);
        for (size_t tag = TAG_NONE; tag < tags_end(&stats->tags); tag++) {
            const char *name = tag == TAG_NONE ? "" : tags_name(&stats->tags, tag);
            labels[METRICS_MODEL_LABELS] = (struct prometheus_label){"tag", name};
            if (name)
                prometheus_sample(&all->page, "moed_tag_rows_total", labels,
                                  METRICS_MODEL_LABELS + 1,
                                  (double)model_stats_rows(stats, tag, false));
        }
    }
}

/* ---- the page ---- */

static void configuration(struct metrics *all)
{
    const struct options *options = all->api->options;
    char loops[24], rows[24];
    snprintf(loops, sizeof loops, "%llu", (unsigned long long)options->loops);
    snprintf(rows, sizeof rows, "%llu", (unsigned long long)options->max_batch_rows);
    const struct prometheus_label labels[] = {{"kernel", moed_kernel_name()},
                                              {"loops", loops},
                                              {"max_batch_rows", rows},
                                              {"weights", options->weights}};
    prometheus_family(&all->page, "moed_config_info", "gauge",
                      "1, labelled with what decides how models are computed.");
    prometheus_sample(&all->page, "moed_config_info", labels, 4, 1);
}

static void state(const struct state *state, struct prometheus_page *page)
{
    const struct {
        const char *name, *type, *help;
        const atomic_ullong *value;
    } families[] = {
        {"moed_state_written_total", "counter", "Snapshots of statistics written.",
         &state->written},
        {"moed_state_failures_total", "counter", "Snapshots that could not be written.",
         &state->failures},
        {"moed_state_damaged_total", "counter", "Snapshots set aside because they were damaged.",
         &state->damaged},
        {"moed_state_written_timestamp_seconds", "gauge",
         "When one was written last, since 1970; 0: none yet.", &state->last_written_seconds},
    };
    for (size_t i = 0; state->directory && i < sizeof families / sizeof *families; i++) {
        prometheus_family(page, families[i].name, families[i].type, families[i].help);
        prometheus_sample(page, families[i].name, NULL, 0, (double)atomic_load(families[i].value));
    }
}

static void traces(const struct trace *trace, struct prometheus_page *page)
{
    if (!trace_is_on(trace))
        return;
    prometheus_family(page, "moed_trace_spans_sent_total", "counter",
                      "Requests whose spans the collector of traces took.");
    prometheus_sample(page, "moed_trace_spans_sent_total", NULL, 0,
                      (double)atomic_load(&trace->sent));
    prometheus_family(page, "moed_trace_spans_lost_total", "counter",
                      "Requests whose spans it did not take, or that had no room to wait.");
    prometheus_sample(page, "moed_trace_spans_lost_total", NULL, 0,
                      (double)atomic_load(&trace->lost));
}

static void server_wide(struct metrics *all)
{
    const struct prometheus_label version = {"version", MOED_VERSION};
    prometheus_family(&all->page, "moed_connections", "gauge", "Open HTTP connections.");
    prometheus_sample(&all->page, "moed_connections", NULL, 0,
                      totals_connections(all->api->totals));
    prometheus_family(&all->page, "moed_log_dropped_total", "counter",
                      "Log lines lost because nobody read standard error in time.");
    prometheus_sample(&all->page, "moed_log_dropped_total", NULL, 0, (double)log_dropped());
    state(all->api->state, &all->page);
    traces(all->api->trace, &all->page);
    prometheus_family(&all->page, "moed_build_info", "gauge", "1, labelled with the version.");
    prometheus_sample(&all->page, "moed_build_info", &version, 1, 1);
    configuration(all);
}

static void metrics_init(struct metrics *all, const struct api *api)
{
    const struct catalog *catalog = api->lanes->catalog;
    uint64_t now = stats_now();
    *all = (struct metrics){.api = api, .count = catalog->count};
    all->models = xcalloc(all->count, sizeof *all->models);
    for (size_t i = 0; i < all->count; i++) {
        struct metrics_model *entry = &all->models[i];
        const struct model *model = entry->model = catalog->models[i];
        stats_snapshot(model->stats, model->info, &entry->stats);
        for (int window = 0; window < WINDOW_COUNT; window++)
            stats_window_init(&entry->windows[window], model->stats, (enum window)window,
                              STATS_ALL_TAGS, window == WINDOW_5M, now);
    }
    for (int status = 404; status <= 405; status++)
        request_counts_add(&all->other_requests, "", status, 0); /* exist from the start */
    totals_other_requests(api->totals, &all->other_requests);
}

static void metrics_close(struct metrics *all)
{
    for (size_t i = 0; i < all->count; i++) {
        stats_close(&all->models[i].stats);
        for (int window = 0; window < WINDOW_COUNT; window++)
            stats_window_close(&all->models[i].windows[window]);
    }
    free(all->models);
    request_counts_close(&all->other_requests);
}

void metrics_page(const struct api *api, bool openmetrics, struct buffer *body)
{
    struct metrics all;
    metrics_init(&all, api);
    all.page = (struct prometheus_page){body, openmetrics};
    server_wide(&all);
    metrics_process(&all);
    requests(&all);
    histograms(&all);
    per_model(&all);
    rejections(&all);
    tagged_rows(&all);
    metrics_sequences(&all);
    metrics_routing(&all);
    metrics_experts(&all);
    repository_metrics(api->lanes->catalog, &all.page);
    prometheus_end(&all.page);
    metrics_close(&all);
}
