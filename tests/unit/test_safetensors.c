/* Reading weights: which tensors are found, in which dtype, in one file or several.
 * test_checkpoint_damage.c has damaged files. */
#include <fcntl.h>
#include <unistd.h>

#include "core/load/safetensors.h"
#include "support.h"

static char *directory;
static struct error err;

static void begin(void)
{
    directory = new_directory();
    err = (struct error)ERROR_INIT;
}

static void end(void)
{
    free(directory);
}

static struct safetensors *open_checked(void)
{
    struct safetensors *file = safetensors_open(directory, false, &err);
    ck_assert_msg(file != NULL, "%s", err.text);
    return file;
}

static void expect_open_fails(const char *part)
{
    ck_assert_ptr_null(safetensors_open(directory, false, &err));
    expect_text(err.text, part);
}

static void write_index(const char *weight_map)
{
    char text[512];
    snprintf(text, sizeof text, "{'metadata':{'total_size':8},'weight_map':%s}", weight_map);
    write_json(directory, "model.safetensors.index.json", text);
}

static void write_shard(const char *file, const char *tensor, float value)
{
    const struct stored stored = {tensor, 1, {1}, &value, NULL};
    write_safetensors(directory, file, &stored, 1, 0);
}

static float first_value(const struct safetensors *file, const char *name)
{
    const struct tensor *tensor = safetensors_find(file, name);
    ck_assert_ptr_nonnull(tensor);
    float values[8] = {0};
    ck_assert_uint_le(tensor->elements, 8);
    tensor_to_f32(tensor, values);
    return values[0];
}

START_TEST(finds_tensors_by_name)
{
    const struct stored tensors[] = {STORED("b", DIMS(2, 3), 1, 2, 3, 4, 5, 6),
                                     STORED("a.weight", DIMS(1), 7)};
    write_safetensors(directory, "model.safetensors", tensors, 2, 0);
    struct safetensors *file = open_checked();
    const struct tensor *b = safetensors_find(file, "b");
    float values[6];
    ck_assert_ptr_nonnull(b);
    ck_assert_uint_eq(b->rank, 2);
    ck_assert_uint_eq(b->dims[0], 2);
    ck_assert_uint_eq(b->dims[1], 3);
    ck_assert_uint_eq(b->elements, 6);
    tensor_to_f32(b, values);
    expect_close(values, FLOATS(1, 2, 3, 4, 5, 6), 6);
    ck_assert(first_value(file, "a.weight") == 7);
    ck_assert_ptr_null(safetensors_find(file, "a"));
    ck_assert_ptr_null(safetensors_find(file, ""));
    safetensors_free(file);
}
END_TEST

START_TEST(every_dtype_reads_as_f32)
{
    static const uint16_t f16[] = {0x3c00, 0xc000}, bf16[] = {0x3f80, 0xc000};
    static const float f32[] = {1, -2};
    const struct stored tensors[] = {
        {"x", 1, {2}, f32, "F32"}, {"h", 1, {2}, f16, "F16"}, {"b", 1, {2}, bf16, "BF16"}};
    static const enum dtype dtypes[] = {DTYPE_F32, DTYPE_F16, DTYPE_BF16};
    for (size_t padding = 0; padding < 4; padding++) {
        write_safetensors(directory, "model.safetensors", tensors, 3, padding);
        struct safetensors *file = open_checked();
        for (size_t i = 0; i < 3; i++) {
            float values[2];
            const struct tensor *tensor = safetensors_find(file, tensors[i].name);
            ck_assert_int_eq(tensor->dtype, dtypes[i]);
            ck_assert_uint_eq(dtype_bytes(tensor->dtype), i == 0 ? 4 : 2);
            tensor_to_f32(tensor, values);
            expect_close(values, FLOATS(1, -2), 2);
        }
        safetensors_free(file);
    }
}
END_TEST

START_TEST(a_scalar_has_one_element)
{
    const float value = 5;
    const struct stored scalar = {"s", 0, {0}, &value, NULL};
    write_safetensors(directory, "model.safetensors", &scalar, 1, 0);
    struct safetensors *file = open_checked();
    ck_assert_uint_eq(safetensors_find(file, "s")->rank, 0);
    ck_assert_uint_eq(safetensors_find(file, "s")->elements, 1);
    ck_assert(first_value(file, "s") == 5);
    safetensors_free(file);
}
END_TEST

/* More than any published model has; still below the bound on a header's memory. */
START_TEST(a_hundred_thousand_tensors_are_read)
{
    enum { COUNT = 100000 };
    struct stored *tensors = xcalloc(COUNT, sizeof *tensors);
    char(*names)[48] = xcalloc(COUNT, sizeof *names);
    const float value = 3;
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%d.mlp.experts.%d.weight", i / 256,
                 i % 256);
        tensors[i] = (struct stored){names[i], 1, {1}, &value, NULL};
    }
    write_safetensors(directory, "model.safetensors", tensors, COUNT, 0);
    struct safetensors *file = open_checked();
    ck_assert(first_value(file, names[COUNT - 1]) == 3);
    safetensors_free(file);
    free(names);
    free(tensors);
}
END_TEST

