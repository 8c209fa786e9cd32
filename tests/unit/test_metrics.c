/* The metrics page is valid Prometheus text, whatever was counted: families are contiguous and
 * described once, no series appears twice, and there are never more per-expert series than
 * allowed. */
#include <ctype.h>

#include "fake_exchange.h"
#include "repository_fixture.h"
#include "server/log.h"
#include "server/routes/api.h"
#include "server/statistics/metrics.h"
#include "server/statistics/state.h"

static struct catalog *catalog;
static struct lanes lanes;
static struct options options;
static struct api api;
static struct state kept; /* nowhere */
static struct trace untraced;
static char *repository;

#define MOE_LAYER(name)                                                                            \
    "{'op':'moe','name':'" name "','gate':{'layers':[{'op':'flatten'}],'top_k':2},"                \
    "'experts':{'count':4,'layers':[{'op':'relu'}]}}"

static void put_model(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", repository, name);
    char *config = config_of("[4]", "[" MOE_LAYER("m1") "," MOE_LAYER("m2") "]");
    write_checkpoint(path, config, NO_TENSORS);
    free(config);
}

/* Two versions of one model and another model: 3 x 2 layers x 4 experts. */
static void begin(void)
{
    struct error err = ERROR_INIT;
    const struct model_options models = {.loops = 1, .max_batch_rows = 4, .threads = 1};
    char path[PATH_MAX];
    log_set_level(LOG_ERROR);
    repository = new_directory();
    snprintf(path, sizeof path, "%s/twice", repository);
    mkdir(path, 0700);
    put_model("twice/1");
    put_model("twice/2");
    put_model("once");
    catalog = load_repository(repository, &models, &err);
    ck_assert_msg(catalog != NULL, "%s", err.text);
    options.max_expert_series = 12 * 3 * 2 * 4;
    options.weights = (char[]){"stored"};
    options.loops = 1;
    lanes.catalog = catalog;
    api = (struct api){.options = &options,
                       .lanes = &lanes,
                       .totals = totals_new(1),
                       .state = &kept,
                       .trace = &untraced};
}

static void end(void)
{
    totals_free(api.totals);
    catalog_release(catalog);
    free(repository);
}

static struct stats *stats_of(size_t index)
{
    return &catalog->models[index]->stats->loop[0];
}

/* ---- reading the page ---- */

enum { MAX_SERIES = 2000 };

struct page {
    struct buffer buffer;
    char *series[MAX_SERIES]; /* name and labels, in the order of the page */
    double value[MAX_SERIES];
    size_t count;
    char family[128], type[32];
    char *families[96];
    size_t family_count;
};

static void begin_family(struct page *page, const char *line)
{
    int used = 0;
    ck_assert_msg(sscanf(line, "# HELP %127s %n", page->family, &used) == 1, "%s", line);
    ck_assert_msg(line[used] != '\0', "no help: %s", line);
    for (size_t i = 0; i < page->family_count; i++)
        ck_assert_msg(strcmp(page->families[i], page->family) != 0, "twice: %s", line);
    page->families[page->family_count++] = xstrdup(page->family);
    page->type[0] = '\0';
}

static void read_type(struct page *page, const char *line)
{
    char name[128];
    ck_assert_msg(page->type[0] == '\0', "a second TYPE: %s", line);
    ck_assert_int_eq(sscanf(line, "# TYPE %127s %31s", name, page->type), 2);
    ck_assert_str_eq(name, page->family);
    ck_assert_msg(strcmp(page->type, "counter") == 0 || strcmp(page->type, "gauge") == 0 ||
                      strcmp(page->type, "histogram") == 0,
                  "%s", line);
    const size_t length = strlen(name);
    const bool total = length > 6 && strcmp(name + length - 6, "_total") == 0;
    ck_assert_msg(total == (strcmp(page->type, "counter") == 0), "name and type: %s", line);
}

/* A sample has the name of its family or, in a histogram, of one of its parts. */
static void check_name(const struct page *page, const char *line, size_t length)
{
    static const char *const parts[] = {"_bucket", "_sum", "_count"};
    const size_t family = strlen(page->family);
    bool fits = false;
    ck_assert_msg(page->type[0] != '\0', "no TYPE before %s", line);
    ck_assert_msg(length >= family && strncmp(line, page->family, family) == 0, "%s in family %s",
                  line, page->family);
    if (strcmp(page->type, "histogram") != 0)
        fits = length == family;
    for (size_t i = 0; i < 3 && strcmp(page->type, "histogram") == 0; i++)
        fits |= length == family + strlen(parts[i]) &&
                strncmp(line + family, parts[i], length - family) == 0;
    ck_assert_msg(fits, "%s in family %s", line, page->family);
}

