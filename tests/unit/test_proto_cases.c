/* Whole exchanges as data: every folder of tests/data/protocol/{good,bad} is a request and what it
 * is answered. A folder's name begins with the protocol: oip_ or v1_.
 *
 *     request.json                 the body, or
 *     request.bin, header_length   a body with binary data and the length of its JSON
 *     response.json                good: the answer, or
 *     response.bin, response_header_length
 *     error                        bad: invalid or too_large, a newline, text of the message
 *
 * All use the model `digits` of test_proto_models.h. For a row x of six numbers it computes the
 * scores x0, x1, x2 and x3 + x4 + x5. Row r of layer `moe` goes to the experts r and r + 1 (modulo
 * 5) with the weights 0.75 and 0.25; the two positions of row r of `blocks.1` go to 2r and 2r + 1
 * (modulo 3) with weight 1. At most 8 rows are allowed. */
#include <dirent.h>

#include "proto/oip.h"
#include "proto/v1.h"
#include "test_proto_support.h"

enum { PATH_BYTES = 512, MAX_CASES = 200 };

static struct dirent **names;
static int name_count;

/* ---- files ---- */

/* The bytes of a case's file, with a NUL after them; NULL if there is no such file. The caller
 * frees them. */
static char *read_file(const char *folder, const char *name, const char *file, size_t *length)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, MOED_TEST_DATA "/data/protocol/%s/%s/%s", folder, name, file);
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return NULL;
    char *bytes = malloc(1 << 16);
    *length = fread(bytes, 1, (1 << 16) - 1, stream);
    bytes[*length] = '\0';
    fclose(stream);
    return bytes;
}

/* Like read_file(), without the newline at the end. */
static char *read_line(const char *folder, const char *name, const char *file)
{
    size_t length;
    char *text = read_file(folder, name, file, &length);
    if (text && length > 0 && text[length - 1] == '\n')
        text[length - 1] = '\0';
    return text;
}

static int is_case(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static void list_cases(const char *folder)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, MOED_TEST_DATA "/data/protocol/%s", folder);
    name_count = scandir(path, &names, is_case, alphasort);
    ck_assert_msg(name_count > 0 && name_count < MAX_CASES, "%s: %d cases", path, name_count);
}

static void free_cases(void)
{
    for (int i = 0; i < name_count; i++)
        free(names[i]);
    free(names);
}

/* ---- an exchange ---- */

static void compute(const struct infer_request *request, const float *inputs,
                    struct fake_result *fake)
{
    fake_result_init(fake);
    for (size_t row = 0; row < request->rows; row++) {
        const float *x = inputs + row * 6;
        float *scores = fake->outputs + row * 4;
        memcpy(scores, x, 3 * sizeof *x);
        scores[3] = x[3] + x[4] + x[5];
        for (size_t k = 0; k < 2; k++) {
            fake->experts[0][row * 2 + k] = (int32_t)((row + k) % 5);
            fake->experts[1][row * 2 + k] = (int32_t)((row * 2 + k) % 3);
        }
    }
}

static int exchange(bool v1, const struct guarded *body, const char *header,
                    struct buffer *response, size_t *json_length, struct error *err)
{
    struct infer_request request;
    const struct protocol *protocol = v1 ? &protocol_v1 : &protocol_oip;
    const struct infer_body received = {body->text, body->length, header};
    int result = protocol->decode(&digits_model, &received, &test_limits, &request, err);
    if (result != 0)
        return -1;
    struct infer_reader reader;
    infer_reader_init(&reader, &request, 0);
    float inputs[8 * 6];
    struct fake_result fake;
    result = infer_reader_rows(&reader, request.rows, inputs, err);
    *json_length = 0;
    if (result == 0) {
        compute(&request, inputs, &fake);
        result = protocol->encode(&request, &fake.result, response, json_length, err);
    }
    infer_request_close(&request);
    return result;
}

/* Runs the exchange of one case. */
static int run_case(const char *folder, const char *name, struct buffer *response,
                    size_t *json_length, struct error *err)
{
    size_t length = 0;
    char *body = read_file(folder, name, "request.json", &length);
    if (!body)
        body = read_file(folder, name, "request.bin", &length);
    ck_assert_msg(body != NULL, "%s has no request", name);
    char *header = read_line(folder, name, "header_length");
    struct guarded copy = guarded_copy(body, length);
    buffer_init(response, 1 << 16);
    int result = exchange(strncmp(name, "v1_", 3) == 0, &copy, header, response, json_length, err);
    guarded_free(&copy);
    free(header);
    free(body);
    return result;
}

static void check_good(const char *name)
{
    struct buffer response;
    size_t json_length = 0, expected_length = 0;
    struct error err = ERROR_INIT;
    int result = run_case("good", name, &response, &json_length, &err);
    ck_assert_msg(result == 0, "good/%s: %s", name, err.text);
    char *header = read_line("good", name, "response_header_length");
    char *expected = header ? read_file("good", name, "response.bin", &expected_length)
                            : read_line("good", name, "response.json");
    ck_assert_msg(expected != NULL, "good/%s has no response", name);
    if (!header)
        expected_length = strlen(expected);
    ck_assert_msg(json_length == (header ? strtoul(header, NULL, 10) : 0), "good/%s: %zu", name,
                  json_length);
    ck_assert_msg(response.length == expected_length &&
                      memcmp(response.data, expected, expected_length) == 0,
                  "good/%s: %.*s", name, (int)response.length, response.data);
    free(expected);
    free(header);
    buffer_close(&response);
}

static const char *word_of(enum error_code code)
{
    return code == ERROR_INVALID ? "invalid" : code == ERROR_TOO_LARGE ? "too_large" : "other";
}

static void check_bad(const char *name)
{
    struct buffer response;
    size_t json_length;
    struct error err = ERROR_INIT;
    int result = run_case("bad", name, &response, &json_length, &err);
    ck_assert_msg(result == -1, "bad/%s: accepted", name);
    char *expected = read_line("bad", name, "error");
    ck_assert_msg(expected != NULL, "bad/%s has no error", name);
    char *text = strchr(expected, '\n');
    ck_assert_msg(text != NULL, "bad/%s: its error has one line", name);
    *text++ = '\0';
    ck_assert_msg(strcmp(word_of(err.code), expected) == 0, "bad/%s: %s", name, word_of(err.code));
    ck_assert_msg(strstr(err.text, text) != NULL, "bad/%s: \"%s\" lacks \"%s\"", name, err.text,
                  text);
    free(expected);
    buffer_close(&response);
}

START_TEST(good_requests_are_answered)
{
    list_cases("good");
    for (int i = 0; i < name_count; i++)
        check_good(names[i]->d_name);
    free_cases();
}
END_TEST

START_TEST(bad_requests_are_refused)
{
    list_cases("bad");
    for (int i = 0; i < name_count; i++)
        check_bad(names[i]->d_name);
    free_cases();
}
END_TEST

RUN_TESTS("proto/cases", good_requests_are_answered, bad_requests_are_refused)