START_TEST(no_tensors_is_a_file_too)
{
    write_safetensors(directory, "model.safetensors", NO_TENSORS, 0);
    struct safetensors *file = open_checked();
    ck_assert_ptr_null(safetensors_find(file, "a"));
    ck_assert_ptr_null(safetensors_unused(file));
    safetensors_free(file);
}
END_TEST

START_TEST(metadata_is_no_tensor)
{
    static const char header[] = "{\"__metadata__\":{\"format\":\"pt\"},"
                                 "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    char bytes[8 + sizeof header - 1 + 4] = {(char)(sizeof header - 1)};
    memcpy(bytes + 8, header, sizeof header - 1);
    write_file(directory, "model.safetensors", bytes, sizeof bytes);
    struct safetensors *file = open_checked();
    ck_assert_str_eq(safetensors_unused(file)->name, "a");
    ck_assert_ptr_null(safetensors_find(file, "__metadata__"));
    safetensors_free(file);
}
END_TEST

/* Every PyTorch model with batch norm has these beside its weights. */
START_TEST(batch_counters_are_ignored)
{
    static const char header[] =
        "{\"n.num_batches_tracked\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
        "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}";
    char bytes[8 + sizeof header - 1 + 12] = {(char)(sizeof header - 1)};
    memcpy(bytes + 8, header, sizeof header - 1);
    write_file(directory, "model.safetensors", bytes, sizeof bytes);
    struct safetensors *file = open_checked();
    ck_assert_str_eq(safetensors_unused(file)->name, "a");
    safetensors_find(file, "a")->used = true;
    ck_assert_ptr_null(safetensors_unused(file));
    safetensors_free(file);
}
END_TEST

/* An index may list the single file; then the two agree. */
START_TEST(an_index_of_the_single_file_is_fine)
{
    write_shard("model.safetensors", "a", 4);
    write_index("{'a':'model.safetensors'}");
    struct safetensors *file = open_checked();
    ck_assert(first_value(file, "a") == 4);
    safetensors_free(file);
}
END_TEST

static struct tensor stored_list(enum dtype dtype, size_t count, const void *data)
{
    return (struct tensor){.name = (char *)"t",
                           .shard = "f",
                           .dtype = dtype,
                           .rank = 1,
                           .dims = {count},
                           .elements = count,
                           .data = data};
}

START_TEST(not_finite_elements_are_found_wherever_they_are)
{
    enum { COUNT = 40000 };
    static const size_t places[] = {0, 1, 16383, 16384, COUNT - 1};
    static const uint16_t bad16[] = {0x7C00, 0xFC01}, badb16[] = {0x7F80, 0xFF81};
    uint16_t *halves = xcalloc(COUNT, sizeof *halves);
    float *floats = xcalloc(COUNT, sizeof *floats);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        const struct tensor f32 = stored_list(DTYPE_F32, COUNT, floats);
        const struct tensor f16 = stored_list(DTYPE_F16, COUNT, halves);
        const struct tensor bf16 = stored_list(DTYPE_BF16, COUNT, halves);
        char expected[64];
        snprintf(expected, sizeof expected, "f: tensor 't': element %zu of", places[i]);
        floats[places[i]] = 3.4028234e38f;
        halves[places[i]] = 0x7BFF;
        ck_assert_int_eq(tensor_check_finite(&f32, &err), 0);
        ck_assert_int_eq(tensor_check_finite(&f16, &err), 0);
        ck_assert_int_eq(tensor_check_finite(&bf16, &err), 0);
        floats[places[i]] = i % 2 ? NAN : -INFINITY;
        ck_assert_int_eq(tensor_check_finite(&f32, &err), -1);
        expect_text(err.text, expected);
        halves[places[i]] = bad16[i % 2];
        err = (struct error)ERROR_INIT;
        ck_assert_int_eq(tensor_check_finite(&f16, &err), -1);
        expect_text(err.text, expected);
        halves[places[i]] = badb16[i % 2];
        err = (struct error)ERROR_INIT;
        ck_assert_int_eq(tensor_check_finite(&bf16, &err), -1);
        expect_text(err.text, expected);
        err = (struct error)ERROR_INIT;
        floats[places[i]] = 0;
        halves[places[i]] = 0;
    }
    free(floats);
    free(halves);
}
END_TEST

START_TEST(unused_tensors_come_in_order_of_names)
{
    const struct stored tensors[] = {STORED("c", DIMS(1), 1), STORED("a", DIMS(1), 1),
                                     STORED("b", DIMS(1), 1)};
    write_safetensors(directory, "model.safetensors", tensors, 3, 0);
    struct safetensors *file = open_checked();
    ck_assert_str_eq(safetensors_unused(file)->name, "a");
    safetensors_find(file, "a")->used = true;
    safetensors_find(file, "c")->used = true;
    ck_assert_str_eq(safetensors_unused(file)->name, "b");
    safetensors_find(file, "b")->used = true;
    ck_assert_ptr_null(safetensors_unused(file));
    safetensors_free(file);
}
END_TEST

