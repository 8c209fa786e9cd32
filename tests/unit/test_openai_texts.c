/* /tokenize in the words of llama.cpp's clients and of vLLM's. */
#include "proto/openai.h"
#include "test_proto_support.h"

static const struct {
    const char *body, *refusal; /* NULL: is read */
    bool add_special;
} CASES[] = {
    {"{\"content\":\"a b\"}", NULL, false},
    {"{\"content\":\"a b\",\"prompt\":null}", NULL, false},
    {"{\"content\":\"a b\",\"add_special_tokens\":true}", NULL, true},
    {"{\"content\":null,\"prompt\":\"a b\"}", NULL, true},
    {"{\"prompt\":\"a b\",\"add_special_tokens\":false}", NULL, false},
    {"{\"prompt\":\"a b\",\"content\":\"a b\"}", "'content' and 'prompt' are the same", false},
    {"{\"prompt\":[\"a b\"]}", "'prompt' is a list, expected a string", false},
    {"{\"prompt\":\"a b\",\"add_special_tokens\":1}", "'add_special_tokens' is a number", false},
};

START_TEST(a_text_is_read_in_the_words_of_either_client)
{
    struct error err = ERROR_INIT;
    struct openai_text text;
    struct guarded body = guarded_text(CASES[_i].body);
    int result = openai_read_tokenize(body.text, body.length, &text, &err);
    if (CASES[_i].refusal) {
        ck_assert_int_eq(result, -1);
        ck_assert_msg(strstr(err.text, CASES[_i].refusal) != NULL, "%s", err.text);
    } else {
        ck_assert_msg(result == 0, "%s", err.text);
        ck_assert_str_eq(text.input.items[0].text, "a b");
        ck_assert_int_eq(text.add_special, CASES[_i].add_special);
        openai_text_close(&text);
    }
    guarded_free(&body);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("openai_texts");
    TCase *tcase = tcase_create("openai_texts");
    tcase_set_timeout(tcase, TEST_SECONDS);
    tcase_add_loop_test(tcase, a_text_is_read_in_the_words_of_either_client, 0,
                        sizeof CASES / sizeof *CASES);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
