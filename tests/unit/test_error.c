/* The error type: the first cause wins, texts never overflow, and every code has a status. */
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/http/http_status.h"
#include "support.h"

START_TEST(records_code_and_text)
{
    struct error err = ERROR_INIT;
    ck_assert_int_eq(error_set(&err, ERROR_NOT_FOUND, "no %s after %d", "model", 7), -1);
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
    ck_assert_str_eq(err.text, "no model after 7");
}
END_TEST

START_TEST(the_first_error_wins)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_INVALID, "cause");
    ck_assert_int_eq(error_set(&err, ERROR_INTERNAL, "consequence"), -1);
    ck_assert_int_eq(err.code, ERROR_INVALID);
    ck_assert_str_eq(err.text, "cause");
}
END_TEST

START_TEST(nobody_need_listen)
{
    ck_assert_int_eq(error_set(NULL, ERROR_INVALID, "unheard"), -1);
    error_prefix(NULL, "unheard");
}
END_TEST

START_TEST(a_long_text_is_cut_and_terminated)
{
    struct error err = ERROR_INIT;
    char text[2 * ERROR_TEXT_BYTES];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    error_set(&err, ERROR_INVALID, "%s", text);
    ck_assert_uint_eq(strlen(err.text), ERROR_TEXT_BYTES - 1);
}
END_TEST

START_TEST(prefix_goes_in_front)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_INVALID, "bad shape");
    error_prefix(&err, "tensor '%s'", "w");
    error_prefix(&err, "model");
    ck_assert_str_eq(err.text, "model: tensor 'w': bad shape");
    ck_assert_int_eq(err.code, ERROR_INVALID);
}
END_TEST

START_TEST(prefix_needs_an_error)
{
    struct error err = ERROR_INIT;
    error_prefix(&err, "model");
    ck_assert_int_eq(err.code, ERROR_NONE);
    ck_assert_str_eq(err.text, "");
}
END_TEST

START_TEST(prefix_keeps_what_fits)
{
    struct error err = ERROR_INIT;
    char text[ERROR_TEXT_BYTES];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    error_set(&err, ERROR_INVALID, "%s", text);
    error_prefix(&err, "model");
    ck_assert_uint_eq(strlen(err.text), ERROR_TEXT_BYTES - 1);
    ck_assert_int_eq(strncmp(err.text, "model: xxx", 10), 0);
}
END_TEST

START_TEST(a_prefix_without_room_leaves_the_cause)
{
    struct error err = ERROR_INIT;
    error_set(&err, ERROR_INVALID, "cause");
    error_prefix(&err, "%*s", ERROR_TEXT_BYTES, "");
    ck_assert_str_eq(err.text, "cause");
}
END_TEST

START_TEST(every_code_has_its_status)
{
    static const struct {
        enum error_code code;
        int status;
    } expected[] = {
        {ERROR_NONE, 200},      {ERROR_INVALID, 400},     {ERROR_CONTEXT, 400},
        {ERROR_NOT_FOUND, 404}, {ERROR_METHOD, 405},      {ERROR_TIMEOUT, 408},
        {ERROR_TOO_LARGE, 413}, {ERROR_MEDIA_TYPE, 415},  {ERROR_OVERLOADED, 429},
        {ERROR_INTERNAL, 500},  {ERROR_UNAVAILABLE, 503}, {ERROR_DEADLINE, 504},
    };
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        ck_assert_int_eq(error_http_status(expected[i].code), expected[i].status);
    }
}
END_TEST

START_TEST(allocations_of_nothing_are_something)
{
    void *memory = xmalloc(0);
    ck_assert_ptr_nonnull(memory);
    memory = xrealloc(memory, 0);
    ck_assert_ptr_nonnull(memory);
    free(memory);
    memory = xcalloc(0, 8);
    ck_assert_ptr_nonnull(memory);
    free(memory);
}
END_TEST

START_TEST(callocated_memory_is_zero_and_copies_are_copies)
{
    unsigned char *bytes = xcalloc(5, 3);
    for (size_t i = 0; i < 15; i++)
        ck_assert_uint_eq(bytes[i], 0);
    free(bytes);
    const char original[] = "text";
    char *copy = xstrdup(original);
    ck_assert_ptr_ne(copy, original);
    ck_assert_str_eq(copy, original);
    free(copy);
}
END_TEST

START_TEST(no_memory_aborts_with_a_word)
{
    volatile size_t too_much = SIZE_MAX / 4;
    char text[4096];
    int ends[2], status;
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        free(xmalloc(too_much));
        _exit(0);
    }
    close(ends[1]);
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(WTERMSIG(status), SIGABRT);
    const ssize_t length = read(ends[0], text, sizeof text - 1);
    ck_assert_int_gt(length, 0);
    text[length] = '\0';
    ck_assert_ptr_nonnull(strstr(text, "moed: out of memory for a small allocation\n"));
    close(ends[0]);
}
END_TEST

/* A full pipe without a reader must not keep the process from ending. */
START_TEST(no_memory_aborts_without_a_reader)
{
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    ck_assert_int_eq(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
    while (write(ends[1], "x", 1) == 1)
        ;
    ck_assert_int_eq(fcntl(ends[1], F_SETFL, 0), 0);
    dup2(ends[1], STDERR_FILENO);
    out_of_memory(); /* not through xmalloc(): the sanitizer's own warning would block */
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("error");
    tcase_add_test(tests, records_code_and_text);
    tcase_add_test(tests, the_first_error_wins);
    tcase_add_test(tests, nobody_need_listen);
    tcase_add_test(tests, a_long_text_is_cut_and_terminated);
    tcase_add_test(tests, prefix_goes_in_front);
    tcase_add_test(tests, prefix_needs_an_error);
    tcase_add_test(tests, prefix_keeps_what_fits);
    tcase_add_test(tests, a_prefix_without_room_leaves_the_cause);
    tcase_add_test(tests, every_code_has_its_status);
    tcase_add_test(tests, allocations_of_nothing_are_something);
    tcase_add_test(tests, callocated_memory_is_zero_and_copies_are_copies);
    tcase_add_test(tests, no_memory_aborts_with_a_word);
    tcase_add_test_raise_signal(tests, no_memory_aborts_without_a_reader, SIGABRT);
    return run_suite("error", tests);
}
