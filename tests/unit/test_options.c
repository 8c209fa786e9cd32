/* Options: the four sources, what each refuses with which message, and the sample file. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/options/options.h"
#include "server/options/options_table.h"

/* check runs every test in its own process, so the environment needs no clean-up. */

static struct options options;
static struct error err;

/* Reads a NULL-terminated list of arguments. */
#define INIT(...) init_from((const char *[]){__VA_ARGS__, NULL})

static int init_from(const char *arguments[])
{
    char *argv[16];
    int argc = 0;
    for (; arguments[argc]; argc++)
        argv[argc] = (char *)(uintptr_t)arguments[argc];
    err = (struct error)ERROR_INIT;
    return options_init(&options, argc, argv, &err);
}

static char config_path[] = "/tmp/moed-test-options-XXXXXX";

static void write_config(const void *text, size_t bytes)
{
    int file = mkstemp(config_path);
    ck_assert_int_ge(file, 0);
    ck_assert_int_eq((ssize_t)bytes, write(file, text, bytes));
    close(file);
}

/* Reads a configuration file of this text, with models given by flag. */
static int init_config(const char *text)
{
    write_config(text, strlen(text));
    int result = INIT("--config", config_path, "--models", "m");
    unlink(config_path);
    return result;
}

static void assert_defaults(void)
{
    ck_assert_str_eq("127.0.0.1", options.host);
    ck_assert_uint_eq(8080, options.port);
    ck_assert_uint_eq(0, options.threads);
    ck_assert_uint_eq(64, options.max_batch_rows);
    ck_assert_uint_eq(0, options.max_queue_delay_us);
    ck_assert_uint_eq(4096, options.max_queue_rows);
    ck_assert_uint_eq(1024, options.max_request_rows);
    ck_assert_uint_eq(64 << 20, options.max_body_bytes);
    ck_assert_uint_eq(512 << 20, options.max_total_body_bytes);
    ck_assert_uint_eq(0, options.max_connections);
    ck_assert_uint_eq(0, options.max_connections_per_ip);
    ck_assert_uint_eq(30000, options.request_timeout_ms);
    ck_assert_uint_eq(60000, options.idle_timeout_ms);
    ck_assert_uint_eq(10000, options.queue_timeout_ms);
    ck_assert_uint_eq(0, options.drain_delay_ms);
    ck_assert_uint_eq(30000, options.drain_timeout_ms);
    ck_assert_uint_eq(4096, options.max_expert_series);
    ck_assert_str_eq("info", options.log_level);
    ck_assert_str_eq("stored", options.weights);
    ck_assert_str_eq("refuse", options.non_finite);
}

/* The output of a function that prints to a FILE; the caller frees it. */
static char *printed(void (*print)(FILE *out))
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    print(out);
    fclose(out);
    return text;
}

START_TEST(defaults)
{
    ck_assert_int_eq(0, INIT("--models", "repository"));
    ck_assert_str_eq("repository", options.models);
    assert_defaults();
    options_close(&options);
}
END_TEST

START_TEST(flags_in_both_spellings)
{
    ck_assert_int_eq(0, INIT("--models=a=b", "--max-batch-rows", "7", "--max-body-bytes=3k",
                             "--log-level=debug", "--host", "::1", "--port=2"));
    ck_assert_str_eq("a=b", options.models);
    ck_assert_uint_eq(7, options.max_batch_rows);
    ck_assert_uint_eq(3072, options.max_body_bytes);
    ck_assert_str_eq("debug", options.log_level);
    ck_assert_str_eq("::1", options.host);
    ck_assert_uint_eq(2, options.port);
    options_close(&options);
}
END_TEST

