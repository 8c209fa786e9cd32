/* Routes: patterns, parameters, and the answers to unknown paths and methods. */
#include "fake_exchange.h"
#include "repository_fixture.h"
#include "server/log.h"
#include "server/routes/routes.h"
#include "server/statistics/state.h"

static struct route_params params;

static void expect_match(const char *pattern, const char *path, const char *model,
                         const char *version)
{
    ck_assert_msg(route_match(pattern, path, &params), "%s is no %s", path, pattern);
    ck_assert_str_eq(params.model, model);
    ck_assert_str_eq(params.version, version);
}

static void expect_no_match(const char *pattern, const char *path)
{
    ck_assert_msg(!route_match(pattern, path, &params), "%s is a %s: '%s' '%s'", path, pattern,
                  params.model, params.version);
}

#define INFER    "/v2/models/{m}/infer"
#define VERSIONS "/v2/models/{m}/versions/{v}/infer"
#define PREDICT  "/v1/models/{m}:predict"

START_TEST(paths_match_whole)
{
    expect_match("/v2", "/v2", "", "");
    expect_no_match("/v2", "/v2/");
    expect_no_match("/v2", "/v");
    expect_no_match("/v2", "");
    expect_no_match("/v2", "/V2");
    expect_no_match("/v2", "/v2x");
    expect_no_match("/v2/models/{m}", "/v2/models");
    expect_no_match("/v2/models/{m}", "/v2/models/");
    expect_no_match("/v2/models/{m}", "/v2/models/a/");
    expect_no_match("/v2/models/{m}", "//v2/models/a");
}
END_TEST

START_TEST(parameters_are_one_segment)
{
    expect_match(INFER, "/v2/models/a-b_c.1/infer", "a-b_c.1", "");
    expect_match(VERSIONS, "/v2/models/infer/versions/12/infer", "infer", "12");
    expect_no_match(INFER, "/v2/models/a/b/infer");
    expect_no_match(INFER, "/v2/models//infer");
    expect_no_match(VERSIONS, "/v2/models/a/versions//infer");
    expect_no_match(INFER, "/v2/models/a/versions/1/infer");
    expect_match("/v2/models/{m}", "/v2/models/versions", "versions", "");
}
END_TEST

START_TEST(actions_follow_a_colon)
{
    expect_match(PREDICT, "/v1/models/a:predict", "a", "");
    expect_match("/v1/models/{m}/versions/{v}:predict", "/v1/models/a/versions/3:predict", "a",
                 "3");
    expect_no_match(PREDICT, "/v1/models/:predict");
    expect_no_match(PREDICT, "/v1/models/a");
    expect_no_match(PREDICT, "/v1/models/a:explain");
    expect_no_match(PREDICT, "/v1/models/a:predict/x");
    expect_no_match("/v1/models/{m}", "/v1/models/a:predict");
}
END_TEST

START_TEST(segments_are_percent_decoded)
{
    expect_match(INFER, "/v2/models/%61%2Fb%3a/infer", "a/b:", "");
    expect_match(INFER, "/v2/models/%C3%A9/infer", "\xc3\xa9", "");
    expect_match(INFER, "/v2/models/a+b/infer", "a+b", "");
    expect_no_match(INFER, "/v2/models/%/infer");
    expect_no_match(INFER, "/v2/models/a%4/infer");
    expect_no_match(INFER, "/v2/models/%g0/infer");
    expect_no_match(INFER, "/v2/models/%00/infer");
    expect_no_match("/v2/models/{m}", "/v2/models/a%");
    expect_no_match("/v2/models/{m}", "/v2/models/a%4");
}
END_TEST

START_TEST(parameters_are_bounded)
{
    char path[1024] = "/v2/models/";
    memset(path + strlen(path), 'n', 255);
    ck_assert(route_match("/v2/models/{m}", path, &params));
    ck_assert_uint_eq(strlen(params.model), 255);
    strcat(path, "n");
    expect_no_match("/v2/models/{m}", path);
    expect_match(VERSIONS, "/v2/models/a/versions/1234567890123456789012345678901/infer", "a",
                 "1234567890123456789012345678901");
    expect_no_match(VERSIONS, "/v2/models/a/versions/12345678901234567890123456789012/infer");
}
END_TEST

