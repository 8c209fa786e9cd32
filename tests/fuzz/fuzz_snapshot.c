/* Snapshots of statistics: any file is read or refused, and what is read can be counted on, looked
 * at and written again. The checksum is made right, so that mutations reach what is behind it. */
#include <stdlib.h>
#include <string.h>

#include "libfuzzer.h"
#include "server/statistics/snapshot.h"

static const struct moed_gate_info GATES[] = {{.name = "a", .experts = 2, .top_k = 1},
                                              {.name = "b", .experts = 3, .top_k = 2}};
static const struct moed_model_info INFO = {.gate_count = 2, .gates = GATES, .sequence = true};
static const uint64_t NOW = UINT64_C(1) << 60;

static void look(struct model_stats *stats)
{
    for (int window = 0; window <= WINDOW_ALL; window++) {
        struct stats_window of;
        stats_window_init(&of, stats, (enum window)window, STATS_ALL_TAGS, true, NOW);
        stats_window_close(&of);
    }
    for (size_t i = 0; i < INFO.gate_count; i++) {
        struct routing_detail sum;
        routing_detail_init_steps(&sum, GATES[i].experts, GATES[i].top_k);
        model_stats_phase(stats, PHASE_GENERATED, i, &sum);
        routing_detail_close(&sum);
    }
    model_stats_tick(stats, NOW + 1000000000000);
}

static void write_again(struct model_stats *stats)
{
    const struct snapshot_time time = {NOW, NOW};
    struct buffer body;
    buffer_init(&body, SNAPSHOT_MAX_BYTES);
    if (snapshot_write(stats, &INFO, &time, &body, NULL) != 0)
        abort();
    struct model_stats *copy = model_stats_new(&INFO, 2, 1, 2, NOW);
    if (snapshot_read(copy, &INFO, &time, body.data, body.length, NULL) == SNAPSHOT_OTHER)
        abort(); /* sums of what was read may be too large to be read */
    model_stats_release(copy);
    buffer_close(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct snapshot_time time = {NOW, NOW};
    struct model_stats *stats = model_stats_new(&INFO, 2, 1, 2, NOW);
    uint8_t *bytes = malloc(size + 1);
    memcpy(bytes, data, size);
    snapshot_seal(bytes, size);
    if (snapshot_read(stats, &INFO, &time, bytes, size, NULL) == SNAPSHOT_READ) {
        look(stats);
        write_again(stats);
    }
    free(bytes);
    model_stats_release(stats);
    return 0;
}
