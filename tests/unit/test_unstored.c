/* What a model takes that no byte of its files stands for is bounded for the whole model: a few
 * kilobytes of config must not become gigabytes. Only headers are read, so that what is refused is
 * refused by its size and not because memory ran out. */
#include <stdarg.h>
#include <unistd.h>

#include "core/dense/kernel.h"
#include "support.h"

/* A checkpoint whose tensors are holes in a file. */
struct builder {
    char *config, *header;
    size_t config_bytes, header_bytes, offset;
    FILE *config_text, *header_text;
};

static void begin(struct builder *builder, const char *input)
{
    *builder = (struct builder){0};
    builder->config_text = open_memstream(&builder->config, &builder->config_bytes);
    builder->header_text = open_memstream(&builder->header, &builder->header_bytes);
    fprintf(builder->config_text,
            "{'model_type':'moed','format_version':3,'input':{'shape':%s},'layers':[{'op':'relu'}",
            input);
}

static void __attribute__((format(printf, 2, 3)))
add(struct builder *builder, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vfprintf(builder->config_text, format, arguments);
    va_end(arguments);
}

static void __attribute__((format(printf, 4, 5)))
add_tensor(struct builder *builder, const char *shape, size_t elements, const char *format, ...)
{
    va_list arguments;
    fputs(builder->offset ? ",\"" : "{\"", builder->header_text);
    va_start(arguments, format);
    vfprintf(builder->header_text, format, arguments);
    va_end(arguments);
    fprintf(builder->header_text, "\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
            shape, builder->offset, builder->offset + 4 * elements);
    builder->offset += 4 * elements;
}

static void write_holes(const struct builder *builder, const char *directory)
{
    FILE *file = create_file(directory, "model.safetensors");
    for (size_t i = 0; i < 8; i++)
        fputc((int)(builder->header_bytes >> 8 * i & 0xff), file);
    fwrite(builder->header, 1, builder->header_bytes, file);
    ck_assert_int_eq(fflush(file), 0);
    const off_t end = (off_t)(8 + builder->header_bytes + builder->offset);
    ck_assert_int_eq(ftruncate(fileno(file), end), 0);
    ck_assert_int_eq(fclose(file), 0);
}

static struct moed_model *end(struct builder *builder, struct error *err)
{
    const struct moed_load_options options = {.headers_only = true};
    char *directory = new_directory();
    fputs("]}", builder->config_text);
    fputs(builder->offset ? "}" : "{}", builder->header_text);
    fclose(builder->config_text);
    fclose(builder->header_text);
    write_json(directory, "config.json", builder->config);
    write_holes(builder, directory);
    struct moed_model *model = moed_model_load(directory, &options, err);
    free(directory);
    free(builder->config);
    free(builder->header);
    return model;
}

static void expect_loads(struct builder *builder)
{
    struct error err = ERROR_INIT;
    struct moed_model *model = end(builder, &err);
    ck_assert_msg(model != NULL, "%s", err.text);
    moed_model_free(model);
}

static void expect_too_much(struct builder *builder, const char *where)
{
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(end(builder, &err));
    expect_text(err.text, where);
    expect_text(err.text, "a model may take 512 MiB that its files do not hold");
}

/* Each layer's table has 64 MiB; the tensors have 64 bytes. */
static void add_rotary(struct builder *builder, size_t layers)
{
    for (size_t i = 0; i < layers; i++) {
        add(builder, ",{'op':'attention','name':'a%zu','heads':1,'rotary':{}}", i);
        add_tensor(builder, "[6,2]", 12, "a%zu.in_proj_weight", i);
        add_tensor(builder, "[2,2]", 4, "a%zu.out_proj.weight", i);
    }
}

START_TEST(tables_of_angles)
{
    struct builder builder;
    begin(&builder, "[8388608,2]");
    add_rotary(&builder, 7);
    expect_loads(&builder);
    begin(&builder, "[8388608,2]");
    add_rotary(&builder, 8);
    expect_too_much(&builder, "config.json: layers[8].rotary: cosines and sines: ");
}
END_TEST

static void add_identities(struct builder *builder, size_t layers)
{
    for (size_t i = 0; i < layers; i++)
        add(builder,
            ",{'op':'moe','name':'m%zu','gate':{'layers':[{'op':'relu'}],'top_k':1},"
            "'experts':{'count':4096,'identity':4095,'layers':[{'op':'relu'}]}}",
            i);
}

START_TEST(experts_that_give_what_they_are_given)
{
    struct builder builder;
    begin(&builder, "[4096]");
    add_identities(&builder, 64); /* more experts than any published model has */
    expect_loads(&builder);
    begin(&builder, "[4096]");
    add_identities(&builder, 128);
    expect_too_much(&builder, "config.json: layers[9");
}
END_TEST

/* Whose experts are shared, so that there are few. */
START_TEST(gates_of_many_experts)
{
    struct builder builder;
    begin(&builder, "[4096]");
    add(&builder, ",{'op':'moe','name':'m','experts':{'count':4096,'layers':[{'op':'relu'}]},"
                  "'gates':[{'name':'g','layers':[{'op':'relu'}],'top_k':1}");
    for (int i = 0; i < 200; i++)
        add(&builder, ",{'name':'g%d','layers':[{'op':'relu'}],'top_k':1}", i);
    add(&builder, "]}");
    expect_too_much(&builder, ": counters of experts: 4096 of ");
}
END_TEST

/* A matrix of one output is packed as one of a panel. */
static void add_narrow(struct builder *builder, size_t layers)
{
    for (size_t i = 0; i < layers; i++) {
        add(builder, ",{'op':'linear','name':'narrow%zu'},{'op':'linear','name':'wide%zu'}", i, i);
        add_tensor(builder, "[1,1048576]", 1 << 20, "narrow%zu.weight", i);
        add_tensor(builder, "[1048576,1]", 1 << 20, "wide%zu.weight", i);
    }
}

START_TEST(padding_of_narrow_matrices)
{
    struct builder builder;
    begin(&builder, "[1048576]");
    add_narrow(&builder, 2);
    expect_loads(&builder);
    begin(&builder, "[1048576]");
    add_narrow(&builder, 64);
    expect_too_much(&builder, "'narrow");
}
END_TEST

START_TEST(groups_of_a_convolution)
{
    struct builder builder;
    if (!kernel_get()->windows)
        return; /* groups are packed as one */
    begin(&builder, "[4194304,1]");
    add(&builder, ",{'op':'conv1d','name':'c','groups':4194304}");
    add_tensor(&builder, "[16777216,1,1]", 1 << 24, "c.weight");
    expect_too_much(&builder, "config.json: layers[1]: groups: 4194304 of ");
}
END_TEST

TEST_MAIN("unstored", tables_of_angles, experts_that_give_what_they_are_given,
          gates_of_many_experts, padding_of_narrow_matrices, groups_of_a_convolution)
