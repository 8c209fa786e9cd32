/* What models of sequences do: families that other models have no samples of. */
#include "server/statistics/metrics_page.h"

static bool has_sequences(const struct metrics_model *entry)
{
    return model_has_sequences(entry->model);
}

static void tokens(struct metrics *all)
{
    static const char *const PHASES[PHASE_COUNT] = {"prompt", "generated"};
    prometheus_family(&all->page, "moed_tokens_total", "counter",
                      "Tokens computed as part of a prompt, and tokens generated.");
    EACH_MODEL (all, entry) {
        struct prometheus_label labels[METRICS_MODEL_LABELS + 1];
        metrics_label_model(labels, entry->model);
        for (int phase = 0; has_sequences(entry) && phase < PHASE_COUNT; phase++) {
            labels[METRICS_MODEL_LABELS] = (struct prometheus_label){"phase", PHASES[phase]};
            prometheus_sample(&all->page, "moed_tokens_total", labels, METRICS_MODEL_LABELS + 1,
                              (double)entry->stats.sequences.tokens[phase]);
        }
    }
}

static double cached(const struct sequence_stats *stats)
{
    return (double)stats->cached;
}

static double running(const struct sequence_stats *stats)
{
    return (double)stats->gauges.running;
}

static double waiting(const struct sequence_stats *stats)
{
    return (double)stats->gauges.waiting;
}

static double pages_used(const struct sequence_stats *stats)
{
    return (double)stats->gauges.pages_used;
}

static double pages(const struct sequence_stats *stats)
{
    return (double)stats->gauges.pages;
}

static void per_model(struct metrics *all)
{
    static const struct {
        const char *name, *type, *help;
        double (*value)(const struct sequence_stats *stats);
    } FAMILIES[] = {
        {"moed_prompt_cached_tokens_total", "counter",
         "Tokens of prompts that were not computed because the cache had them.", cached},
        {"moed_sequences_running", "gauge", "Sequences that are being computed.", running},
        {"moed_sequences_waiting", "gauge", "Sequences that wait for room or for their turn.",
         waiting},
        {"moed_kv_pages_used", "gauge",
         "Pages of keys and values that running sequences have or were promised.", pages_used},
        {"moed_kv_pages", "gauge", "Pages of keys and values in all, of 32 positions each.", pages},
    };
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++) {
        prometheus_family(&all->page, FAMILIES[i].name, FAMILIES[i].type, FAMILIES[i].help);
        EACH_MODEL (all, entry) {
            struct prometheus_label labels[METRICS_MODEL_LABELS];
            metrics_label_model(labels, entry->model);
            if (has_sequences(entry))
                prometheus_sample(&all->page, FAMILIES[i].name, labels, METRICS_MODEL_LABELS,
                                  FAMILIES[i].value(&entry->stats.sequences));
        }
    }
}

static void histograms(struct metrics *all, const char *name, const char *help, size_t offset)
{
    prometheus_family(&all->page, name, "histogram", help);
    EACH_MODEL (all, entry) {
        struct prometheus_label labels[METRICS_MODEL_LABELS];
        metrics_label_model(labels, entry->model);
        const char *stats = (const char *)&entry->stats.sequences;
        if (has_sequences(entry))
            prometheus_histogram(&all->page, name, labels, METRICS_MODEL_LABELS,
                                 (const struct histogram *)(const void *)(stats + offset));
    }
}

void metrics_sequences(struct metrics *all)
{
    bool any = false;
    EACH_MODEL (all, entry)
        any |= has_sequences(entry);
    if (!any)
        return;
    tokens(all);
    per_model(all);
    histograms(all, "moed_first_token_seconds",
               "Time from a sequence's arrival to its first token.",
               offsetof(struct sequence_stats, first_token_seconds));
    histograms(all, "moed_next_token_seconds", "Time from one token of a sequence to the next.",
               offsetof(struct sequence_stats, next_token_seconds));
}