START_TEST(shards_form_one_set)
{
    write_shard("one.safetensors", "a", 1);
    write_shard("two.safetensors", "b", 2);
    write_index("{'a':'one.safetensors','b':'two.safetensors'}");
    struct safetensors *file = open_checked();
    ck_assert(first_value(file, "a") == 1);
    ck_assert(first_value(file, "b") == 2);
    safetensors_free(file);
}
END_TEST

START_TEST(a_tensor_in_two_shards_is_refused)
{
    write_shard("one.safetensors", "a", 1);
    write_shard("two.safetensors", "a", 2);
    write_index("{'a':'one.safetensors','b':'two.safetensors'}");
    expect_open_fails("tensor 'a' is in two.safetensors, listed in one.safetensors");
}
END_TEST

START_TEST(a_shard_with_tensors_the_index_lacks_is_refused)
{
    const struct stored tensors[] = {STORED("a", DIMS(1), 1), STORED("b", DIMS(1), 2)};
    write_safetensors(directory, "one.safetensors", tensors, 2, 0);
    write_index("{'a':'one.safetensors'}");
    expect_open_fails("lists 1 tensor, its shards hold 2");
}
END_TEST

/* However it is named: it would be read as often as it is listed. */
START_TEST(one_file_is_one_shard)
{
    char from[PATH_MAX], to[PATH_MAX];
    write_safetensors(directory, "one.safetensors", NO_TENSORS, 0);
    snprintf(from, sizeof from, "%s/one.safetensors", directory);
    snprintf(to, sizeof to, "%s/two.safetensors", directory);
    ck_assert_int_eq(symlink("one.safetensors", to), 0);
    write_index("{'a':'one.safetensors','b':'two.safetensors'}");
    expect_open_fails("one.safetensors and two.safetensors are one file");
    ck_assert(unlink(to) == 0 && link(from, to) == 0);
    err = (struct error)ERROR_INIT;
    expect_open_fails("one.safetensors and two.safetensors are one file");
}
END_TEST

START_TEST(shards_stay_in_the_directory)
{
    static const char *const maps[] = {"{'a':'../one.safetensors'}", "{'a':'/etc/passwd'}",
                                       "{'a':'..'}", "{'a':''}", "{'a':7}"};
    for (size_t i = 0; i < sizeof maps / sizeof *maps; i++) {
        err = (struct error)ERROR_INIT;
        write_index(maps[i]);
        expect_open_fails("weight_map['a'] must be a file name");
    }
}
END_TEST

START_TEST(a_missing_file_is_named)
{
    expect_open_fails("model.safetensors: cannot open");
}
END_TEST

/* A pipe would block the loader until a writer came. */
START_TEST(pickled_weights_are_to_be_converted)
{
    static const char *const files[] = {"pytorch_model.bin", "pytorch_model.bin.index.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        err = (struct error)ERROR_INIT;
        free(directory);
        directory = new_directory();
        write_file(directory, files[i], "", 0);
        expect_open_fails(
            "pytorch_model.bin, which would be executed, not read, is to be converted, in "
            "Python: transformers.");
    }
}
END_TEST

START_TEST(only_regular_files_are_read)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/model.safetensors", directory);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    expect_open_fails("not a regular file");
    unlink(path);
    ck_assert_int_eq(mkdir(path, 0700), 0);
    err = (struct error)ERROR_INIT;
    expect_open_fails("not a regular file");
}
END_TEST

START_TEST(an_index_without_bound_is_not_parsed)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    ck_assert_int_eq(ftruncate(fd, (off_t)1 << 32), 0);
    close(fd);
    expect_open_fails("larger than");
    unlink(path);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    err = (struct error)ERROR_INIT;
    expect_open_fails("not a regular file");
}
END_TEST

START_TEST(an_endless_path_is_refused)
{
    free(directory);
    directory = xcalloc(2 * PATH_MAX, 1);
    memset(directory, 'x', 2 * PATH_MAX - 1);
    ck_assert_ptr_null(safetensors_open(directory, false, &err));
    ck_assert_int_eq(err.code, ERROR_INVALID);
}
END_TEST

START_TEST(nothing_to_free_is_fine)
{
    safetensors_free(NULL);
}
END_TEST

TEST_MAIN_WITH("safetensors", begin, end, finds_tensors_by_name, every_dtype_reads_as_f32,
               a_scalar_has_one_element, no_tensors_is_a_file_too,
               a_hundred_thousand_tensors_are_read, metadata_is_no_tensor,
               batch_counters_are_ignored, an_index_of_the_single_file_is_fine,
               not_finite_elements_are_found_wherever_they_are,
               unused_tensors_come_in_order_of_names, shards_form_one_set,
               a_tensor_in_two_shards_is_refused, a_shard_with_tensors_the_index_lacks_is_refused,
               one_file_is_one_shard, shards_stay_in_the_directory, a_missing_file_is_named,
               pickled_weights_are_to_be_converted, only_regular_files_are_read,
               an_index_without_bound_is_not_parsed, an_endless_path_is_refused,
               nothing_to_free_is_fine)
