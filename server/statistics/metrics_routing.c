/* What gates decided. Counters are sums since the load, from which rate() makes any window. Gauges
 * are about the last minute, five minutes and hour, and absent while no row fell into it: an idle
 * model raises no alert. */
#include <stdio.h>
#include <stdlib.h>

#include "core/memory.h"
#include "proto/routing_figures.h"
#include "server/statistics/metrics_page.h"

/* ---- counters of gates ---- */

static double rows(const struct moed_gate_counts *counts)
{
    return (double)counts->items;
}

static double intervened(const struct moed_gate_counts *counts)
{
    return (double)counts->intervened;
}

static double overflowed(const struct moed_gate_counts *counts)
{
    return (double)counts->overflowed;
}

static double entropy(const struct moed_gate_counts *counts)
{
    return moed_sum_value(counts->entropy);
}

static double margin(const struct moed_gate_counts *counts)
{
    return moed_sum_value(counts->margin);
}

static double dropped(const struct moed_gate_counts *counts)
{
    return (double)routing_dropped(counts);
}

static void gate_counters(struct metrics *all)
{
    static const struct {
        const char *name, *help;
        double (*value)(const struct moed_gate_counts *counts);
        bool only_limited;
        bool is_gauge_too; /* without _total */
    } families[] = {
        {"moed_layer_rows_total", "Items that the gate has routed.", rows, false, false},
        {"moed_layer_intervened_rows_total",
         "Items routed as their request asked, which no other figure counts.", intervened, false,
         false},
        {"moed_layer_overflowed_rows_total",
         "Items with a combine weight beyond 2^19, whose weights are in no sum.", overflowed, false,
         false},
        {"moed_layer_gate_entropy_bits_total",
         "Sum over the items of the entropy of the gate's distribution.", entropy, false, true},
        {"moed_layer_margin_total",
         "Sum over the items of the largest probability less the second.", margin, false, false},
        {"moed_dropped_total", "Selections dropped because the expert's capacity was taken.",
         dropped, true, false},
    };
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        bool clashes = all->page.openmetrics && families[i].is_gauge_too;
        prometheus_family(&all->page, families[i].name, clashes ? "unknown" : "counter",
                          families[i].help);
        EACH_MODEL (all, entry)
            for (size_t gate = 0; gate < entry->model->info->gate_count; gate++) {
                struct prometheus_label labels[METRICS_GATE_LABELS];
                metrics_label_gate(labels, entry->model, gate);
                if (entry->model->info->gates[gate].limited || !families[i].only_limited)
                    prometheus_sample(
                        &all->page, families[i].name, labels, METRICS_GATE_LABELS,
                        families[i].value(entry->stats.routing[TAG_NONE]->gates[gate]));
            }
    }
}

/* ---- gauges of gates, by window ---- */

/* What is known of a gate in a window. */
struct view {
    struct routing_figures figures;
    const struct moed_gate_info *gate;
    const struct moed_gate_counts *recent, *earlier; /* NULL unless the window is 5m */
    const bool *quarantined;                         /* [experts]; NULL: none of them */
};

static double imbalance(const struct view *view)
{
    return view->figures.imbalance;
}

static double weight_imbalance(const struct view *view)
{
    return view->figures.weight_imbalance;
}

static double unused(const struct view *view)
{
    return (double)view->figures.unused;
}

static double usage_entropy(const struct view *view)
{
    return view->figures.usage_entropy_bits;
}

static double gate_entropy(const struct view *view)
{
    return view->figures.gate_entropy_bits;
}

static double dying(const struct view *view)
{
    bool dense = view->gate->top_k == view->gate->experts;
    double count = 0;
    for (size_t i = 0; i < view->gate->experts; i++)
        if (!view->quarantined || !view->quarantined[i])
            count += routing_is_dying(view->earlier, view->recent, dense, i);
    return count;
}

struct gauge {
    const char *name, *help;
    double (*value)(const struct view *view);
    bool only_5m;
};

