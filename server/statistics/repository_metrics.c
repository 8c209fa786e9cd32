/* One series per state, so that an alert names the state that it is about. */
#include "server/statistics/repository_metrics.h"

static void state_samples(const struct model_status *status, struct prometheus_page *page)
{
    for (int state = 0; state < MODEL_STATES; state++) {
        const struct prometheus_label labels[] = {
            {"model", status->name},
            {"version", status->version},
            {"state", model_state_word((enum model_state)state)}};
        prometheus_sample(page, "moed_model_state", labels, 3, (int)status->state == state);
    }
}

void repository_metrics(const struct catalog *catalog, struct prometheus_page *page)
{
    prometheus_family(page, "moed_model_state", "gauge",
                      "1 for the state that a model version of the repository is in.");
    for (size_t i = 0; i < catalog->status_count; i++)
        state_samples(&catalog->statuses[i], page);
    prometheus_family(page, "moed_model_load_failures_total", "counter",
                      "Times that a model version could not be loaded.");
    for (size_t i = 0; i < catalog->status_count; i++) {
        const struct model_status *status = &catalog->statuses[i];
        const struct prometheus_label labels[] = {{"model", status->name},
                                                  {"version", status->version}};
        prometheus_sample(page, "moed_model_load_failures_total", labels, 2,
                          (double)status->failures);
    }
}