/* ---- the table ---- */

static struct lanes lanes;
static atomic_bool stopping;
static struct totals *totals;
static struct options options = {.max_expert_series = 100, .weights = (char[]){"stored"}};

static struct exchange dispatch_to(enum http_method method, const char *path)
{
    struct exchange exchange = {.method = method, .method_text = "GET", .path = path};
    reply_error = ERROR_NONE;
    static struct state kept; /* nowhere */
    static struct trace untraced;
    const struct api api = {.options = &options,
                            .lanes = &lanes,
                            .stopping = &stopping,
                            .totals = totals,
                            .state = &kept,
                            .trace = &untraced};
    if (!lanes.catalog)
        (lanes.catalog = catalog_new(NULL, 0))->complete = true;
    routes_dispatch(&api, &exchange);
    return exchange;
}

START_TEST(unknown_paths_are_not_found)
{
    static const char *const paths[] = {"",           "/v3",       "/v2//",
                                        "/v2/models", "/metrics/", "/v2/health"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        ck_assert_int_eq(dispatch_to(HTTP_GET, paths[i]).status, 404);
        expect_text(reply_body, "no such path: ");
        expect_text(reply_body, paths[i]);
    }
}
END_TEST

START_TEST(another_method_is_told_which_one)
{
    static const struct {
        enum http_method method;
        const char *path, *allowed;
    } cases[] = {
        {HTTP_GET, "/v2/models/a/infer", "POST"},    {HTTP_GET, "/v1/models/a:predict", "POST"},
        {HTTP_HEAD, "/v1/models/a:predict", "POST"}, {HTTP_POST, "/v2", "GET, HEAD"},
        {HTTP_OTHER, "/v2/models/a", "GET, HEAD"},   {HTTP_POST, "/metrics", "GET, HEAD"},
        {HTTP_OTHER, "/v2/models/a/infer", "POST"},  {HTTP_POST, "/v1/models/a", "GET, HEAD"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct exchange exchange = dispatch_to(cases[i].method, cases[i].path);
        ck_assert_int_eq(exchange.status, 405);
        ck_assert_uint_eq(exchange.reply_header_count, 2); /* with the request's id */
        ck_assert_str_eq(exchange.reply_headers[0].name, "Allow");
        ck_assert_str_eq(exchange.reply_headers[0].value, cases[i].allowed);
    }
}
END_TEST

START_TEST(health_changes_when_stopping)
{
    ck_assert_int_eq(dispatch_to(HTTP_GET, "/v2/health/live").status, 200);
    ck_assert_int_eq(dispatch_to(HTTP_HEAD, "/v2/health/ready").status, 200);
    ck_assert_str_eq(reply_body, "{\"ready\":true}");
    stopping = true;
    ck_assert_int_eq(dispatch_to(HTTP_GET, "/v2/health/ready").status, 503);
    ck_assert_str_eq(reply_body, "{\"ready\":false}");
    ck_assert_int_eq(dispatch_to(HTTP_GET, "/v2/health/live").status, 200);
}
END_TEST

START_TEST(the_repository_is_changed_only_where_clients_may)
{
    options.model_control = (char[]){"poll"};
    ck_assert_int_eq(dispatch_to(HTTP_POST, "/v2/repository/models/a/load").status, 400);
    expect_text(reply_body, "--model-control explicit only; it is poll");
    ck_assert_int_eq(dispatch_to(HTTP_GET, "/v2/repository/models/a/unload").status, 405);
    ck_assert_int_eq(dispatch_to(HTTP_POST, "/v2/repository/index").status, 200);
    ck_assert_str_eq(reply_body, "[]");
}
END_TEST

START_TEST(the_log_is_shown)
{
    ck_assert_int_eq(dispatch_to(HTTP_GET, "/v2/logging").status, 200);
    ck_assert_str_eq(reply_body, "{\"log_file\":\"\",\"log_info\":true,\"log_warning\":true,"
                                 "\"log_error\":true,\"log_verbose_level\":0,"
                                 "\"log_format\":\"default\"}");
}
END_TEST

START_TEST(others_health_paths)
{
    static const char *const LIVE[] = {"/healthz", "/livez"}, *const READY[] = {"/health",
                                                                                "/readyz"};
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(dispatch_to(HTTP_GET, LIVE[i]).status, 200);
        ck_assert_int_eq(dispatch_to(HTTP_GET, READY[i]).status, 200);
        ck_assert(routes_is_vital(LIVE[i]) && routes_is_vital(READY[i]));
    }
}
END_TEST