static void window_samples(struct metrics *all, const struct gauge *gauge,
                           const struct metrics_model *entry, size_t gate)
{
    struct prometheus_label labels[METRICS_INNER_LABELS];
    bool *marks = quarantine_marks(entry->model->quarantine, entry->model, gate);
    metrics_label_gate(labels, entry->model, gate);
    for (int window = 0; window < WINDOW_COUNT; window++) {
        const struct stats_window *of = &entry->windows[window];
        const struct moed_gate_counts *counts = of->tally->gates[gate];
        const char *name = window_name((enum window)window);
        if (counts->items == 0 || (gauge->only_5m && window != WINDOW_5M))
            continue;
        const struct view view = {routing_figures_of(counts), &entry->model->info->gates[gate],
                                  of->recent ? of->recent->gates[gate] : NULL,
                                  of->earlier ? of->earlier->gates[gate] : NULL, marks};
        labels[METRICS_GATE_LABELS] = (struct prometheus_label){"window", name};
        prometheus_sample(&all->page, gauge->name, labels, METRICS_INNER_LABELS,
                          gauge->value(&view));
    }
    free(marks);
}

static void gate_gauges(struct metrics *all)
{
    static const struct gauge gauges[] = {
        {"moed_layer_imbalance_ratio",
         "Largest share of the selections over the mean share: 1 when balanced.", imbalance, false},
        {"moed_layer_weight_imbalance_ratio",
         "Largest mean part of the absolute combine weights over the mean of all.",
         weight_imbalance, false},
        {"moed_layer_unused_experts", "Experts that no row of the window has selected.", unused,
         false},
        {"moed_layer_dying_experts",
         "Experts used in the hour and, beyond chance, not in its last five minutes; without those "
         "in quarantine.",
         dying, true},
        {"moed_layer_usage_entropy_bits",
         "Entropy of the mean gate distribution: log2(experts) when all are used alike.",
         usage_entropy, false},
        {"moed_layer_gate_entropy_bits",
         "Mean entropy of the gate distribution of one row: 0 when the gate is sure.", gate_entropy,
         false},
    };
    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++) {
        prometheus_family(&all->page, gauges[i].name, "gauge", gauges[i].help);
        EACH_MODEL (all, entry)
            for (size_t gate = 0; gate < entry->model->info->gate_count; gate++)
                window_samples(all, &gauges[i], entry, gate);
    }
}

/* ---- drift from the reference ---- */

static double js_bits(const struct routing_drift *drift)
{
    return drift->js_bits;
}

static double psi(const struct routing_drift *drift)
{
    return drift->psi;
}

static double p_value(const struct routing_drift *drift)
{
    return drift->p_value;
}

struct drift_gauge {
    const char *name, *help;
    double (*value)(const struct routing_drift *drift);
};

static void drift_samples(struct metrics *all, const struct drift_gauge *gauge,
                          const struct metrics_model *entry, size_t index)
{
    const struct moed_gate_info *gate = &entry->model->info->gates[index];
    struct prometheus_label labels[METRICS_INNER_LABELS];
    double *shares = xcalloc(gate->experts, sizeof *shares);
    metrics_label_gate(labels, entry->model, index);
    for (int window = 0; window < WINDOW_COUNT; window++) {
        struct routing_drift drift;
        const struct moed_gate_counts *counts = entry->windows[window].tally->gates[index];
        const struct routing_sample sample =
            routing_sample_of(counts, gate->top_k == gate->experts, shares);
        if (!routing_drift_of(gate->experts, &sample, &entry->model->references[index], &drift))
            continue;
        labels[METRICS_GATE_LABELS] =
            (struct prometheus_label){"window", window_name((enum window)window)};
        prometheus_sample(&all->page, gauge->name, labels, METRICS_INNER_LABELS,
                          gauge->value(&drift));
    }
    free(shares);
}

static void drift_gauges(struct metrics *all)
{
    static const struct drift_gauge gauges[] = {
        {"moed_layer_drift_js_bits",
         "Jensen-Shannon divergence of the experts' shares from the checkpoint's reference.",
         js_bits},
        {"moed_layer_drift_psi",
         "Population stability index of the experts' shares against the checkpoint's reference.",
         psi},
        {"moed_layer_drift_p_value",
         "How likely routing as in the checkpoint's reference differs from it as much.", p_value},
    };
    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++) {
        prometheus_family(&all->page, gauges[i].name, "gauge", gauges[i].help);
        EACH_MODEL (all, entry)
            for (size_t gate = 0; gate < entry->model->info->gate_count; gate++)
                drift_samples(all, &gauges[i], entry, gate);
    }
}

void metrics_routing(struct metrics *all)
{
    gate_counters(all);
    gate_gauges(all);
    drift_gauges(all);
}
