/* What experts did: several series for each, so that their number is bounded. */
#include <stdio.h>

#include "proto/routing_layer.h"
#include "server/statistics/metrics_page.h"

enum { EXPERT_BYTES = 24 };

/* Labels a sample with expert i of the gate; `text` holds its name. */
static void label_expert(struct prometheus_label *labels, const struct moed_gate_info *gate,
                         size_t i, char text[EXPERT_BYTES])
{
    snprintf(text, EXPERT_BYTES, "%zu", routing_expert_index(gate->expert_index, i));
    labels[METRICS_GATE_LABELS] = (struct prometheus_label){"expert", text};
}

/* ---- selections and weights ---- */

static double selected(const struct moed_expert_counts *expert)
{
    return (double)expert->selected;
}

static double weight(const struct moed_expert_counts *expert)
{
    return moed_sum_value(expert->weight);
}

static double part(const struct moed_expert_counts *expert)
{
    return moed_sum_value(expert->part);
}

static double probability(const struct moed_expert_counts *expert)
{
    return moed_sum_value(expert->probability);
}

static double top1(const struct moed_expert_counts *expert)
{
    return (double)expert->top1;
}

static double seconds(const struct moed_expert_counts *expert)
{
    return moed_sum_value(expert->seconds);
}

/* Combine weights that may be negative have a sum that may fall, which no counter may. */
enum whose { ANY, UNSIGNED, SIGNED };

static const struct expert_family {
    const char *name, *type, *help;
    double (*value)(const struct moed_expert_counts *expert);
    enum whose whose;
} EXPERT_FAMILIES[] = {
    {"moed_expert_selected_total", "counter", "Items that selected the expert.", selected, ANY},
    {"moed_expert_top1_total", "counter", "Items whose best expert it was.", top1, ANY},
    {"moed_expert_probability_total", "counter",
     "Sum over the items of the expert's probability in the gate's distribution.", probability,
     ANY},
    {"moed_expert_compute_seconds_total", "counter", "Time that it took to serve them.", seconds,
     ANY},
    {"moed_expert_weight_part_total", "counter",
     "Sum over the items of the expert's part of the item's absolute combine weights.", part, ANY},
    {"moed_expert_weight_total", "counter",
     "Combine weight given to the expert, by gates whose weights are never negative.", weight,
     UNSIGNED},
    {"moed_expert_weight_sum", "gauge",
     "Combine weight given to the expert, by gates whose weights may be negative.", weight, SIGNED},
};

enum { EXPERT_FAMILY_COUNT = sizeof EXPERT_FAMILIES / sizeof *EXPERT_FAMILIES };

static bool is_of(const struct moed_gate_info *gate, enum whose whose)
{
    return whose == ANY || (whose == SIGNED) == gate->signed_weights;
}

static void expert_samples(struct metrics *all, const struct expert_family *family,
                           const struct metrics_model *entry, size_t index)
{
    const struct moed_gate_info *gate = &entry->model->info->gates[index];
    const struct moed_gate_counts *counts = entry->stats.routing[TAG_NONE]->gates[index];
    struct prometheus_label labels[METRICS_INNER_LABELS];
    metrics_label_gate(labels, entry->model, index);
    for (size_t i = 0; i < counts->experts; i++) {
        char text[EXPERT_BYTES];
        label_expert(labels, gate, i, text);
        prometheus_sample(&all->page, family->name, labels, METRICS_INNER_LABELS,
                          family->value(&counts->expert[i]));
    }
}

static bool has_gate_of(const struct metrics *all, enum whose whose)
{
    EACH_MODEL (all, entry)
        for (size_t i = 0; i < entry->model->info->gate_count; i++)
            if (is_of(&entry->model->info->gates[i], whose))
                return true;
    return false;
}

static void expert_family(struct metrics *all, const struct expert_family *family)
{
    if (!has_gate_of(all, family->whose))
        return;
    prometheus_family(&all->page, family->name, family->type, family->help);
    EACH_MODEL (all, entry)
        for (size_t i = 0; i < entry->model->info->gate_count; i++)
            if (is_of(&entry->model->info->gates[i], family->whose))
                expert_samples(all, family, entry, i);
}

/* ---- prompts ---- */

static void prompt_samples(struct metrics *all, const char *name, const struct metrics_model *entry)
{
    const struct moed_model_info *info = entry->model->info;
    const uint64_t *selected = entry->stats.sequences.prompt_selected;
    for (size_t gate = 0; gate < info->gate_count; selected += info->gates[gate++].experts) {
        struct prometheus_label labels[METRICS_INNER_LABELS];
        metrics_label_gate(labels, entry->model, gate);
        for (size_t i = 0; i < info->gates[gate].experts; i++) {
            char text[EXPERT_BYTES];
            label_expert(labels, &info->gates[gate], i, text);
            prometheus_sample(&all->page, name, labels, METRICS_INNER_LABELS, (double)selected[i]);
        }
    }
}

/* What is left of moed_expert_selected_total are tokens that were generated. */
static void per_expert_prompts(struct metrics *all)
{
    static const char NAME[] = "moed_expert_prompt_selected_total";
    bool any = false;
    EACH_MODEL (all, entry)
        any |= model_has_sequences(entry->model);
    if (!any)
        return;
    prometheus_family(&all->page, NAME, "counter",
                      "Items that selected the expert and were tokens of prompts.");
    EACH_MODEL (all, entry)
        if (model_has_sequences(entry->model))
            prompt_samples(all, NAME, entry);
}