static const struct {
    const char *first, *second, *error;
} bad_flags[] = {
    {"--port", "65536", "--port: expected a whole number from 0 to 65535, got \"65536\""},
    {"--port", "-1", "--port: expected a whole number from 0 to 65535, got \"-1\""},
    {"--port", "", "--port: expected a whole number from 0 to 65535, got \"\""},
    {"--port", "80x", "--port: expected a whole number from 0 to 65535, got \"80x\""},
    {"--port", "8K", "--port: expected a whole number from 0 to 65535, got \"8K\""},
    {"--port", "18446744073709551616", "expected a whole number from 0 to 65535"},
    {"--max-batch-rows", "0", "expected a whole number from 1 to"},
    {"--max-body-bytes", "K", "(a suffix K, M or G is allowed), got \"K\""},
    {"--max-body-bytes", "1KK", "got \"1KK\""},
    {"--max-body-bytes", "99999999999G", "got \"99999999999G\""},
    {"--host", "", "--host: expected ADDRESS, got nothing"},
    {"--log-level=verbose", NULL,
     "--log-level: expected error|warning|info|debug, got \"verbose\""},
    {"--log-level", "error|warning", "--log-level: expected error|warning|info|debug, got"},
    {"--weights", "int", "--weights: expected stored|int8|int4, got \"int\""},
    {"--activations", "f16", "--activations: expected int8|bf16|f32, got \"f16\""},
    {"--weights", "int88", "--weights: expected stored|int8|int4, got \"int88\""},
    {"--max-batch-row", "1", "unknown option --max-batch-row; did you mean --max-batch-rows?"},
    {"--max_batch_rows", "1", "unknown option --max_batch_rows; did you mean --max-batch-rows?"},
    {"--treads", "1", "did you mean --threads?"},
    {"--frobnicate", "1", "unknown option --frobnicate; see moed help serve"},
    {"--aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "1",
     "unknown option --aaaa"},
    {"--port", NULL, "--port: the value is missing"},
    {"--models", "n", "--models is given a second time"},
    {"--models=m", NULL, "--models is given a second time"},
    {"models", NULL, "unexpected argument \"models\"; options begin with --"},
    {"-p", "80", "unexpected argument \"-p\""},
    {"--", NULL, "unexpected argument \"--\""},
    {"--config", "/nonexistent/moed.conf", "cannot read /nonexistent/moed.conf: No such file"},
    {"--config", "/", "cannot read /: Is a directory"},
};

START_TEST(a_bad_flag_is_refused)
{
    ck_assert_int_eq(-1, INIT("--models", "m", bad_flags[_i].first, bad_flags[_i].second));
    ck_assert_msg(strstr(err.text, bad_flags[_i].error), "%s", err.text);
    ck_assert_ptr_null(options.models); /* nothing is left to close */
}
END_TEST

START_TEST(models_is_required)
{
    ck_assert_int_eq(-1, INIT("--port", "0"));
    ck_assert_str_eq("--models DIR is required, here or as 'models' in the configuration file",
                     err.text);
}
END_TEST

START_TEST(a_configuration_file_is_read)
{
    ck_assert_int_eq(0, init_config("# comment\n"
                                    "\n"
                                    "port=1\r\n"
                                    "  threads =  3   # three\n"
                                    "host = \"a # b\"  # quoted\n"
                                    "log_level\t=\twarning\n"
                                    "max_queue_rows = 1200"));
    ck_assert_uint_eq(1, options.port);
    ck_assert_uint_eq(3, options.threads);
    ck_assert_str_eq("a # b", options.host);
    ck_assert_str_eq("warning", options.log_level);
    ck_assert_uint_eq(1200, options.max_queue_rows);
    options_close(&options);
}
END_TEST

START_TEST(later_sources_win)
{
    static const char text[] = "port = 1\nthreads = 1\nmax_batch_rows = 1\n";
    write_config(text, strlen(text));
    setenv("MOED_THREADS", "2", 1);
    setenv("MOED_MAX_BATCH_ROWS", "2", 1);
    ck_assert_int_eq(0, INIT("--max-batch-rows=3", "--config", config_path, "--models=m"));
    unlink(config_path);
    ck_assert_uint_eq(1, options.port);
    ck_assert_uint_eq(2, options.threads);
    ck_assert_uint_eq(3, options.max_batch_rows);
    ck_assert_uint_eq(4096, options.max_queue_rows);
    options_close(&options);
}
END_TEST

static const struct {
    const char *text, *error;
} bad_files[] = {
    {"port = 1\nprot = 2\n", " line 2: unknown option prot; did you mean port?"},
    {"port = 1\n\nport = 2\n", " line 3: port is set a second time"},
    {"port = x\n", " line 1: port: expected a whole number from 0 to 65535, got \"x\""},
    {"port\n", " line 1: expected: key = value"},
    {"port 1\n", " line 1: expected: key = value"},
    {"= 1\n", " line 1: unknown option "},
    {"host = \"a\n", " line 1: expected: key = value"},
    {"host = \"a\" b\n", " line 1: expected: key = value"},
    {"host = # none\n", " line 1: host: expected ADDRESS, got nothing"},
    {"max-batch-rows = 1\n", "did you mean max_batch_rows?"},
    {"config = other.conf", "line 1: unknown option config"},
};

