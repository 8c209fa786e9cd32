/* Who may ask: tokens from files, rates of addresses, and what each role is told. */
#include "fake_exchange.h"
#include "server/access/access.h"
#include "server/access/tokens.h"
#include "server/options/options.h"

static struct error err;
static char path[PATH_MAX];

/* ---- rates ---- */

static const uint64_t SECOND_NS = 1000000000;

START_TEST(a_bucket_is_emptied_and_fills_again)
{
    struct rate rate;
    unsigned wait_s = 0;
    uint64_t now = 7 * SECOND_NS;
    rate_init(&rate, SECOND_NS / 2, 3);
    for (int i = 0; i < 3; i++)
        ck_assert(rate_take(&rate, "10.0.0.1", now, &wait_s));
    ck_assert(!rate_take(&rate, "10.0.0.1", now, &wait_s));
    ck_assert_uint_eq(wait_s, 1);
    ck_assert(rate_take(&rate, "10.0.0.2", now, &wait_s));
    ck_assert(!rate_take(&rate, "10.0.0.1", now + SECOND_NS / 2 - 1, &wait_s));
    ck_assert(rate_take(&rate, "10.0.0.1", now + SECOND_NS / 2, &wait_s));
    ck_assert(!rate_take(&rate, "10.0.0.1", now + SECOND_NS / 2, &wait_s));
    for (int i = 0; i < 3; i++)
        ck_assert(rate_take(&rate, "10.0.0.1", now + 60 * SECOND_NS, &wait_s));
    ck_assert(!rate_take(&rate, "10.0.0.1", now + 60 * SECOND_NS, &wait_s));
    rate_close(&rate);
}
END_TEST

START_TEST(a_network_of_ipv6_is_one_client)
{
    struct rate rate;
    unsigned wait_s;
    rate_init(&rate, 100 * SECOND_NS, 1);
    ck_assert(rate_take(&rate, "2001:db8::1", 1, &wait_s));
    ck_assert(!rate_take(&rate, "2001:db8::2:3", 1, &wait_s));
    ck_assert_uint_eq(wait_s, 100);
    ck_assert(rate_take(&rate, "2001:db8:0:1::1", 1, &wait_s));
    ck_assert(rate_take(&rate, "::ffff:10.0.0.1", 1, &wait_s));
    ck_assert(rate_take(&rate, "::ffff:10.0.0.2", 1, &wait_s));
    ck_assert(!rate_take(&rate, "10.0.0.1", 1, &wait_s));
    for (int i = 0; i < 5; i++)
        ck_assert(rate_take(&rate, "unix", 1, &wait_s));
    rate_close(&rate);
}
END_TEST