/* name="value" pairs with the three escapes; returns what follows the closing brace. */
static const char *skip_labels(const char *at, const char *line)
{
    do {
        at++;
        ck_assert_msg(isalpha((unsigned char)*at) || *at == '_', "label name: %s", line);
        while (isalnum((unsigned char)*at) || *at == '_')
            at++;
        ck_assert_msg(at[0] == '=' && at[1] == '"', "label: %s", line);
        for (at += 2; *at != '"'; at++) {
            ck_assert_msg(*at != '\0', "open label: %s", line);
            if (*at == '\\')
                ck_assert_msg(strchr("\\\"n", *++at) != NULL, "escape: %s", line);
        }
        at++;
    } while (*at == ',');
    ck_assert_msg(*at == '}', "labels: %s", line);
    return at + 1;
}

static void read_sample(struct page *page, const char *line)
{
    const size_t length = strcspn(line, "{ ");
    check_name(page, line, length);
    const char *at = line[length] == '{' ? skip_labels(line + length, line) : line + length;
    ck_assert_msg(*at == ' ', "value: %s", line);
    char *after;
    const double value = strtod(at + 1, &after);
    ck_assert_msg(after > at + 1 && *after == '\0', "value: %s", line);
    ck_assert_uint_lt(page->count, MAX_SERIES);
    page->series[page->count] = strndup(line, (size_t)(at - line));
    page->value[page->count++] = value;
}

static void expect_no_series_twice(const struct page *page)
{
    for (size_t i = 0; i < page->count; i++)
        for (size_t j = i + 1; j < page->count; j++)
            if (strcmp(page->series[i], page->series[j]) == 0)
                ck_abort_msg("twice: %s", page->series[i]);
}

static struct page *read_page(void)
{
    struct page *page = xcalloc(1, sizeof *page);
    buffer_init(&page->buffer, 1 << 20);
    metrics_page(&api, false, &page->buffer);
    ck_assert(!page->buffer.failed);
    char *text = strndup(page->buffer.data, page->buffer.length), *next;
    ck_assert_uint_eq(strlen(text), page->buffer.length);
    ck_assert_int_eq(text[page->buffer.length - 1], '\n');
    for (char *line = text; *line; line = next) {
        next = strchr(line, '\n') + 1;
        next[-1] = '\0';
        if (strncmp(line, "# HELP ", 7) == 0)
            begin_family(page, line);
        else if (strncmp(line, "# TYPE ", 7) == 0)
            read_type(page, line);
        else
            read_sample(page, line);
    }
    expect_no_series_twice(page);
    free(text);
    return page;
}

static void free_page(struct page *page)
{
    for (size_t i = 0; i < page->count; i++)
        free(page->series[i]);
    for (size_t i = 0; i < page->family_count; i++)
        free(page->families[i]);
    buffer_close(&page->buffer);
    free(page);
}

static void expect_value(const struct page *page, const char *series, double value)
{
    for (size_t i = 0; i < page->count; i++)
        if (strcmp(page->series[i], series) == 0) {
            ck_assert_msg(fabs(page->value[i] - value) < 1e-9, "%s is %g, expected %g", series,
                          page->value[i], value);
            return;
        }
    ck_abort_msg("no %s", series);
}

static size_t count_series(const struct page *page, const char *prefix)
{
    size_t count = 0;
    for (size_t i = 0; i < page->count; i++)
        count += strncmp(page->series[i], prefix, strlen(prefix)) == 0;
    return count;
}

/* ---- tests ---- */

START_TEST(a_page_before_the_first_request)
{
    struct page *page = read_page();
    expect_value(page, "moed_model_loaded{model=\"twice\",version=\"2\"}", 1);
    expect_value(page, "moed_rows_total{model=\"once\",version=\"1\"}", 0);
    expect_value(page, "moed_layer_rows_total{model=\"once\",version=\"1\",layer=\"m2\"}", 0);
    expect_value(
        page, "moed_requests_total{model=\"once\",version=\"1\",protocol=\"v1\",code=\"504\"}", 0);
    ck_assert_uint_eq(count_series(page, "moed_layer_unused_experts"), 0); /* idle: no alert */
    expect_value(page, "moed_connections", 3);
    expect_value(page, "moed_build_info{version=\"" MOED_VERSION "\"}", 1);
    expect_value(page, "moed_request_seconds_count{model=\"once\",version=\"1\"}", 0);
    free_page(page);
}
END_TEST

