/* A model as front ends see it: what loads, what is refused, its description, and the size of its
 * scratch. */
#include "support.h"

#define HEADER "'model_type':'moed','format_version':1,"

/* Gate [4 -> 3], three experts [4 -> 2] of which one serves a row, then a linear layer [2 -> 5]. */
#define SMALL_LAYERS                                                                               \
    "'layers':[{'op':'moe','name':'m',"                                                            \
    "'gate':{'layers':[{'op':'linear','name':'g'}],'top_k':1},"                                    \
    "'experts':{'count':3,'layers':[{'op':'linear','name':'fc'},{'op':'relu'}]}},"                 \
    "{'op':'linear','name':'out'}]"

static const float numbers[24] = {1};

static const struct stored small_tensors[] = {
    {"m.gate.g.weight", 2, {3, 4}, numbers, NULL},
    {"m.gate.g.bias", 1, {3}, numbers, NULL},
    {"m.experts.0.fc.weight", 2, {2, 4}, numbers, NULL},
    {"m.experts.1.fc.weight", 2, {2, 4}, numbers, NULL},
    {"m.experts.2.fc.weight", 2, {2, 4}, numbers, NULL},
    {"out.weight", 2, {5, 2}, numbers, NULL},
    {"out.bias", 1, {5}, numbers, NULL},
};

#define SMALL small_tensors, sizeof small_tensors / sizeof *small_tensors

static struct moed_model *load_small(const char *before, const char *after)
{
    char config[2048];
    snprintf(config, sizeof config, "{" HEADER "%s" SMALL_LAYERS "%s}", before, after);
    return load_model(config, SMALL);
}

static void expect_small_refused(const char *before, const char *after, const char *part)
{
    char config[2048];
    snprintf(config, sizeof config, "{" HEADER "%s" SMALL_LAYERS "%s}", before, after);
    expect_config_refused(config, SMALL, part);
}

#define INPUT "'input':{'name':'x','shape':[4]},"

START_TEST(everything_there_is_to_know)
{
    struct moed_model *model = load_small("'description':'a small one'," INPUT,
                                          ",'output':{'name':'y','labels':['a','b','c','d','e']}");
    const struct moed_model_info *info = moed_model_info(model);
    ck_assert_str_eq(info->description, "a small one");
    ck_assert_uint_eq(info->input_count, 1);
    ck_assert_str_eq(info->inputs[0].name, "x");
    ck_assert_uint_eq(info->inputs[0].elements, 4);
    ck_assert_uint_eq(info->output_count, 1);
    ck_assert_str_eq(info->outputs[0].name, "y");
    ck_assert_uint_eq(info->outputs[0].shape.rank, 1);
    ck_assert_uint_eq(info->outputs[0].shape.dims[0], 5);
    ck_assert_uint_eq(info->outputs[0].label_count, 5);
    ck_assert_str_eq(info->outputs[0].labels[4], "e");
    ck_assert_uint_eq(info->gate_count, 1);
    ck_assert_str_eq(info->gates[0].name, "m");
    ck_assert_uint_eq(info->gates[0].experts, 3);
    ck_assert_uint_eq(info->gates[0].top_k, 1);
    ck_assert_uint_eq(info->gates[0].items_per_row, 1);
    moed_model_free(model);
}
END_TEST

START_TEST(parameters_and_work_are_counted)
{
    struct moed_model *model = load_small(INPUT, "");
    const struct moed_model_info *info = moed_model_info(model);
    /* gate 12 + 3, experts 3 x 8, out 10 + 5; one expert is active */
    ck_assert_uint_eq(info->parameters, 15 + 24 + 15);
    ck_assert_uint_eq(info->active_parameters, 15 + 8 + 15);
    /* gate 12, one expert 8, combining 2, out 10 */
    ck_assert_uint_eq(info->macs_per_row, 12 + 8 + 2 + 10);
    ck_assert_uint_ge(info->weight_bytes, 54 * sizeof(float));
    ck_assert_uint_gt(info->scratch_bytes_per_row, 0);
    moed_model_free(model);
}
END_TEST

