/* Inside of the metrics page: what was counted, at one moment, and who writes which families. */
#ifndef SERVER_METRICS_PAGE_H
#define SERVER_METRICS_PAGE_H

#include "proto/prometheus.h"
#include "server/routes/api.h"

struct metrics_model {
    const struct model *model;
    struct stats stats; /* of all loops */
    struct stats_window windows[WINDOW_COUNT];
};

struct metrics {
    const struct api *api;
    struct metrics_model *models; /* [count] in the catalog's order */
    size_t count;
    struct request_counts other_requests; /* those that reached no model */
    struct prometheus_page page;
};

/* Iterates over the served models. */
#define EACH_MODEL(all, entry)                                                                     \
    for (const struct metrics_model *entry = (all)->models; entry < (all)->models + (all)->count;  \
         entry++)

enum { METRICS_MODEL_LABELS = 2 };

static inline void metrics_label_model(struct prometheus_label *labels, const struct model *model)
{
    labels[0] = (struct prometheus_label){"model", model->name};
    labels[1] = (struct prometheus_label){"version", model->version};
}

/* Labels of a gate; of its expert, or of a window of it. */
enum { METRICS_GATE_LABELS = METRICS_MODEL_LABELS + 1, METRICS_INNER_LABELS };

static inline void metrics_label_gate(struct prometheus_label *labels, const struct model *model,
                                      size_t gate)
{
    metrics_label_model(labels, model);
    labels[METRICS_MODEL_LABELS] =
        (struct prometheus_label){"layer", model->info->gates[gate].name};
}

/* What gates decided, and their experts (metrics_routing.c, metrics_experts.c). */
void metrics_routing(struct metrics *all);
void metrics_experts(struct metrics *all);

/* What models of sequences do (metrics_sequences.c). */
void metrics_sequences(struct metrics *all);

/* What the system says of this process (metrics_process.c). */
void metrics_process(struct metrics *all);

#endif