/* What README promises to dashboards. */
static const char *const PROMISED[] = {
    "moed_requests_total",
    "moed_request_seconds",
    "moed_queue_seconds",
    "moed_compute_seconds",
    "moed_batch_rows",
    "moed_rows_total",
    "moed_queue_rows",
    "moed_rejected_total",
    "moed_expert_selected_total",
    "moed_expert_weight_total",
    "moed_expert_weight_part_total",
    "moed_layer_usage_entropy_bits",
    "moed_layer_gate_entropy_bits",
    "moed_layer_imbalance_ratio",
    "moed_layer_unused_experts",
    "moed_layer_weight_imbalance_ratio",
    "moed_layer_dying_experts",
    "moed_layer_rows_total",
    "moed_layer_intervened_rows_total",
    "moed_layer_overflowed_rows_total",
    "moed_nonfinite_rows_total",
    "moed_layer_gate_entropy_bits_total",
    "moed_layer_margin_total",
    "moed_expert_probability_total",
    "moed_expert_top1_total",
    "moed_config_info",
    "process_start_time_seconds",
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_virtual_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "moed_model_loaded",
    "moed_model_bytes",
    "moed_log_dropped_total",
    "moed_build_info",
};

START_TEST(all_promised_names_are_there)
{
    struct page *page = read_page();
    for (size_t i = 0; i < sizeof PROMISED / sizeof *PROMISED; i++) {
        bool found = false;
        for (size_t j = 0; j < page->family_count; j++)
            found |= strcmp(page->families[j], PROMISED[i]) == 0;
        ck_assert_msg(found, "no family %s", PROMISED[i]);
    }
    free_page(page);
}
END_TEST

START_TEST(requests_are_counted_where_they_went)
{
    request_counts_add(&stats_of(0)->requests, "v1", 200, 1);
    request_counts_add(&stats_of(0)->requests, "v1", 200, 1);
    request_counts_add(&stats_of(2)->requests, "oip", 400, 1);
    request_counts_add(&api.totals->loop[0].other_requests, "", 404, 1);
    struct page *page = read_page();
    expect_value(
        page, "moed_requests_total{model=\"once\",version=\"1\",protocol=\"v1\",code=\"200\"}", 2);
    expect_value(page,
                 "moed_requests_total{model=\"twice\",version=\"2\",protocol=\"oip\",code=\"400\"}",
                 1);
    expect_value(page, "moed_requests_total{model=\"\",version=\"\",protocol=\"\",code=\"404\"}",
                 1);
    ck_assert_uint_eq(count_series(page, "moed_requests_total"), 3 * 21 + 2);
    free_page(page);
}
END_TEST

START_TEST(rejections_are_those_of_a_version)
{
    stats_of(1)->rejected[REJECT_QUEUE_FULL] = 2;
    stats_of(2)->rejected[REJECT_QUEUE_FULL] = 5;
    stats_of(0)->rejected[REJECT_DEADLINE] = 1;
    struct page *page = read_page();
#define REJECTED(model, version, reason)                                                           \
    "moed_rejected_total{model=\"" model "\",version=\"" version "\",reason=\"" reason "\"}"
    expect_value(page, REJECTED("twice", "1", "queue_full"), 2);
    expect_value(page, REJECTED("twice", "2", "queue_full"), 5);
    expect_value(page, REJECTED("once", "1", "deadline"), 1);
    expect_value(page, REJECTED("once", "1", "queue_full"), 0);
    ck_assert_uint_eq(count_series(page, "moed_rejected_total"), 3 * REJECT_COUNT);
    free_page(page);
}
END_TEST

