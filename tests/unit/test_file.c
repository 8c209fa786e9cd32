/* file: a file is read whole, or not at all. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "support.h"

static char path[PATH_MAX];

static void write_bytes(const char *bytes, size_t count)
{
    char *directory = new_directory();
    write_file(directory, "file", bytes, count);
    snprintf(path, sizeof path, "%s/file", directory);
    free(directory);
}

static void expect_read(const char *bytes, size_t count)
{
    struct error err = ERROR_INIT;
    size_t length = SIZE_MAX;
    write_bytes(bytes, count);
    char *read = file_read(path, count, &length, &err);
    ck_assert_msg(read != NULL, "%s", err.text);
    ck_assert_uint_eq(length, count);
    ck_assert_mem_eq(read, bytes, count);
    ck_assert_int_eq(read[count], '\0');
    free(read);
}

START_TEST(all_of_it_is_read)
{
    expect_read("a\0b", 3);
    expect_read("", 0);
}
END_TEST

static void expect_unread(const char *name, size_t most, enum error_code code, const char *text)
{
    struct error err = ERROR_INIT;
    size_t length;
    ck_assert_ptr_null(file_read(name, most, &length, &err));
    ck_assert_int_eq(err.code, code);
    ck_assert_str_eq(err.text, text);
}

START_TEST(what_cannot_be_read_says_why)
{
    write_bytes("abcd", 4);
    expect_unread(path, 3, ERROR_TOO_LARGE, "larger than 3 bytes");
    unlink(path);
    expect_unread(path, 3, ERROR_NOT_FOUND, "cannot open: No such file or directory");
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_unread(path, 3, ERROR_INVALID, "not a regular file");
    expect_unread("/", 3, ERROR_INVALID, "not a regular file");
}
END_TEST

START_TEST(a_file_that_became_shorter_is_no_whole_one)
{
    char bytes[8];
    write_bytes("abcd", 4);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(file_read_bytes(fd, bytes, 5), -1);
    ck_assert_int_eq(errno, ENODATA);
    close(fd);
}
END_TEST

TEST_MAIN("file", all_of_it_is_read, what_cannot_be_read_says_why,
          a_file_that_became_shorter_is_no_whole_one)
