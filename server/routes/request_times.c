/* Counted in the shards of a model, and added up when somebody asks. */
#include "server/routes/request_times.h"

#include <string.h>
#include <time.h>

#include "server/models/model.h"
#include "server/routes/describe.h"

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void add(struct oip_duration *total, uint64_t ns)
{
    total->count++;
    total->ns += ns;
}

void request_times_add(struct stats *stats, const struct exchange *exchange, uint64_t duration_ns)
{
    uint64_t now = now_ms();
    uv_mutex_lock(&stats->mutex);
    stats_add_request(stats, exchange->log_protocol, exchange->status, (double)duration_ns / 1e9);
    struct oip_statistics *times = &stats->times;
    times->last_inference_ms = now;
    if (exchange->status != 200) {
        add(&times->fail, duration_ns);
    } else {
        add(&times->success, duration_ns);
        add(&times->queue, exchange->log_queue_ns);
        add(&times->compute_input, exchange->log_decode_ns);
        add(&times->compute_infer, exchange->log_compute_ns);
        add(&times->compute_output, exchange->log_encode_ns);
    }
    uv_mutex_unlock(&stats->mutex);
}

static void append_model(const struct model *model, struct buffer *body)
{
    struct oip_statistics total = {0};
    for (size_t i = 0; i < model->stats->loops; i++) {
        struct stats *shard = &model->stats->loop[i];
        uv_mutex_lock(&shard->mutex);
        oip_statistics_merge(&total, &shard->times);
        uv_mutex_unlock(&shard->mutex);
    }
    oip_append_statistics(body, model->name, model->version, &total, model->info->weight_bytes);
}

void request_times_describe(const struct api *api, struct exchange *exchange,
                            const struct target *target)
{
    const struct catalog *catalog = api->lanes->catalog;
    struct buffer body;
    bool any = false;
    describe_new(&body);
    buffer_text(&body, "{\"model_stats\":[");
    for (size_t i = 0; i < catalog->count; i++) {
        const struct model *model = catalog->models[i];
        if (target->model && (target->version ? model != target->model
                                              : strcmp(model->name, target->model->name) != 0))
            continue;
        buffer_text(&body, any ? "," : "");
        append_model(model, &body);
        any = true;
    }
    buffer_text(&body, "]}");
    describe_reply(exchange, 200, NULL, &body);
}