START_TEST(a_bad_file_is_refused_with_its_line)
{
    ck_assert_int_eq(-1, init_config(bad_files[_i].text));
    ck_assert_msg(strstr(err.text, bad_files[_i].error), "%s", err.text);
    ck_assert_msg(strstr(err.text, config_path) == err.text, "%s", err.text);
}
END_TEST

START_TEST(a_file_that_is_no_configuration_is_refused)
{
    static char big[65 << 10];
    write_config("port = 1\0\n", 10);
    ck_assert_int_eq(-1, INIT("--models", "m", "--config", config_path));
    ck_assert_ptr_nonnull(strstr(err.text, "is not a configuration file"));
    unlink(config_path);
    strcpy(config_path, "/tmp/moed-test-options-XXXXXX");
    memset(big, '\n', sizeof big);
    write_config(big, sizeof big);
    ck_assert_int_eq(-1, INIT("--models", "m", "--config", config_path));
    ck_assert_ptr_nonnull(strstr(err.text, "is not a configuration file"));
    unlink(config_path);
}
END_TEST

START_TEST(a_bad_environment_is_refused_with_its_name)
{
    setenv("MOED_LOG_LEVEL", "loud", 1);
    ck_assert_int_eq(-1, INIT("--models", "m"));
    ck_assert_str_eq("MOED_LOG_LEVEL: expected error|warning|info|debug, got \"loud\"", err.text);
}
END_TEST

START_TEST(a_variable_that_names_no_option_is_refused)
{
    setenv("MOED_MAX_BATCH_ROW", "8", 1);
    ck_assert_int_eq(-1, INIT("--models", "m"));
    ck_assert_str_eq(
        "MOED_MAX_BATCH_ROW: unknown option max_batch_row; did you mean max_batch_rows?", err.text);
}
END_TEST

START_TEST(listeners_need_addresses_of_their_own)
{
    ck_assert_int_eq(-1, INIT("--models", "m", "--grpc-port", "8080"));
    ck_assert_ptr_nonnull(strstr(err.text, "port and grpc_port are both 8080"));
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(-1, INIT("--models", "m", "--admin-listen", "127.0.0.1:8080"));
    ck_assert_ptr_nonnull(strstr(err.text, "which port has already"));
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(0, INIT("--models", "m", "--grpc-port", "0", "--port", "0", "--admin-listen",
                             "127.0.0.1:0"));
    options_close(&options);
}
END_TEST

START_TEST(origins_must_be_what_browsers_send)
{
    static const char *const BAD[] = {
        "a.example",           "https://a.example/",         "https://a b", "https://", "://a",
        "https://a.example,*", "https://a.example,,http://b"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        err = (struct error)ERROR_INIT;
        ck_assert_int_eq(-1, INIT("--models", "m", "--cors-origin", BAD[i]));
        ck_assert_ptr_nonnull(strstr(err.text, "cors_origin has \""));
    }
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(0,
                     INIT("--models", "m", "--cors-origin", "https://a.example,http://[::1]:80"));
    options_close(&options);
    ck_assert_int_eq(0, INIT("--models", "m", "--cors-origin", "*"));
    options_close(&options);
}
END_TEST

START_TEST(a_collector_must_be_one)
{
    static const char *const BAD[] = {"https://h",  "http://",        "http://[::1",
                                      "http://h:0", "http://h:99999", "http://h/a b"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        err = (struct error)ERROR_INIT;
        ck_assert_int_eq(-1, INIT("--models", "m", "--trace-endpoint", BAD[i]));
        ck_assert_ptr_nonnull(strstr(err.text, "trace_endpoint is"));
    }
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(0, INIT("--models", "m", "--trace-endpoint", "http://[::1]:4318/x"));
    options_close(&options);
}
END_TEST

START_TEST(a_request_must_fit)
{
    ck_assert_int_eq(-1, INIT("--models", "m", "--max-queue-rows", "4"));
    ck_assert_ptr_nonnull(strstr(err.text, "max_request_rows (1024) exceeds max_queue_rows (4)"));
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(-1, INIT("--models", "m", "--max-total-body-bytes", "1M"));
    ck_assert_ptr_nonnull(strstr(err.text, "max_body_bytes (67108864) exceeds max_total_body_"));
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(-1, INIT("--models", "m", "--max-sequences", "256"));
    ck_assert_ptr_nonnull(strstr(err.text, "step_tokens (256) must be more than max_sequences (2"));
}
END_TEST