START_TEST(names_and_labels_have_defaults)
{
    struct moed_model *model = load_small("'input':{'shape':[4]},", "");
    const struct moed_model_info *info = moed_model_info(model);
    ck_assert_str_eq(info->description, "");
    ck_assert_str_eq(info->inputs[0].name, "input");
    ck_assert_str_eq(info->outputs[0].name, "output");
    ck_assert_uint_eq(info->outputs[0].label_count, 0);
    moed_model_free(model);
}
END_TEST

static struct moed_layer_info seen[8];
static size_t seen_count;

static void record(const struct moed_layer_info *layer, void *context)
{
    ck_assert_ptr_eq(context, seen);
    ck_assert_uint_lt(seen_count, 8);
    seen[seen_count++] = *layer;
}

static void expect_layer(size_t index, int depth, const char *role, const char *op,
                         const char *name, uint64_t parameters)
{
    ck_assert_int_eq(seen[index].depth, depth);
    ck_assert_str_eq(seen[index].role, role);
    ck_assert_str_eq(seen[index].op, op);
    ck_assert_str_eq(seen[index].name, name);
    ck_assert_uint_eq(seen[index].parameters, parameters);
}

START_TEST(layers_are_visited_in_order)
{
    struct moed_model *model = load_small(INPUT, "");
    moed_model_visit(model, record, seen);
    ck_assert_uint_eq(seen_count, 5);
    expect_layer(0, 0, "", "moe", "m", 15 + 24);
    expect_layer(1, 1, "gate", "linear", "g", 15);
    expect_layer(2, 1, "experts", "linear", "fc", 8);
    expect_layer(3, 1, "", "relu", "", 0);
    expect_layer(4, 0, "", "linear", "out", 15);
    ck_assert_ptr_eq(seen[0].gates, &moed_model_info(model)->gates[0]);
    ck_assert_ptr_null(seen[4].gates);
    ck_assert_uint_eq(seen[1].out.dims[0], 3);
    ck_assert_uint_eq(seen[4].in.dims[0], 2);
    moed_model_free(model);
}
END_TEST

START_TEST(preprocessing_works_per_channel)
{
    struct moed_model *model = load_model(
        "{" HEADER "'input':{'shape':[2,1,2],'preprocess':{'scale':0.5,'mean':[1,-1],'std':[2,4]}},"
        "'layers':[{'op':'flatten'}]}",
        NO_TENSORS);
    float y[8];
    run_forward(model, 1, 2, FLOATS(2, 6, 2, 6, 0, 4, 0, 4), y);
    expect_close(y, FLOATS(0, 1, 0.5f, 1, -0.5f, 0.5f, 0.25f, 0.75f), 8);
    moed_model_free(model);
}
END_TEST

START_TEST(one_number_preprocesses_every_channel)
{
    struct moed_model *model =
        load_model("{" HEADER "'input':{'shape':[3],'preprocess':{'mean':[1],'std':[-2]}},"
                   "'layers':[{'op':'flatten'}]}",
                   NO_TENSORS);
    float y[3];
    run_forward(model, 1, 1, FLOATS(1, 2, 5), y);
    expect_close(y, FLOATS(0, -0.5f, -2), 3);
    moed_model_free(model);
}
END_TEST

