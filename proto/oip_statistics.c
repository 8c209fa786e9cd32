/* Every key of Triton's document is there, and `nonfinite_count`; what this server has not, such as
 * a cache, is zero. */
#include "proto/oip_statistics.h"

#include <inttypes.h>

#include "proto/json.h"

static void add(struct oip_duration *total, const struct oip_duration *duration)
{
    total->count += duration->count;
    total->ns += duration->ns;
}

void oip_statistics_add_batch(struct oip_statistics *statistics, size_t rows, uint64_t ns)
{
    statistics->inference_count += rows;
    statistics->execution_count++;
    if (rows > 0 && rows <= OIP_BATCH_SIZES)
        add(&statistics->batches[rows - 1], &(struct oip_duration){1, ns});
}

void oip_statistics_merge(struct oip_statistics *total, const struct oip_statistics *statistics)
{
    if (statistics->last_inference_ms > total->last_inference_ms)
        total->last_inference_ms = statistics->last_inference_ms;
    total->inference_count += statistics->inference_count;
    total->execution_count += statistics->execution_count;
    total->nonfinite_count += statistics->nonfinite_count;
    add(&total->success, &statistics->success);
    add(&total->fail, &statistics->fail);
    add(&total->queue, &statistics->queue);
    add(&total->compute_input, &statistics->compute_input);
    add(&total->compute_infer, &statistics->compute_infer);
    add(&total->compute_output, &statistics->compute_output);
    for (size_t i = 0; i < OIP_BATCH_SIZES; i++)
        add(&total->batches[i], &statistics->batches[i]);
}

/* `separator`: what comes before the key. */
static void append(struct buffer *body, const char *separator, const char *key,
                   const struct oip_duration *duration)
{
    buffer_format(body, "%s\"%s\":{\"count\":%" PRIu64 ",\"ns\":%" PRIu64 "}", separator, key,
                  duration->count, duration->ns);
}

static void append_batches(struct buffer *body, const struct oip_statistics *statistics)
{
    static const struct oip_duration none;
    const char *separator = "";
    for (size_t i = 0; i < OIP_BATCH_SIZES; i++) {
        if (statistics->batches[i].count == 0)
            continue;
        buffer_format(body, "%s{\"batch_size\":%zu", separator, i + 1);
        append(body, ",", "compute_input", &none);
        append(body, ",", "compute_infer", &statistics->batches[i]);
        append(body, ",", "compute_output", &none);
        buffer_text(body, "}");
        separator = ",";
    }
}

void oip_append_statistics(struct buffer *body, const char *name, const char *version,
                           const struct oip_statistics *statistics, uint64_t memory_bytes)
{
    static const struct oip_duration none;
    buffer_text(body, "{\"name\":");
    json_append_string(body, name);
    buffer_text(body, ",\"version\":");
    json_append_string(body, version);
    buffer_format(body,
                  ",\"last_inference\":%" PRIu64 ",\"inference_count\":%" PRIu64
                  ",\"execution_count\":%" PRIu64 ",\"nonfinite_count\":%" PRIu64
                  ",\"inference_stats\":{",
                  statistics->last_inference_ms, statistics->inference_count,
                  statistics->execution_count, statistics->nonfinite_count);
    append(body, "", "success", &statistics->success);
    append(body, ",", "fail", &statistics->fail);
    append(body, ",", "queue", &statistics->queue);
    append(body, ",", "compute_input", &statistics->compute_input);
    append(body, ",", "compute_infer", &statistics->compute_infer);
    append(body, ",", "compute_output", &statistics->compute_output);
    append(body, ",", "cache_hit", &none);
    append(body, ",", "cache_miss", &none);
    buffer_text(body, "},\"response_stats\":{},\"batch_stats\":[");
    append_batches(body, statistics);
    buffer_format(body,
                  "],\"memory_usage\":[{\"type\":\"CPU\",\"id\":0,\"byte_size\":%" PRIu64 "}]}",
                  memory_bytes);
}
