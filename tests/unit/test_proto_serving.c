/* serving.json: what is read, what it leaves as it is, and what is refused. */
#include "proto/oip_repository.h"
#include "proto/serving.h"
#include "support.h"

static struct serving serving;
static struct error err;

static int parse(const char *text)
{
    char *json = xstrdup(text);
    for (char *c = json; *c; c++)
        if (*c == '\'')
            *c = '"';
    err = (struct error)ERROR_INIT;
    const int result = serving_parse(&serving, json, strlen(json), &err);
    free(json);
    return result;
}

static void begin(void)
{
    serving_init(&serving);
}

static void end(void)
{
    serving_close(&serving);
}

START_TEST(nothing_leaves_the_servers_options)
{
    ck_assert_int_eq(parse("{}"), 0);
    ck_assert_uint_eq(serving.latest, 0);
    ck_assert_uint_eq(serving.specific_count, 0);
    ck_assert_uint_eq(serving.default_version, 0);
    ck_assert_uint_eq(serving.warm_up_rows, 1);
    ck_assert_uint_eq(serving.limits.max_batch_rows, SERVING_UNSET);
    ck_assert_uint_eq(serving_limit(serving.limits.max_queue_delay_us, 7), 7);
}
END_TEST

START_TEST(every_key_is_read)
{
    ck_assert_int_eq(parse("{'version_policy':{'specific':[1,3]},'default_version':3,"
                           "'labels':{'stable':1,'canary':3},'warm_up_rows':16,"
                           "'limits':{'max_batch_rows':32,'max_queue_delay_us':0,"
                           "'max_queue_rows':1024,'max_request_rows':256,"
                           "'queue_timeout_ms':2000}}"),
                     0);
    ck_assert_uint_eq(serving.specific_count, 2);
    ck_assert_uint_eq(serving.specific[1], 3);
    ck_assert_uint_eq(serving.default_version, 3);
    ck_assert_uint_eq(serving.label_count, 2);
    ck_assert_str_eq(serving.labels[1].label, "canary");
    ck_assert_uint_eq(serving.labels[1].version, 3);
    ck_assert_uint_eq(serving.warm_up_rows, 16);
    const struct serving_limits expected = {32, 0, 1024, 256, 2000};
    ck_assert_mem_eq(&serving.limits, &expected, sizeof expected);
    ck_assert_int_eq(parse("{'version_policy':{'latest':2}}"), 0); /* instead of the former */
    ck_assert_uint_eq(serving.latest, 2);
    ck_assert_ptr_null(serving.specific);
    ck_assert_uint_eq(serving.limits.max_batch_rows, SERVING_UNSET);
    ck_assert_int_eq(parse("{'version_policy':'all'}"), 0);
}
END_TEST

START_TEST(what_is_wrong_is_named)
{
    static const struct {
        const char *text, *part;
    } cases[] = {
        {"", "line 1, column 1"},
        {"{\n nonsense", "line 2"},
        {"[]", "expected an object, got a list"},
        {"{'limit':1}", "unknown key 'limit'"},
        {"{'limits':1}", "'limits' is a number, expected an object"},
        {"{'limits':{'rows':1}}", "limits: unknown key 'rows'"},
        {"{'limits':{'max_batch_rows':0}}",
         "limits.max_batch_rows must be a whole number from 1 to 65536"},
        {"{'limits':{'max_batch_rows':1.0}}", "limits.max_batch_rows"},
        {"{'limits':{'max_batch_rows':null}}", "limits.max_batch_rows"},
        {"{'limits':{'max_queue_rows':5,'max_request_rows':6}}", "could never be queued"},
        {"{'version_policy':'newest'}", "version_policy must be \"all\""},
        {"{'version_policy':{}}", "version_policy must be"},
        {"{'version_policy':{'latest':0}}", "version_policy.latest must be a whole number from 1"},
        {"{'version_policy':{'latest':1,'specific':[1]}}", "version_policy must be"},
        {"{'version_policy':{'newest':1}}", "version_policy: unknown key 'newest'"},
        {"{'version_policy':{'specific':[]}}", "list of version numbers"},
        {"{'version_policy':{'specific':[1,'2']}}", "version_policy.specific[1]"},
        {"{'version_policy':{'specific':[0]}}", "version_policy.specific[0]"},
        {"{'default_version':'3'}", "default_version must be a whole number"},
        {"{'default_version':-3}", "default_version must be a whole number"},
        {"{'warm_up_rows':0}", "warm_up_rows must be a whole number from 1"},
        {"{'labels':{'3':3}}", "labels: '3' must be"},
        {"{'labels':{'a b':3}}", "labels: 'a b' must be"},
        {"{'labels':{'':3}}", "labels: '' must be"},
        {"{'labels':{'ok':1,'stable':'3'}}", "labels.stable must be a whole number"},
        {"{'warm_up_rows':1,'warm_up_rows':2}", "duplicate"},
    };
    ck_assert_int_eq(parse("{'warm_up_rows':5}"), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ck_assert_msg(parse(cases[i].text) != 0, "accepted: %s", cases[i].text);
        expect_text(err.text, cases[i].part);
        ck_assert_uint_eq(serving.warm_up_rows, 5); /* it is as it was */
    }
}
END_TEST

