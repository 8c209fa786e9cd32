/* members: typed members of an object, absent ones, and the messages for wrong ones. */
#include <limits.h>

#include "proto/members.h"
#include "test_proto_support.h"

static json_t *object(const char *text)
{
    json_t *parsed = json_loads(text, JSON_DECODE_INT_AS_REAL, NULL);
    ck_assert_ptr_nonnull(parsed);
    return parsed;
}

START_TEST(reads_each_type)
{
    json_t *root = object("{\"s\": \"text\", \"b\": true, \"n\": 42, \"o\": {}, \"l\": [\"x\"]}");
    struct error err = ERROR_INIT;
    const char *text = NULL;
    bool flag = false;
    size_t size = 0;
    const json_t *inner = NULL, *list = NULL;
    ck_assert_int_eq(member_string(root, NULL, "s", &text, &err), 0);
    ck_assert_str_eq(text, "text");
    ck_assert_int_eq(member_bool(root, NULL, "b", &flag, &err), 0);
    ck_assert(flag);
    ck_assert_int_eq(member_size(root, NULL, "n", &size, &err), 0);
    ck_assert_uint_eq(size, 42);
    ck_assert_int_eq(member_object(root, NULL, "o", &inner, &err), 0);
    ck_assert(json_is_object(inner));
    ck_assert_int_eq(member_list(root, NULL, "l", &list, &err), 0);
    ck_assert(json_is_array(list));
    ck_assert_int_eq(err.code, ERROR_NONE);
    json_decref(root);
}
END_TEST

START_TEST(absent_and_null_leave_the_default)
{
    json_t *root = object("{\"s\": null, \"n\": null}");
    struct error err = ERROR_INIT;
    const char *text = "default";
    size_t size = 7;
    bool flag = true;
    ck_assert_int_eq(member_string(root, NULL, "s", &text, &err), 0);
    ck_assert_int_eq(member_size(root, NULL, "n", &size, &err), 0);
    ck_assert_int_eq(member_bool(root, NULL, "other", &flag, &err), 0);
    ck_assert_int_eq(member_bool(NULL, NULL, "other", &flag, &err), 0);
    ck_assert_str_eq(text, "default");
    ck_assert_uint_eq(size, 7);
    ck_assert(flag);
    json_decref(root);
}
END_TEST

START_TEST(wrong_types_are_named)
{
    json_t *root = object("{\"s\": 1, \"b\": \"yes\", \"n\": [], \"o\": false, \"l\": {}}");
    const char *text;
    bool flag;
    size_t size;
    const json_t *inner;
    struct error err = ERROR_INIT;
    ck_assert_int_eq(member_string(root, "inputs[2]", "s", &text, &err), -1);
    ck_assert_str_eq(err.text, "inputs[2]: 's' is a number, expected a string");
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(member_bool(root, NULL, "b", &flag, &err), -1);
    ck_assert_str_eq(err.text, "'b' is a string, expected true or false");
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(member_size(root, NULL, "n", &size, &err), -1);
    ck_assert_str_eq(err.text, "'n' is a list, expected a whole number");
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(member_object(root, NULL, "o", &inner, &err), -1);
    ck_assert_str_eq(err.text, "'o' is a boolean, expected an object");
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(member_list(root, NULL, "l", &inner, &err), -1);
    ck_assert_str_eq(err.text, "'l' is an object, expected a list");
    ck_assert_int_eq(err.code, ERROR_INVALID);
    json_decref(root);
}
END_TEST

START_TEST(sizes_are_whole_and_bounded)
{
    const char *const refused[] = {"{\"n\": -1}", "{\"n\": 1.5}", "{\"n\": 1e300}",
                                   "{\"n\": 18446744073709551615}"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        json_t *root = object(refused[i]);
        size_t size = 3;
        struct error err = ERROR_INIT;
        ck_assert_int_eq(member_size(root, NULL, "n", &size, &err), -1);
        ck_assert_uint_eq(size, 3);
        json_decref(root);
    }
    json_t *root = object("{\"n\": 9007199254740992}");
    size_t size = 0;
    ck_assert_int_eq(member_size(root, NULL, "n", &size, NULL), 0);
    ck_assert_uint_eq(size, UINT64_C(1) << 53);
    json_decref(root);
}
END_TEST

START_TEST(missing_members_are_named)
{
    struct error err = ERROR_INIT;
    ck_assert_int_eq(member_missing("outputs[0]", "name", "a text", &err), -1);
    ck_assert_str_eq(err.text, "outputs[0]: 'name' is missing, expected a text");
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(member_missing(NULL, "inputs", "a list", &err), -1);
    ck_assert_str_eq(err.text, "'inputs' is missing in the body, expected a list");
}
END_TEST

static const struct {
    const char *name, *known;
    enum likeness likeness;
} NAMES[] = {
    {"max_token", "max_tokens", ONE_LETTER},    /* missing */
    {"max_tokenss", "max_tokens", ONE_LETTER},  /* added */
    {"temperatura", "temperature", ONE_LETTER}, /* another */
    {"tempreature", "temperature", ONE_LETTER}, /* swapped */
    {"etmperature", "temperature", ONE_LETTER},
    {"temperatuer", "temperature", ONE_LETTER},
    {"emperature", "temperature", ONE_LETTER},
    {"xtemperature", "temperature", ONE_LETTER},
    {"stpo", "stop", ONE_LETTER},
    {"sto", "stop", ONE_LETTER},
    {"top_K", "top_k", WRITTEN_OTHERWISE},
    {"top-k", "top_k", WRITTEN_OTHERWISE},
    {"topK", "top_k", WRITTEN_OTHERWISE},
    {"maxTokens", "max_tokens", WRITTEN_OTHERWISE},
    {"Max_Token", "max_tokens", ONE_LETTER},
    {"_max__tokens_", "max_tokens", WRITTEN_OTHERWISE},
    {"N", "n", WRITTEN_OTHERWISE},
    {"m", "n", UNLIKE},
    {"no", "n", UNLIKE},
    {"", "n", UNLIKE},
    {"", "stop", UNLIKE},
    {"tag", "tags", ONE_LETTER},
    {"top_p", "top_k", ONE_LETTER},
    {"tags", "tag", UNLIKE}, /* a short one */
    {"max_token_count", "max_tokens", UNLIKE},
    {"max_tok", "max_tokens", UNLIKE},
    {"min_tokens", "max_tokens", UNLIKE},
    {"metadata", "messages", UNLIKE},
    {"stopp ", "stop", UNLIKE},
    {"spot", "stop", UNLIKE},
};

START_TEST(misspelt_names_are_told_from_others)
{
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        ck_assert_msg(member_likeness(NAMES[i].name, NAMES[i].known) == NAMES[i].likeness,
                      "'%s' and '%s'", NAMES[i].name, NAMES[i].known);
}
END_TEST

RUN_TESTS("proto/members", reads_each_type, absent_and_null_leave_the_default,
          wrong_types_are_named, sizes_are_whole_and_bounded, missing_members_are_named,
          misspelt_names_are_told_from_others)
