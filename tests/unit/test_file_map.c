/* file_map: a file that is truncated under a map costs the map, and nothing else. */
#include <fcntl.h>
#include <unistd.h>

#include "core/load/file_map.h"
#include "support.h"

enum { BYTES = 1 << 20 };

static char path[PATH_MAX];
static struct error err;

static void begin(void)
{
    char *directory = new_directory();
    char *bytes = xmalloc(BYTES);
    memset(bytes, 7, BYTES);
    write_file(directory, "weights", bytes, BYTES);
    snprintf(path, sizeof path, "%s/weights", directory);
    free(bytes);
    free(directory);
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(file_map_survive(&err), 0);
}

static void end(void)
{
}

static void map(struct file_map *map, bool copy)
{
    ck_assert_msg(file_map_init(map, path, 8, copy, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(map->bytes, BYTES);
}

static char at(const struct file_map *map, size_t place)
{
    return ((const volatile char *)map->base)[place];
}

START_TEST(a_truncated_file_reads_as_zeros)
{
    struct file_map first, second;
    map(&first, false);
    map(&second, false);
    ck_assert_int_eq(at(&first, BYTES - 1), 7);
    ck_assert_int_eq(truncate(path, 100), 0);
    ck_assert(!file_map_is_damaged(&first));
    ck_assert_int_eq(at(&first, BYTES - 1), 0);
    ck_assert(file_map_is_damaged(&first));
    ck_assert_int_eq(at(&first, 50), 0);      /* nor is the rest to be trusted */
    ck_assert(!file_map_is_damaged(&second)); /* nobody has noticed */
    file_map_close(&first);
    ck_assert_int_eq(file_map_init(&first, path, 8, false, &err), 0); /* in the same slot */
    ck_assert(!file_map_is_damaged(&first));
    file_map_close(&first);
    file_map_close(&second);
}
END_TEST

START_TEST(a_copy_stays)
{
    struct file_map copy;
    map(&copy, true);
    ck_assert_int_eq(truncate(path, 0), 0);
    ck_assert_int_eq(at(&copy, BYTES - 1), 7);
    ck_assert(!file_map_is_damaged(&copy));
    file_map_close(&copy);
}
END_TEST

START_TEST(what_cannot_be_mapped_says_why)
{
    struct file_map map;
    ck_assert_int_eq(file_map_init(&map, path, BYTES + 1, false, &err), -1);
    expect_text(err.text, "1048576 bytes, too short");
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(file_map_init(&map, "/nowhere", 8, true, &err), -1);
    expect_text(err.text, "/nowhere: cannot open: No such file");
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(file_map_init(&map, "/tmp", 8, false, &err), -1);
    expect_text(err.text, "/tmp: not a regular file");
    file_map_close(&map);
}
END_TEST

TEST_MAIN_WITH("file_map", begin, end, a_truncated_file_reads_as_zeros, a_copy_stays,
               what_cannot_be_mapped_says_why)