/* ---- what clients ask of the repository ---- */

static int decode_index(const char *body, bool *ready)
{
    err = (struct error)ERROR_INIT;
    return oip_decode_index(body, strlen(body), ready, &err);
}

static int decode_change(const char *body)
{
    err = (struct error)ERROR_INIT;
    return oip_decode_change(body, strlen(body), &err);
}

START_TEST(bodies_of_the_repository_are_small_objects)
{
    bool ready = true;
    ck_assert_int_eq(decode_index("", &ready), 0);
    ck_assert(!ready);
    ck_assert_int_eq(decode_index("{\"ready\": true}", &ready), 0);
    ck_assert(ready);
    ck_assert_int_eq(decode_index("{\"ready\": 1}", &ready), -1);
    expect_text(err.text, "'ready' is a number, expected true or false");
    ck_assert_int_eq(decode_index("[]", &ready), -1);
    expect_text(err.text, "the body is a list, expected an object");
    ck_assert_int_eq(decode_index("{", &ready), -1);
    expect_text(err.text, "malformed JSON at byte");
    ck_assert_int_eq(decode_change(""), 0);
    ck_assert_int_eq(decode_change("{\"parameters\": {\"unload_dependents\": false}}"), 0);
    ck_assert_int_eq(decode_change("{\"parameters\": {\"config\": \"{}\"}}"), -1);
    expect_text(err.text, "parameter 'config' is not supported");
    ck_assert_int_eq(decode_change("{\"parameters\": {\"file:1/model\": \"\"}}"), -1);
    ck_assert_int_eq(decode_change("{\"parameters\": 1}"), -1);
    ck_assert_int_eq(decode_index("{\"Ready\": true}", &ready), -1);
    expect_text(err.text, "'Ready' is unknown, did you mean 'ready'?");
    ck_assert_int_eq(decode_change("{\"parameter\": {\"config\": \"{}\"}}"), -1);
    expect_text(err.text, "'parameter' is unknown, did you mean 'parameters'?");
    ck_assert_int_eq(decode_change("{\"parameters\": {\"Config\": \"{}\"}}"), -1);
    expect_text(err.text, "parameters: 'Config' is unknown, did you mean 'config'?");
    ck_assert_int_eq(decode_change("{\"parameters\": {\"File:1/model\": \"\"}}"), -1);
    expect_text(err.text, "parameter 'File:1/model' is not supported");
    ck_assert_int_eq(decode_change("nonsense"), -1);
}
END_TEST

START_TEST(an_entry_of_the_index)
{
    struct buffer body;
    buffer_init(&body, 1000);
    oip_append_index_entry(&body, "m", "1", "READY", "");
    oip_append_index_entry(&body, "m\"", "", "UNAVAILABLE", "no\nfile");
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data,
                     "{\"name\":\"m\",\"version\":\"1\",\"state\":\"READY\",\"reason\":\"\"}"
                     "{\"name\":\"m\\\"\",\"state\":\"UNAVAILABLE\","
                     "\"reason\":\"no\\nfile\"}");
    buffer_close(&body);
}
END_TEST

TEST_MAIN_WITH("serving", begin, end, nothing_leaves_the_servers_options, every_key_is_read,
               what_is_wrong_is_named, bodies_of_the_repository_are_small_objects,
               an_entry_of_the_index)