/* ---- labels ---- */

/* Of a model without labels, or yet without any. */
static struct quality_figures quality_of(const struct tally *tally, size_t gate, size_t expert)
{
    static const struct routing_quality NONE;
    return routing_quality_figures(tally->quality ? &tally->quality[gate][expert] : &NONE);
}

static double labelled(const struct quality_figures *figures)
{
    return (double)figures->labelled;
}

static double correct(const struct quality_figures *figures)
{
    return (double)figures->correct;
}

static double accuracy(const struct quality_figures *figures)
{
    return figures->accuracy;
}

struct quality_family {
    const char *name, *type, *help;
    double (*value)(const struct quality_figures *figures);
    bool by_window;
};

/* One expert's sample in one window; without a name since the load, where 0 is worth saying. */
static void quality_sample(struct metrics *all, const struct quality_family *family,
                           struct prometheus_label *labels, const char *window,
                           const struct quality_figures *figures)
{
    size_t count = METRICS_INNER_LABELS;
    if (window)
        labels[count++] = (struct prometheus_label){"window", window};
    if (!window || figures->labelled > 0)
        prometheus_sample(&all->page, family->name, labels, count, family->value(figures));
}

static void quality_samples(struct metrics *all, const struct quality_family *family,
                            const struct metrics_model *entry, size_t index)
{
    const struct moed_gate_info *gate = &entry->model->info->gates[index];
    struct prometheus_label labels[METRICS_INNER_LABELS + 1];
    metrics_label_gate(labels, entry->model, index);
    for (size_t i = 0; i < gate->experts; i++) {
        char text[EXPERT_BYTES];
        label_expert(labels, gate, i, text);
        struct quality_figures figures = quality_of(entry->stats.routing[TAG_NONE], index, i);
        if (!family->by_window)
            quality_sample(all, family, labels, NULL, &figures);
        for (int window = 0; family->by_window && window < WINDOW_COUNT; window++) {
            figures = quality_of(entry->windows[window].tally, index, i);
            quality_sample(all, family, labels, window_name((enum window)window), &figures);
        }
    }
}

static void per_expert_quality(struct metrics *all)
{
    static const struct quality_family FAMILIES[] = {
        {"moed_expert_labelled_total", "counter",
         "Items whose best expert it was and whose true class came to be known.", labelled, false},
        {"moed_expert_correct_total", "counter", "Those of them that were answered with it.",
         correct, false},
        {"moed_expert_accuracy_ratio", "gauge", "The part that was, of those in the window.",
         accuracy, true},
    };
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++) {
        prometheus_family(&all->page, FAMILIES[i].name, FAMILIES[i].type, FAMILIES[i].help);
        EACH_MODEL (all, entry)
            for (size_t gate = 0;
                 entry->model->class_output >= 0 && gate < entry->model->info->gate_count; gate++)
                quality_samples(all, &FAMILIES[i], entry, gate);
    }
}

/* ---- quarantine ---- */

/* Of the experts that serve only if there is room for all experts' series. */
static void quarantine_samples(struct metrics *all, const struct metrics_model *entry, size_t index,
                               bool all_experts)
{
    const struct moed_gate_info *gate = &entry->model->info->gates[index];
    struct prometheus_label labels[METRICS_INNER_LABELS];
    bool *marks = quarantine_marks(entry->model->quarantine, entry->model, index);
    metrics_label_gate(labels, entry->model, index);
    for (size_t i = 0; (all_experts || marks) && i < gate->experts; i++) {
        char text[EXPERT_BYTES];
        const bool is_in = marks && marks[i];
        label_expert(labels, gate, i, text);
        if (is_in || all_experts)
            prometheus_sample(&all->page, "moed_expert_quarantined", labels, METRICS_INNER_LABELS,
                              is_in);
    }
    free(marks);
}

static void quarantined(struct metrics *all, bool all_experts)
{
    prometheus_family(&all->page, "moed_expert_quarantined", "gauge",
                      "1 for an expert that rows are routed around.");
    EACH_MODEL (all, entry)
        for (size_t gate = 0; gate < entry->model->info->gate_count; gate++)
            quarantine_samples(all, entry, gate, all_experts);
}

/* ---- all of them ---- */

/* Of every expert of a gate: one of two families has its weight, one says whether it is in
 * quarantine. With classes there are labelled and correct, and the accuracy in three windows. */
static const uint64_t SERIES = EXPERT_FAMILY_COUNT, SERIES_OF_LABELS = 2 + WINDOW_COUNT;

static uint64_t expert_series(const struct metrics *all)
{
    uint64_t series = 0;
    EACH_MODEL (all, entry)
        for (size_t i = 0; i < entry->model->info->gate_count; i++)
            series += (SERIES + (entry->model->class_output >= 0 ? SERIES_OF_LABELS : 0) +
                       model_has_sequences(entry->model)) *
                      entry->model->info->gates[i].experts;
    return series;
}

/* Per-expert series grow with layers x experts: above the configured number a scrape keeps the
 * layers' aggregates only, and the full matrix stays at /v2/models/M/routing. */
void metrics_experts(struct metrics *all)
{
    const bool fits = expert_series(all) <= all->api->options->max_expert_series;
    quarantined(all, fits);
    if (!fits)
        return;
    for (size_t i = 0; i < EXPERT_FAMILY_COUNT; i++)
        expert_family(all, &EXPERT_FAMILIES[i]);
    per_expert_prompts(all);
    per_expert_quality(all);
}