START_TEST(histograms_are_cumulative)
{
    struct histogram *histogram = &stats_of(0)->batch_rows;
    histogram_observe(histogram, 1);
    histogram_observe(histogram, 3);
    histogram_observe(histogram, 9999);
    struct page *page = read_page();
    expect_value(page, "moed_batch_rows_bucket{model=\"once\",version=\"1\",le=\"1\"}", 1);
    expect_value(page, "moed_batch_rows_bucket{model=\"once\",version=\"1\",le=\"2\"}", 1);
    expect_value(page, "moed_batch_rows_bucket{model=\"once\",version=\"1\",le=\"4\"}", 2);
    expect_value(page, "moed_batch_rows_bucket{model=\"once\",version=\"1\",le=\"1024\"}", 2);
    expect_value(page, "moed_batch_rows_bucket{model=\"once\",version=\"1\",le=\"+Inf\"}", 3);
    expect_value(page, "moed_batch_rows_sum{model=\"once\",version=\"1\"}", 10003);
    expect_value(page, "moed_batch_rows_count{model=\"once\",version=\"1\"}", 3);
    free_page(page);
}
END_TEST

START_TEST(routing_is_shown_per_layer_and_expert)
{
    /* two rows, top 2 of 4: 0 and 1, then 0 and 2; p is (1/2, 1/2, 0, 0) for both */
    static const int32_t expert[] = {0, 1, 0, 2};
    static const float weight[] = {0.75f, 0.25f, 0.75f, 0.25f};
    const struct moed_routing routing = {.items = 2,
                                         .experts = 4,
                                         .top_k = 2,
                                         .expert = expert,
                                         .choice = expert,
                                         .weight = weight,
                                         .probability = FLOATS(0.5f, 0.5f, 0, 0, 0.5f, 0.5f, 0, 0),
                                         .entropy = FLOATS(1, 1),
                                         .margin = FLOATS(0, 0)};
    const struct moed_routing none = {.experts = 4, .top_k = 2};
    const struct moed_routing *const routed[] = {&none, &routing};
    stats_count(stats_of(0), TAG_NONE, &(struct tally_batch){.rows = 2, .routing = routed, .at = 1},
                0, 2);
    struct page *page = read_page();
#define LAYER "{model=\"once\",version=\"1\",layer=\"m2\""
    expect_value(page, "moed_layer_usage_entropy_bits" LAYER ",window=\"1m\"}", 1);
    expect_value(page, "moed_layer_gate_entropy_bits" LAYER ",window=\"5m\"}", 1);
    expect_value(page, "moed_layer_imbalance_ratio" LAYER ",window=\"1h\"}", 2);
    expect_value(page, "moed_layer_weight_imbalance_ratio" LAYER ",window=\"1m\"}", 3);
    expect_value(page, "moed_layer_unused_experts" LAYER ",window=\"1m\"}", 1);
    expect_value(page, "moed_layer_dying_experts" LAYER ",window=\"5m\"}", 0);
    ck_assert_uint_eq(count_series(page, "moed_layer_dying_experts"), 1);
    ck_assert_uint_eq(count_series(page, "moed_layer_unused_experts"), 3);
    expect_value(page, "moed_layer_rows_total" LAYER "}", 2);
    expect_value(page, "moed_layer_gate_entropy_bits_total" LAYER "}", 2);
    expect_value(page, "moed_expert_probability_total" LAYER ",expert=\"1\"}", 1);
    expect_value(page, "moed_expert_top1_total" LAYER ",expert=\"0\"}", 2);
    expect_value(page, "moed_expert_selected_total" LAYER ",expert=\"0\"}", 2);
    expect_value(page, "moed_expert_selected_total" LAYER ",expert=\"3\"}", 0);
    expect_value(page, "moed_expert_weight_total" LAYER ",expert=\"0\"}", 1.5);
    expect_value(page, "moed_expert_weight_part_total" LAYER ",expert=\"0\"}", 1.5);
    free_page(page);
}
END_TEST

/* Rows that choose two of four, at a time before now. */
static void count_rows(size_t rows, int32_t first, int32_t second, uint64_t at)
{
    const int32_t expert[] = {first, second};
    const struct moed_routing routing = {.items = 1,
                                         .experts = 4,
                                         .top_k = 2,
                                         .expert = expert,
                                         .choice = expert,
                                         .weight = FLOATS(0.75f, 0.25f)};
    const struct moed_routing *const routed[] = {&routing, &routing};
    for (size_t i = 0; i < rows; i++)
        stats_count(stats_of(0), TAG_NONE,
                    &(struct tally_batch){.rows = 1, .routing = routed, .at = at}, 0, 1);
}