START_TEST(many_addresses_take_no_more_memory)
{
    struct rate rate;
    unsigned wait_s;
    char client[32];
    rate_init(&rate, 100 * SECOND_NS, 2);
    for (unsigned i = 0; i < 100000; i++) {
        snprintf(client, sizeof client, "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
        ck_assert(rate_take(&rate, client, 1, &wait_s));
    }
    ck_assert(rate_take(&rate, client, 1, &wait_s));
    ck_assert(!rate_take(&rate, client, 1, &wait_s)); /* the newest is known */
    rate_close(&rate);
}
END_TEST

START_TEST(no_rate_limits_nothing)
{
    struct rate rate;
    unsigned wait_s;
    rate_init(&rate, 0, 0);
    for (int i = 0; i < 1000; i++)
        ck_assert(rate_take(&rate, "10.0.0.1", 1, &wait_s));
    rate_close(&rate);
}
END_TEST

/* ---- tokens ---- */

/* Of the texts "abc" and "": FIPS 180-2's examples. */
#define ABC   "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define EMPTY "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855"

static struct tokens *read_text(const char *text)
{
    char *directory = new_directory();
    snprintf(path, sizeof path, "%s/tokens", directory);
    write_file(directory, "tokens", text, strlen(text));
    free(directory);
    err = (struct error)ERROR_INIT;
    return tokens_read(path, &err);
}

START_TEST(a_file_of_tokens)
{
    struct tokens *tokens = read_text("# ours\n\n" ABC " predict shop  # a comment\n\t" EMPTY
                                      "\tmetrics,admin a.b-c_1\r\n");
    ck_assert_msg(tokens != NULL, "%s", err.text);
    ck_assert_uint_eq(tokens->count, 2);
    const struct token *token = tokens_find(tokens, "abc");
    ck_assert_str_eq(token->name, "shop");
    ck_assert(token_may(token, ROLE_PREDICT));
    ck_assert(!token_may(token, ROLE_METRICS) && !token_may(token, ROLE_ADMIN));
    token = tokens_find(tokens, "");
    ck_assert_str_eq(token->name, "a.b-c_1");
    ck_assert(token_may(token, ROLE_PREDICT) && token_may(token, ROLE_ADMIN));
    ck_assert_ptr_null(tokens_find(tokens, "ab"));
    ck_assert_ptr_null(tokens_find(tokens, ABC));
    ck_assert(tokens_equal(tokens, tokens));
    free(tokens);
}
END_TEST

START_TEST(faults_of_a_file_are_told)
{
    static const struct {
        const char *text, *words[3];
    } cases[] = {
        {ABC " predict\n", {"line 1: ", "expected SHA256 ROLE[,ROLE] NAME", ""}},
        {"\n" ABC " predict a b\n", {"line 2: ", "expected SHA256 ROLE", ""}},
        {"moed_x predict a\n", {"line 1: ", "64 hexadecimal digits", "moed token"}},
        {"g" ABC " predict a\n", {"line 1: ", "64 hexadecimal digits", ""}},
        {ABC " predict,root a\n", {"line 1: ", "predict, metrics or admin", "\"predict,root\""}},
        {ABC " health a\n", {"line 1: ", "predict, metrics or admin", ""}},
        {ABC " predict, a\n", {"line 1: ", "predict, metrics or admin", ""}},
        {ABC " predict a/b\n", {"line 1: ", "a name of 1 to 32", "\"a/b\""}},
        {ABC " predict a\n" EMPTY " admin a\n", {"line 2: ", "second time", "\"a\""}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_ptr_null(read_text(cases[i].text));
        for (int word = 0; word < 3; word++)
            ck_assert_msg(strstr(err.text, cases[i].words[word]) != NULL, "'%s' lacks '%s'",
                          err.text, cases[i].words[word]);
    }
    static const char hidden[] = ABC " predict a\n\0" EMPTY " admin b\n";
    write_file(support_root, "hidden", hidden, sizeof hidden - 1);
    char hiding[PATH_MAX];
    snprintf(hiding, sizeof hiding, "%s/hidden", support_root);
    err = (struct error)ERROR_INIT;
    ck_assert_ptr_null(tokens_read(hiding, &err));
    ck_assert_msg(strstr(err.text, "/hidden: a NUL byte") != NULL, "%s", err.text);
    ck_assert_ptr_null(tokens_read("/nowhere/tokens", &err));
}
END_TEST

START_TEST(a_made_token_is_found)
{
    char text[TOKEN_TEXT_BYTES], line[TOKEN_LINE_BYTES], again[TOKEN_TEXT_BYTES];
    ck_assert_int_eq(token_make("metrics,predict", "x", text, line, &err), 0);
    ck_assert_uint_eq(strlen(text), TOKEN_TEXT_BYTES - 1);
    struct tokens *tokens = read_text(line);
    ck_assert_str_eq(tokens_find(tokens, text)->name, "x");
    ck_assert_int_eq(token_make("predict", "x", again, line, &err), 0);
    ck_assert_str_ne(text, again);
    ck_assert_ptr_null(tokens_find(tokens, again));
    free(tokens);
    ck_assert_int_eq(token_make("root", "x", again, line, &err), -1);
    ck_assert_int_eq(token_make("admin", "x y", again, line, &err), -1);
}
END_TEST

/* ---- access ---- */

static struct options options;
static struct access access_;

static int check(enum role role, struct exchange *exchange)
{
    *exchange = (struct exchange){.client = "10.0.0.1"};
    err = (struct error)ERROR_INIT;
    return access_check(&access_, role, false, exchange, &err);
}

START_TEST(administration_is_closed_unless_opened)
{
    struct exchange exchange;
    ck_assert_int_eq(access_init(&access_, &options, &err), 0);
    ck_assert_int_eq(check(ROLE_HEALTH, &exchange), 0);
    ck_assert_int_eq(check(ROLE_METRICS, &exchange), 0);
    ck_assert_int_eq(check(ROLE_PREDICT, &exchange), 0);
    ck_assert_int_eq(check(ROLE_ADMIN, &exchange), -1);
    ck_assert_int_eq(err.code, ERROR_FORBIDDEN);
    options.admin = true;
    ck_assert_int_eq(check(ROLE_ADMIN, &exchange), 0);
    access_close(&access_);
}
END_TEST

/* Requests of this program have no header, so no token. */
START_TEST(with_tokens_only_health_is_open)
{
    struct exchange exchange;
    size_t count;
    bool changed;
    free(read_text(ABC " admin root\n"));
    options = (struct options){.tokens = path, .admin = true};
    ck_assert_int_eq(access_init(&access_, &options, &err), 0);
    ck_assert_int_eq(check(ROLE_HEALTH, &exchange), 0);
    for (enum role role = ROLE_METRICS; role < ROLE_COUNT; role++) {
        ck_assert_int_eq(check(role, &exchange), -1);
        ck_assert_int_eq(err.code, ERROR_UNAUTHENTICATED);
        ck_assert_str_eq(exchange.reply_headers[0].name, "WWW-Authenticate");
    }
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(access_reload(&access_, &count, &changed, &err), 0);
    ck_assert(count == 1 && !changed);
    remove(path);
    ck_assert_int_eq(access_reload(&access_, &count, &changed, &err), -1);
    ck_assert_int_eq(mkfifo(path, 0600), 0); /* whose writer nobody waits for */
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(access_reload(&access_, &count, &changed, &err), -1);
    ck_assert_msg(strstr(err.text, "not a regular file") != NULL, "%s", err.text);
    ck_assert_uint_eq(access_.tokens->count, 1);
    access_close(&access_);
}
END_TEST

START_TEST(a_rate_holds_for_all_but_health)
{
    struct exchange exchange;
    options = (struct options){.rate_limit = 1, .rate_burst = 2};
    ck_assert_int_eq(access_init(&access_, &options, &err), 0);
    ck_assert_int_eq(check(ROLE_PREDICT, &exchange), 0);
    ck_assert_int_eq(check(ROLE_METRICS, &exchange), 0);
    ck_assert_int_eq(check(ROLE_PREDICT, &exchange), -1);
    ck_assert_int_eq(err.code, ERROR_OVERLOADED);
    ck_assert_uint_eq(exchange.retry_after_s, 1);
    ck_assert_int_eq(check(ROLE_HEALTH, &exchange), 0);
    access_close(&access_);
}
END_TEST

TEST_MAIN("access", a_bucket_is_emptied_and_fills_again, a_network_of_ipv6_is_one_client,
          many_addresses_take_no_more_memory, no_rate_limits_nothing, a_file_of_tokens,
          faults_of_a_file_are_told, a_made_token_is_found, administration_is_closed_unless_opened,
          with_tokens_only_health_is_open, a_rate_holds_for_all_but_health)