START_TEST(a_kubernetes_service_link_is_not_a_setting)
{
    setenv("MOED_PORT", "tcp://10.96.0.7:8080", 1);
    setenv("MOED_PORT_8080_TCP", "tcp://10.96.0.7:8080", 1);
    setenv("MOED_PORT_8080_TCP_ADDR", "10.96.0.7", 1);
    setenv("MOED_SERVICE_HOST", "10.96.0.7", 1);
    setenv("MOED_SERVICE_PORT_HTTP", "8080", 1);
    setenv("MOED_CANARY_PORT", "tcp://10.96.0.8:8080", 1);
    setenv("MOED_CANARY_SERVICE_HOST", "10.96.0.8", 1);
    setenv("MOED_KERNEL", "generic", 1);
    setenv("MOED_URL", "http://127.0.0.1:8080", 1); /* moectl's, */
    setenv("MOED_TOKEN", "t", 1);
    setenv("MOED_CA", "ca.pem", 1);
    ck_assert_int_eq(0, INIT("--models", "m"));
    ck_assert_uint_eq(8080, options.port);
    options_close(&options);
}
END_TEST

START_TEST(the_shipped_file_is_the_sample)
{
    static char shipped[1 << 16];
    FILE *file = fopen(MOED_SOURCE_DIR "/deploy/moed.conf", "r");
    ck_assert_ptr_nonnull(file);
    shipped[fread(shipped, 1, sizeof shipped - 1, file)] = '\0';
    fclose(file);
    char *sample = printed(options_sample);
    ck_assert_str_eq(sample, shipped);
    ck_assert_int_eq(0, init_config(sample)); /* unchanged, it sets nothing */
    assert_defaults();
    options_close(&options);
    free(sample);
}
END_TEST

START_TEST(the_sample_uncommented_is_the_defaults)
{
    char *sample = printed(options_sample);
    int settings = 0;
    for (char *line = sample; *line; line = strchr(line, '\n') + 1) {
        if (line[0] == '#' && line[1] >= 'a' && line[1] <= 'z') {
            line[0] = ' ';
            settings++;
        }
    }
    ck_assert_int_eq(OPTION_ROWS, settings);
    write_config(sample, strlen(sample));
    ck_assert_int_eq(0, INIT("--config", config_path));
    unlink(config_path);
    assert_defaults();
    ck_assert_str_eq("/srv/moed/models", options.models);
    options_close(&options);
    free(sample);
}
END_TEST

START_TEST(help_names_every_option_within_80_columns)
{
    char *help = printed(options_help);
    char flag[64];
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        snprintf(flag, sizeof flag, "  --%s ", OPTIONS[i].name);
        for (char *at = flag; *at; at++)
            *at = option_flag_character(*at);
        ck_assert_msg(strstr(help, flag) != NULL, "%s", flag);
    }
    for (char *line = help; *line; line = strchr(line, '\n') + 1)
        ck_assert_msg(strchr(line, '\n') - line <= 80, "%s", line);
    free(help);
}
END_TEST

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

int main(void)
{
    TCase *tests = tcase_create("options");
    tcase_add_test(tests, defaults);
    tcase_add_test(tests, flags_in_both_spellings);
    tcase_add_loop_test(tests, a_bad_flag_is_refused, 0, COUNT(bad_flags));
    tcase_add_test(tests, models_is_required);
    tcase_add_test(tests, a_configuration_file_is_read);
    tcase_add_test(tests, later_sources_win);
    tcase_add_loop_test(tests, a_bad_file_is_refused_with_its_line, 0, COUNT(bad_files));
    tcase_add_test(tests, a_file_that_is_no_configuration_is_refused);
    tcase_add_test(tests, a_bad_environment_is_refused_with_its_name);
    tcase_add_test(tests, a_variable_that_names_no_option_is_refused);
    tcase_add_test(tests, a_request_must_fit);
    tcase_add_test(tests, listeners_need_addresses_of_their_own);
    tcase_add_test(tests, a_collector_must_be_one);
    tcase_add_test(tests, origins_must_be_what_browsers_send);
    tcase_add_test(tests, a_kubernetes_service_link_is_not_a_setting);
    tcase_add_test(tests, the_shipped_file_is_the_sample);
    tcase_add_test(tests, the_sample_uncommented_is_the_defaults);
    tcase_add_test(tests, help_names_every_option_within_80_columns);
    Suite *suite = suite_create("options");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