/* Twenty minutes ago every row chose expert 0, since then none does. */
START_TEST(who_is_in_quarantine_is_not_dying)
{
    const uint64_t now = stats_now(), minute = UINT64_C(60000000000);
    struct quarantine quarantine = {
        .count = 1,
        .entries = {
            {.model = (char[]){"once"}, .version = (char[]){"1"}, .layer = (char[]){"m2"}}}};
    struct model_stats *stats = catalog->models[0]->stats;
    ck_assert_int_eq(uv_mutex_init(&quarantine.mutex), 0);
    model_stats_reset(stats, now - 30 * minute);
    count_rows(40, 0, 1, now - 20 * minute);
    model_stats_tick(stats, now - 10 * minute);
    count_rows(40, 1, 2, now - minute);
    struct page *page = read_page();
    expect_value(page, "moed_layer_dying_experts" LAYER ",window=\"5m\"}", 1);
    expect_value(page, "moed_expert_quarantined" LAYER ",expert=\"0\"}", 0);
    free_page(page);
    atomic_store(&quarantine.change, 1);
    catalog->models[0]->quarantine = &quarantine;
    page = read_page();
    catalog->models[0]->quarantine = NULL;
    expect_value(page, "moed_layer_dying_experts" LAYER ",window=\"5m\"}", 0);
    expect_value(page, "moed_expert_quarantined" LAYER ",expert=\"0\"}", 1);
    expect_value(page,
                 "moed_layer_dying_experts{model=\"once\",version=\"1\",layer=\"m1\",window="
                 "\"5m\"}",
                 1);
    free_page(page);
    uv_mutex_destroy(&quarantine.mutex);
}
END_TEST

/* A sum that may fall is no counter. */
START_TEST(weights_of_either_sign_are_a_gauge)
{
    ((struct moed_gate_info *)catalog->models[0]->info->gates)[0].signed_weights = true;
    struct page *page = read_page();
    ck_assert_uint_eq(count_series(page, "moed_expert_weight_sum"), 4);
    ck_assert_uint_eq(count_series(page, "moed_expert_weight_total"), 20);
    free_page(page);
}
END_TEST

START_TEST(openmetrics_ends)
{
    struct buffer body;
    buffer_init(&body, 1 << 20);
    metrics_page(&api, true, &body);
    ck_assert(!body.failed);
    ck_assert_mem_eq(body.data + body.length - 6, "# EOF\n", 6);
    buffer_append(&body, "", 1);
    ck_assert_ptr_nonnull(strstr(body.data, "# TYPE moed_rows counter\nmoed_rows_total{"));
    buffer_close(&body);
}
END_TEST

/* As many as proto/METRICS.md says; accuracies come with labels, here for every expert. */
START_TEST(expert_series_are_bounded)
{
    static const int32_t each[] = {0, 1, 2, 3}, *const first[] = {each, each};
    static const uint32_t one_item[] = {1, 1};
    static const float scores[16];
    const struct answered_rows rows = {4, 4, scores, one_item, first};
    for (size_t i = 0; i < 3; i++)
        stats_judge(stats_of(i), TAG_NONE, &rows, each);
    struct page *page = read_page();
    ck_assert_uint_eq(count_series(page, "moed_expert_"), options.max_expert_series);
    free_page(page);
    options.max_expert_series--;
    page = read_page();
    ck_assert_uint_eq(count_series(page, "moed_expert_"), 0);
    ck_assert_uint_eq(count_series(page, "moed_layer_rows_total"), 6);
    free_page(page);
}
END_TEST

START_TEST(labels_are_escaped)
{
    char *name = catalog->models[0]->name;
    catalog->models[0]->name = (char[]){"a\"b\\c\nd"};
    struct page *page = read_page();
    expect_value(page, "moed_model_loaded{model=\"a\\\"b\\\\c\\nd\",version=\"1\"}", 1);
    free_page(page);
    catalog->models[0]->name = name;
}
END_TEST

TEST_MAIN_WITH("metrics", begin, end, a_page_before_the_first_request, all_promised_names_are_there,
               requests_are_counted_where_they_went, rejections_are_those_of_a_version,
               histograms_are_cumulative, routing_is_shown_per_layer_and_expert,
               who_is_in_quarantine_is_not_dying, weights_of_either_sign_are_a_gauge,
               openmetrics_ends, expert_series_are_bounded, labels_are_escaped)