START_TEST(every_model_path_looks_for_its_model)
{
    static const struct {
        enum http_method method;
        const char *path;
    } paths[] = {
        {HTTP_POST, "/v2/models/a/infer"},   {HTTP_POST, "/v2/models/a/versions/1/infer"},
        {HTTP_POST, "/v1/models/a:predict"}, {HTTP_POST, "/v1/models/a/versions/1:predict"},
        {HTTP_GET, "/v2/models/a"},          {HTTP_GET, "/v2/models/a/versions/1"},
        {HTTP_GET, "/v2/models/a/ready"},    {HTTP_GET, "/v2/models/a/versions/1/ready"},
        {HTTP_GET, "/v2/models/a/config"},   {HTTP_GET, "/v2/models/a/versions/1/config"},
        {HTTP_GET, "/v2/models/a/routing"},  {HTTP_GET, "/v2/models/a/versions/1/routing"},
        {HTTP_GET, "/v1/models/a"},          {HTTP_GET, "/v1/models/a/versions/1"},
    };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const struct exchange exchange = dispatch_to(paths[i].method, paths[i].path);
        ck_assert_int_eq(exchange.status, 404);
        expect_text(reply_body, "unknown model 'a'");
        ck_assert_ptr_null(exchange.model);
    }
}
END_TEST

START_TEST(a_found_model_is_noted_for_the_log)
{
    char *repository = new_directory(), path[PATH_MAX];
    struct error err = ERROR_INIT;
    const struct model_options models = {.loops = 1, .max_batch_rows = 4, .threads = 1};
    log_set_level(LOG_ERROR);
    snprintf(path, sizeof path, "%s/scale", repository);
    char *config = config_of("[1]", "[{'op':'scale','value':2}]");
    write_checkpoint(path, config, NO_TENSORS);
    lanes.catalog = load_repository(repository, &models, &err);
    totals = totals_new(1);
    ck_assert_msg(lanes.catalog != NULL, "%s", err.text);
    struct exchange exchange = dispatch_to(HTTP_GET, "/v2/models/scale/versions/1");
    ck_assert_int_eq(exchange.status, 200);
    ck_assert_str_eq(exchange.model->name, "scale");
    ck_assert_str_eq(exchange.model->version, "1");
    model_release(exchange.model);
    exchange = dispatch_to(HTTP_GET, "/v2/models/scale/versions/2");
    ck_assert_int_eq(exchange.status, 404);
    exchange = dispatch_to(HTTP_GET, "/metrics");
    ck_assert_int_eq(exchange.status, 200);
    ck_assert_str_eq(reply_type, "text/plain; version=0.0.4; charset=utf-8");
    totals_free(totals);
    catalog_release(lanes.catalog);
    free(config);
    free(repository);
}
END_TEST

START_TEST(health_and_metrics_are_vital)
{
    ck_assert(routes_is_vital("/"));
    ck_assert(routes_is_vital("/v2/health/live"));
    ck_assert(routes_is_vital("/v2/health/ready"));
    ck_assert(routes_is_vital("/metrics"));
    ck_assert(!routes_is_vital("/v2"));
    ck_assert(!routes_is_vital("/v2/models/metrics"));
    ck_assert(!routes_is_vital("/metrics/"));
}
END_TEST

TEST_MAIN("routes", paths_match_whole, parameters_are_one_segment, actions_follow_a_colon,
          segments_are_percent_decoded, parameters_are_bounded, unknown_paths_are_not_found,
          another_method_is_told_which_one, health_changes_when_stopping,
          the_repository_is_changed_only_where_clients_may, the_log_is_shown, others_health_paths,
          every_model_path_looks_for_its_model, a_found_model_is_noted_for_the_log,
          health_and_metrics_are_vital)