START_TEST(preprocessing_must_fit_the_input)
{
    static const struct {
        const char *preprocess, *part;
    } cases[] = {
        {"{'mean':[1,2,3]}", "input.preprocess.mean: expected 1 or 4 numbers, one per channel"},
        {"{'std':[1,2]}", "input.preprocess.std: expected 1 or 4 numbers, one per channel"},
        {"{'std':[1,1,0,1]}", "input.preprocess.std: entry 2 is zero"},
        {"{'std':[1e-60]}", "input.preprocess.std: entry 0 is zero"},
        {"{'mean':[1,2,3,'4']}", "input.preprocess.mean: entry 3 is not a number"},
        {"{'mean':[0],'std':[1,null]}", "input.preprocess.std: entry 1 is not a number"},
        {"{'scale':1e39}", "input.preprocess.scale: expected a number that f32 can hold"},
        {"{'offset':1}", "input.preprocess: unknown key 'offset'"},
        {"7", "input.preprocess: expected an object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char input[256];
        snprintf(input, sizeof input, "'input':{'shape':[4],'preprocess':%s},",
                 cases[i].preprocess);
        expect_small_refused(input, "", cases[i].part);
    }
}
END_TEST

START_TEST(what_is_not_understood_is_refused)
{
    expect_config_refused("{'model_type':'bert','format_version':1}", NO_TENSORS,
                          "model_type \"bert\" is not known");
    expect_config_refused("{'model_type':'moed','format_version':4}", NO_TENSORS,
                          "format_version: expected an integer from 1 to 3");
    expect_config_refused("{'model_type':'moed'}", NO_TENSORS, "format_version: missing");
    expect_config_refused("{" HEADER "'layers':[{'op':'relu'}]}", NO_TENSORS, "input: missing");
    expect_config_refused("{" HEADER "'input':{'shape':[1]}}", NO_TENSORS, "layers: missing");
    expect_config_refused("{" HEADER "'input':{'shape':[1]},'layers':[]}", NO_TENSORS, "layers: ");
    expect_small_refused(INPUT "'licence':'none',", "", "unknown key 'licence'");
    expect_small_refused(INPUT, ",'output':{'nam':'y'}", "output: unknown key 'nam'");
    expect_small_refused(INPUT, ",'output':{'labels':['a']}",
                         "output.labels: 1 label for 5 classes");
    expect_small_refused("'input':{'shape':[5]},", "", "expected [2, 5]");
}
END_TEST

START_TEST(errors_name_the_directory)
{
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(moed_model_load("/nowhere", NULL, &err));
    ck_assert_int_eq(strncmp(err.text, "/nowhere", 8), 0);
    ck_assert_ptr_null(moed_model_load("/nowhere", NULL, NULL));
    moed_model_free(NULL);
    moed_scratch_free(NULL);
}
END_TEST

START_TEST(an_input_too_large_to_multiply_is_refused)
{
    expect_refused("[1000000,1000000,1000000,1000000]", "[{'op':'relu'}]", NO_TENSORS,
                   "exceeds 67108864 elements");
    expect_refused("[67108865]", "[{'op':'relu'}]", NO_TENSORS, "exceeds 67108864 elements");
}
END_TEST

START_TEST(stored_tensors_must_all_be_used)
{
    expect_refused("[2]", "[{'op':'relu'}]", TENSORS(STORED("extra", DIMS(1), 1)),
                   "tensor 'extra' is used by no layer");
}
END_TEST

START_TEST(routing_references_are_checked)
{
    struct moed_model *model =
        load_small(INPUT, ",'routing_reference':{'m':{'share':[0.5,0.25,0.25],'rows':100,"
                          "'weight':[0,1,3]}}");
    const struct moed_routing_reference *reference = moed_model_info(model)->gates[0].reference;
    ck_assert_uint_eq(reference->rows, 100);
    ck_assert_double_eq(reference->share[0], 0.5);
    ck_assert_double_eq(reference->weight[2], 3);
    ck_assert_ptr_null(reference->probability);
    moed_model_free(model);
    static const struct {
        const char *reference, *part;
    } cases[] = {
        {"{'m':{'share':[1],'rows':1}}", "routing_reference.m.share: 1 share for 3 experts"},
        {"{'m':{'share':[1,0,0]}}", "routing_reference.m.rows: missing"},
        {"{'m':{'share':[1,0,0],'rows':0}}", "routing_reference.m.rows: expected an integer"},
        {"{'m':{'share':[1,0,0],'rows':1,'day':2}}", "routing_reference.m: unknown key 'day'"},
        {"{'m':{'share':[1,-1,0],'rows':1}}", "routing_reference.m.share: entry 1 is negative"},
        {"{'m':{'share':[0,0,0],'rows':1}}", "routing_reference.m.share: all are 0"},
        {"{'m':{'share':[1,0,0],'rows':1,'weight':[1]}}",
         "routing_reference.m.weight: 1 share for 3 experts"},
        {"{'m':{'share':[1,0,0],'rows':1,'probability':1}}",
         "routing_reference.m.probability: expected"},
        {"{'n':{'share':[1,0,0],'rows':1}}", "routing_reference: no MoE layer is called 'n'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char after[256];
        snprintf(after, sizeof after, ",'routing_reference':%s", cases[i].reference);
        expect_small_refused(INPUT, after, cases[i].part);
    }
}
END_TEST

/* Language models have a MoE layer in each of dozens of blocks. */
START_TEST(many_moe_layers_have_their_references)
{
    enum { LAYERS = 60 };
    struct stored tensors[LAYERS];
    char names[LAYERS][32], *config;
    size_t length;
    FILE *text = open_memstream(&config, &length);
    fputs("{" HEADER "'input':{'shape':[2]},'layers':[", text);
    for (int i = 0; i < LAYERS; i++) {
        snprintf(names[i], sizeof names[i], "b%d.gate.g.weight", i);
        tensors[i] = (struct stored){names[i], 2, {2, 2}, numbers, NULL};
        fprintf(text,
                "%s{'op':'moe','name':'b%d','gate':{'layers':[{'op':'linear','name':'g'}]},"
                "'experts':{'count':2,'layers':[{'op':'tanh'}]}}",
                i ? "," : "", i);
    }
    fputs("],'routing_reference':{", text);
    for (int i = LAYERS - 1; i >= 0; i--)
        fprintf(text, "'b%d':{'share':[0.5,0.5],'rows':9}%s", i, i ? "," : "}}");
    fclose(text);
    struct moed_model *model = load_model(config, tensors, LAYERS);
    ck_assert_uint_eq(moed_model_info(model)->gate_count, LAYERS);
    ck_assert_str_eq(moed_model_info(model)->gates[59].name, "b59");
    moed_model_free(model);
    free(config);
}
END_TEST

/* A few kilobytes of JSON must not become gigabytes of layers. */
START_TEST(layers_are_bounded_with_those_of_every_expert)
{
    char layers[8192] = "[{'op':'moe','name':'m','gate':{'layers':[{'op':'flatten'}]},"
                        "'experts':{'count':4096,'layers':[{'op':'relu'}";
    for (int i = 1; i < 100; i++)
        strcat(layers, ",{'op':'relu'}");
    strcat(layers, "]}}]");
    expect_refused("[4096]", layers, NO_TENSORS, "the model has more than 262144 layers");
}
END_TEST

static const struct stored words[] = {STORED("e.weight", DIMS(3, 2), 1, 2, 3, 4, 5, 6)};

#define WORDS(categories, layers)                                                                  \
    "{'model_type':'moed','format_version':2,'inputs':[{'name':'x','shape':[2],'categories'"       \
    ":" categories layers "}],'layers':[{'op':'flatten'}]}"
#define EMBEDDING ",'layers':[{'op':'embedding','name':'e'}]"

/* More than f32 holds exactly; more than the rows of a table; more than int32_t holds. */
START_TEST(integers_are_bounded_by_what_reads_them)
{
    expect_config_refused(WORDS("16777217", ""), NO_TENSORS,
                          "inputs[0].categories: expected at most 16777216 without an embedding");
    expect_config_refused(WORDS("2147483647", EMBEDDING), words, 1,
                          "3 vectors for an input of 2147483647 categories");
    expect_config_refused(WORDS("2147483648", EMBEDDING), words, 1, "inputs[0].categories: expect");
    moed_model_free(load_model(WORDS("16777216", ""), NO_TENSORS));
}
END_TEST

START_TEST(integers_reach_the_embedding_and_never_leave_its_table)
{
    struct moed_model *model = load_model(WORDS("3", EMBEDDING), words, 1);
    struct moed_scratch *scratch = new_scratch(model, 3, 1, NULL);
    static const int32_t x[] = {2, 0, 1, 1, INT32_MIN, INT32_MAX};
    float y[12], *outputs[] = {y};
    const void *const inputs[] = {x};
    const struct moed_span span = {.rows = 3};
    moed_forward(model, scratch, NULL, &(struct moed_batch){&span, 1, inputs, outputs, NULL});
    expect_close(y, FLOATS(5, 6, 1, 2, 3, 4, 3, 4, 1, 2, 5, 6), 12);
    moed_scratch_free(scratch);
    moed_model_free(model);
}
END_TEST

START_TEST(scratch_is_bounded)
{
    struct error err = ERROR_INIT;
    struct moed_model *model = load_layers("[16777216]", "[{'op':'relu'}]", NO_TENSORS);
    ck_assert_uint_eq(moed_model_info(model)->scratch_bytes_per_row, (size_t)4 << 26);
    ck_assert_ptr_null(new_scratch(model, 17, 1, &err));
    ck_assert_int_eq(err.code, ERROR_INVALID);
    expect_text(err.text, "17 rows of 268435456 bytes");
    ck_assert_ptr_null(new_scratch(model, SIZE_MAX / 2, 1, NULL));
    moed_model_free(model);
}
END_TEST

/* Each thread writes out the windows of a strided convolution: that memory counts too. */
START_TEST(scratch_counts_the_workspace_of_every_thread)
{
    struct error err = ERROR_INIT;
    struct moed_model *model =
        load_layers("[1,3000,3000]", "[{'op':'conv2d','name':'c','stride':2}]",
                    TENSORS(STORED("c.weight", DIMS(1, 1, 2, 2), 1, 1, 1, 1)));
    struct moed_scratch *scratch = new_scratch(model, 1, 2, &err);
    ck_assert_msg(scratch != NULL, "%s", err.text);
    moed_scratch_free(scratch);
    ck_assert_ptr_null(new_scratch(model, 1, 1024, &err));
    ck_assert_int_eq(err.code, ERROR_INVALID);
    moed_model_free(model);
}
END_TEST

START_TEST(a_scratch_serves_every_smaller_batch)
{
    struct moed_model *model = load_small(INPUT, "");
    struct moed_scratch *scratch = new_scratch(model, 5, 1, NULL);
    const float x[20] = {1, 2, 3, 4, [17] = 9};
    float y[25], first[5];
    for (size_t rows = 5; rows >= 1; rows--) {
        forward_rows(model, scratch, NULL, rows, x, y);
        if (rows == 5)
            memcpy(first, y, sizeof first);
        ck_assert_mem_eq(y, first, sizeof first);
        ck_assert_uint_eq(moed_routing(scratch, 0)->items, rows);
    }
    moed_scratch_free(scratch);
    moed_model_free(model);
}
END_TEST

TEST_MAIN("model", integers_are_bounded_by_what_reads_them,
          integers_reach_the_embedding_and_never_leave_its_table, everything_there_is_to_know,
          parameters_and_work_are_counted, names_and_labels_have_defaults,
          layers_are_visited_in_order, preprocessing_works_per_channel,
          one_number_preprocesses_every_channel, preprocessing_must_fit_the_input,
          what_is_not_understood_is_refused, errors_name_the_directory,
          an_input_too_large_to_multiply_is_refused, stored_tensors_must_all_be_used,
          routing_references_are_checked, many_moe_layers_have_their_references,
          layers_are_bounded_with_those_of_every_expert, scratch_is_bounded,
          scratch_counts_the_workspace_of_every_thread, a_scratch_serves_every_smaller_batch)
