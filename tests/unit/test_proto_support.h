/* Shared by the unit tests of proto/: input that ends at an unreadable page, and a main
 * function. */
#ifndef TEST_PROTO_SUPPORT_H
#define TEST_PROTO_SUPPORT_H

#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "patience.h"
#include "test_proto_models.h"

/* Repetitions of a test that compares numbers with libc's. Such a test looks for wrong values,
 * which the release build finds; under sanitizers, which look for wrong accesses and take several
 * times as long, a twentieth suffices. */
#ifdef MOED_SANITIZED
#define REPETITIONS(count) ((count) / 20)
#else
#define REPETITIONS(count) (count)
#endif

/* A copy of `length` bytes that ends right before an unreadable page: reading one byte past the end
 * crashes. */
struct guarded {
    char *text;
    size_t length;
    void *pages;
    size_t mapped;
};

static inline struct guarded guarded_copy(const void *bytes, size_t length)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const size_t readable = (length + page - 1) / page * page;
    struct guarded copy = {.length = length, .mapped = readable + page};
    copy.pages =
        mmap(NULL, copy.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(copy.pages, MAP_FAILED);
    ck_assert_int_eq(mprotect((char *)copy.pages + readable, page, PROT_NONE), 0);
    copy.text = (char *)copy.pages + readable - length;
    if (length > 0)
        memcpy(copy.text, bytes, length);
    return copy;
}

static inline void guarded_free(struct guarded *copy)
{
    munmap(copy->pages, copy->mapped);
}

static inline struct guarded guarded_text(const char *text)
{
    return guarded_copy(text, strlen(text));
}

/* Runs one suite of one case; returns the exit status of the executable. */
static inline int run_tests(const char *name, const TTest *const *tests, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    tcase_set_timeout(tcase, TEST_SECONDS);
    for (size_t i = 0; i < count; i++)
        tcase_add_test(tcase, tests[i]);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

#define RUN_TESTS(name, ...)                                                                       \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const tests[] = {__VA_ARGS__};                                                \
        return run_tests(name, tests, sizeof tests / sizeof *tests);                               \
    }

#endif
