/* A recording is two moments of the counters: nothing is counted twice, and nothing is paid for it
 * while it lasts. */
#include "server/statistics/recorder.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "core/text.h"
#include "server/routes/describe.h"

/* ---- one model ---- */

/* All tags together; the caller frees it. */
static struct tally *totals_of(struct model_stats *stats)
{
    struct tally *sum = tally_empty(stats->loop[0].routing[TAG_NONE]);
    for (size_t tag = 0; tag < tags_end(&stats->tags); tag++) {
        struct tally *totals = model_stats_totals(stats, tag);
        if (totals)
            tally_add(sum, totals);
        tally_free(totals);
    }
    return sum;
}

static void begin(struct model_stats *stats)
{
    uv_mutex_lock(&stats->mutex);
    tally_free(stats->recorded.from);
    tally_free(stats->recorded.until);
    stats->recorded = (struct recorded){.from = totals_of(stats)};
    uv_mutex_unlock(&stats->mutex);
}

static void stop(struct model_stats *stats)
{
    uv_mutex_lock(&stats->mutex);
    if (stats->recorded.from && !stats->recorded.until)
        stats->recorded.until = totals_of(stats);
    uv_mutex_unlock(&stats->mutex);
}

/* What was recorded; the caller frees it. A recording that was not stopped goes on from here. NULL:
 * there is none. */
static struct tally *take(struct model_stats *stats)
{
    uv_mutex_lock(&stats->mutex);
    struct recorded *recorded = &stats->recorded;
    const bool goes_on = recorded->from && !recorded->until;
    struct tally *until = goes_on ? totals_of(stats) : recorded->until;
    struct tally *next = goes_on ? tally_copy(until) : NULL;
    if (until)
        tally_subtract(until, recorded->from);
    tally_free(recorded->from);
    *recorded = (struct recorded){.from = next};
    uv_mutex_unlock(&stats->mutex);
    return until;
}

/* ---- start and stop ---- */

static void reply_text(struct exchange *exchange, const char *text)
{
    struct buffer body;
    describe_new(&body);
    buffer_text(&body, text);
    describe_reply(exchange, 200, "text/plain", &body);
}

void recorder_start(const struct api *api, struct exchange *exchange, const struct target *target)
{
    const struct catalog *catalog = api->lanes->catalog;
    (void)target;
    for (size_t i = 0; i < catalog->count; i++)
        begin(catalog->models[i]->stats);
    reply_text(exchange, "Start recording the expert distribution.\n");
}

void recorder_stop(const struct api *api, struct exchange *exchange, const struct target *target)
{
    const struct catalog *catalog = api->lanes->catalog;
    (void)target;
    for (size_t i = 0; i < catalog->count; i++)
        stop(catalog->models[i]->stats);
    reply_text(exchange, "Stop recording the expert distribution.\n");
}

/* ---- dump ---- */

/* Only gates that choose among as many experts make a matrix. */
static int check_matrix(const struct model *model, struct error *err)
{
    const struct moed_model_info *info = model->info;
    if (info->gate_count == 0)
        return error_set(err, ERROR_INVALID, "model '%.128s' has no MoE layers", model->name);
    for (size_t i = 1; i < info->gate_count; i++)
        if (info->gates[i].experts != info->gates[0].experts)
            return error_set(err, ERROR_INVALID,
                             "layer '%.64s' has %zu expert%s and '%.64s' %zu: a record is a matrix",
                             info->gates[0].name, info->gates[0].experts,
                             text_s(info->gates[0].experts), info->gates[i].name,
                             info->gates[i].experts);
    return 0;
}

static struct model *find_model(const struct catalog *catalog, const struct exchange *exchange,
                                struct error *err)
{
    static const char *const NAMES[] = {"model", NULL};
    char name[128 + 1];
    if (exchange_query_names(exchange, NAMES, err) != 0)
        return NULL;
    const int given = exchange_query(exchange, "model", name, sizeof name, err);
    if (given != 0)
        return given > 0 ? catalog_find(catalog, name, NULL, err) : NULL;
    if (catalog->count == 1)
        return catalog->models[0];
    error_set(err, ERROR_INVALID, "%zu models are served: name one, as in ?model=%.128s",
              catalog->count, catalog->count > 0 ? catalog->models[0]->name : "NAME");
    return NULL;
}

static void append_counts(const struct tally *tally, struct buffer *body)
{
    buffer_text(body, "{\"logical_count\":[");
    for (size_t i = 0; i < tally->gate_count; i++) {
        const struct moed_gate_counts *counts = tally->gates[i];
        for (size_t e = 0; e < counts->experts; e++)
            buffer_format(body, "%s%" PRIu64,
                          e > 0   ? ","
                          : i > 0 ? "],["
                                  : "[",
                          counts->expert[e].selected);
    }
    buffer_text(body, "]]}\n");
}

void recorder_dump(const struct api *api, struct exchange *exchange, const struct target *target)
{
    struct error err = ERROR_INIT;
    struct tally *recorded = NULL;
    struct buffer body;
    (void)target;
    const struct model *model = find_model(api->lanes->catalog, exchange, &err);
    if (model && check_matrix(model, &err) == 0 && !(recorded = take(model->stats)))
        error_set(&err, ERROR_INVALID,
                  "nothing of '%.128s' is recorded: begin with /start_expert_distribution_record",
                  model->name);
    if (!recorded) {
        exchange_reply_error(exchange, &err);
        return;
    }
    describe_new(&body);
    append_counts(recorded, &body);
    tally_free(recorded);
    describe_reply(exchange, 200, NULL, &body);
}
