/* The C client's reading of inference answers: sizes are checked before bytes are looked at. */
#include <string.h>

#include "clients/c/internal.h"
#include "support.h"

static char body[4096];

/* The JSON with ' for ", and `extra` bytes 0, 1, 2, ... behind it. */
static struct moed_client_answer answer_of(const char *json, size_t extra)
{
    size_t length = strlen(json);
    for (size_t i = 0; i < length; i++)
        body[i] = (char)(json[i] == '\'' ? '"' : json[i]);
    for (size_t i = 0; i < extra; i++)
        body[length + i] = (char)i;
    body[length + extra] = '\0';
    return (struct moed_client_answer){body, length + extra, length, 200};
}

static void refused(const char *json, size_t extra, const char *part)
{
    struct moed_client_error err = {0};
    struct moed_client_answer answer = answer_of(json, extra);
    ck_assert_ptr_null(client_read_result(&answer, &err));
    ck_assert_int_eq(err.code, MOED_CLIENT_PROTOCOL);
    ck_assert_msg(strstr(err.text, part) != NULL, "%s", err.text);
}

#define HEAD "{'model_name':'m','model_version':'1','outputs':["

START_TEST(tensors_are_read_and_aligned)
{
    struct moed_client_error err = {0};
    struct moed_client_answer answer = answer_of(
        HEAD "{'name':'a','datatype':'UINT8','shape':[3],'parameters':{'binary_data_size':3}},"
             "{'name':'b','datatype':'INT64','shape':[1],'parameters':{'binary_data_size':8}}]}",
        11);
    const struct moed_client_result *result = client_read_result(&answer, &err);
    ck_assert_msg(result != NULL, "%s", err.text);
    ck_assert_str_eq(result->version, "1");
    ck_assert_ptr_null(result->id);
    ck_assert_uint_eq(result->output_count, 2);
    const struct moed_client_tensor *b = moed_client_result_output(result, "b");
    ck_assert_uint_eq((uintptr_t)b->data % 8, 0);
    ck_assert_int_eq(*(const int64_t *)b->data, 0x0A09080706050403);
    ck_assert_ptr_null(moed_client_result_output(result, "c"));
    moed_client_result_free(result);
}
END_TEST

START_TEST(sizes_that_do_not_fit_are_refused)
{
    refused("[]", 0, "model_name");
    refused("{", 0, "line 1");
    refused(HEAD "{'name':'a','datatype':'FP32','shape':[2],'parameters':{'binary_data_size':8}}]}",
            7, "more than there is");
    refused(HEAD "{'name':'a','datatype':'FP32','shape':[2],'parameters':{'binary_data_size':8}}]}",
            9, "behind");
    refused(HEAD "{'name':'a','datatype':'FP32','shape':[3],'parameters':{'binary_data_size':8}}]}",
            8, "shape");
    refused(HEAD
            "{'name':'a','datatype':'FP32','shape':[-1],'parameters':{'binary_data_size':0}}]}",
            0, "shape");
    refused(HEAD "{'name':'a','datatype':'FP32','shape':[4294967296,4294967296],'parameters':"
                 "{'binary_data_size':0}}]}",
            0, "shape");
    refused(HEAD "{'name':'a','datatype':'FP32','shape':[1],'data':[1]}]}", 0, "no binary data");
    refused(HEAD "{'name':'a','datatype':'WORDS','shape':[1]}]}", 0, "datatype");
    refused(HEAD "{'datatype':'FP32','shape':[1]}]}", 0, "without a name");
}
END_TEST

START_TEST(bytes_are_walked_to_their_end)
{
    struct moed_client_error err = {0};
    struct moed_client_answer answer = answer_of(
        HEAD "{'name':'a','datatype':'BYTES','shape':[1],'parameters':{'binary_data_size':6}}]}",
        6);
    refused(HEAD
            "{'name':'a','datatype':'BYTES','shape':[1],'parameters':{'binary_data_size':6}}]}",
            6, "shape");
    memcpy(body + answer.json_length, "\2\0\0\0ab", 6);
    const struct moed_client_result *result = client_read_result(&answer, &err);
    ck_assert_msg(result != NULL, "%s", err.text);
    moed_client_result_free(result);
}
END_TEST

START_TEST(a_json_length_beyond_the_body_is_refused)
{
    struct moed_client_error err = {0};
    struct moed_client_answer answer = answer_of(HEAD "]}", 0);
    answer.json_length++;
    ck_assert_ptr_null(client_read_result(&answer, &err));
    ck_assert_int_eq(err.code, MOED_CLIENT_PROTOCOL);
}
END_TEST

static struct moed_client *open_with(const char *url, const char *tag,
                                     struct moed_client_error *err)
{
    return moed_client_new(url, &(struct moed_client_options){.tag = tag}, err);
}

START_TEST(arguments_are_checked_before_anything_is_sent)
{
    static const char *const URLS[] = {"",      "127.0.0.1:8080",      "ftp://host", "http://",
                                       "http:", "http://host?query=1", "http://a b"};
    for (size_t i = 0; i < sizeof URLS / sizeof *URLS; i++) {
        struct moed_client_error err = {0};
        ck_assert_ptr_null(open_with(URLS[i], NULL, &err));
        ck_assert_int_eq(err.code, MOED_CLIENT_INVALID);
    }
    struct moed_client_error err = {0};
    ck_assert_ptr_null(open_with("http://host", "a\r\nHost: b", &err));
    ck_assert_msg(strstr(err.text, "Moed-Tag") != NULL, "%s", err.text);
    struct moed_client *client = open_with("http://host///", NULL, NULL);
    ck_assert_ptr_nonnull(client);
    ck_assert_ptr_null(moed_client_routing(client, "..", NULL, NULL, NULL));
    moed_client_free(client);
    moed_client_free(NULL);
}
END_TEST

START_TEST(names_are_escaped_in_paths)
{
    char *path = client_model_path("v2", "a/b?c", "1%", "/routing", NULL);
    ck_assert_str_eq(path, "/v2/models/a%2Fb%3Fc/versions/1%25/routing");
    free(path);
}
END_TEST

TEST_MAIN("client answers", tensors_are_read_and_aligned, sizes_that_do_not_fit_are_refused,
          bytes_are_walked_to_their_end, a_json_length_beyond_the_body_is_refused,
          arguments_are_checked_before_anything_is_sent, names_are_escaped_in_paths)
