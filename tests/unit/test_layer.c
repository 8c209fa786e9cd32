/* Lists of layers: how they are read. Buffers, segments and threads never change a result. */
#include "core/layers/layer.h"
#include "support.h"

START_TEST(shapes_as_text)
{
    char text[SHAPE_TEXT_BYTES];
    ck_assert_str_eq(shape_text(&(struct moed_shape){.rank = 0}, text), "[]");
    ck_assert_str_eq(shape_text(&(struct moed_shape){1, {7}}, text), "[7]");
    ck_assert_str_eq(shape_text(&(struct moed_shape){3, {1, 28, 28}}, text), "[1, 28, 28]");
    const size_t max = SIZE_MAX;
    shape_text(&(struct moed_shape){6, {max, max, max, max, max, max}}, text);
    ck_assert_uint_lt(strlen(text), SHAPE_TEXT_BYTES);
}
END_TEST

START_TEST(shapes_are_equal_axis_by_axis)
{
    const struct moed_shape shape = {2, {3, 4}};
    ck_assert(shape_equal(&shape, &(struct moed_shape){2, {3, 4, 9}}));
    ck_assert(!shape_equal(&shape, &(struct moed_shape){2, {4, 3}}));
    ck_assert(!shape_equal(&shape, &(struct moed_shape){3, {3, 4, 1}}));
    ck_assert_uint_eq(moed_shape_elements(&shape), 12);
    ck_assert_uint_eq(moed_shape_elements(&(struct moed_shape){.rank = 0}), 1);
}
END_TEST

START_TEST(a_row_is_bounded)
{
    const struct config_node node = {.index = CONFIG_NO_INDEX};
    struct error err = ERROR_INIT;
    struct layer layer = {0};
    ck_assert_int_eq(
        layer_set_out(&layer, &node, &(struct moed_shape){2, {1 << 13, 1 << 13}}, &err), 0);
    ck_assert_uint_eq(layer.out_elements, 1 << 26);
    struct moed_shape overflowing = {3, {(size_t)1 << 32, (size_t)1 << 32, 2}};
    ck_assert_int_eq(layer_set_out(&layer, &node, &overflowing, &err), -1);
    expect_text(err.text, "[4294967296, 4294967296, 2] exceeds 67108864 elements");
}
END_TEST

START_TEST(what_a_layer_must_say)
{
    expect_refused("[2]", "[{'name':'a'}]", NO_TENSORS, "layers[0].op: missing");
    expect_refused("[2]", "[{'op':'lstm'}]", NO_TENSORS, "layers[0].op: unknown op 'lstm'");
    expect_refused("[2]", "[{'op':'relu'},{'op':'relu','inplace':1}]", NO_TENSORS,
                   "layers[1]: unknown key 'inplace'");
    expect_refused("[2]", "[7]", NO_TENSORS, "layers[0]: expected an object");
    expect_refused("[2]", "[{'op':'linear'}]", TENSORS(STORED(".weight", DIMS(1, 2), 1, 1)),
                   "a 'linear' layer needs a name for its tensor '.weight'");
}
END_TEST

START_TEST(names_are_fit_for_labels_and_paths)
{
    static const char *const bad[] = {"a/b", "a b", "\xc3\xa9", "a\\nb", "a{b}"};
    char layers[256], name[66];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(layers, sizeof layers, "[{'op':'relu','name':'%s'}]", bad[i]);
        expect_refused("[2]", layers, NO_TENSORS, "layers[0].name: expected at most 64 letters");
    }
    memset(name, 'n', 65);
    name[65] = '\0';
    snprintf(layers, sizeof layers, "[{'op':'relu','name':'%s'}]", name);
    expect_refused("[2]", layers, NO_TENSORS, "layers[0].name: expected at most 64 letters");
    snprintf(layers, sizeof layers, "[{'op':'relu','name':'%s'}]", name + 1);
    moed_model_free(load_layers("[2]", layers, NO_TENSORS));
    moed_model_free(load_layers("[2]", "[{'op':'relu','name':'Block_1-a.2'}]", NO_TENSORS));
}
END_TEST

START_TEST(tensors_must_be_there_once_and_fit)
{
    const struct stored square = STORED("a.weight", DIMS(2, 2), 1, 2, 3, 4);
    expect_refused("[2]", "[{'op':'linear','name':'b'}]", &square, 1,
                   "tensor 'b.weight' is missing");
    expect_refused("[2]", "[{'op':'linear','name':'a'},{'op':'linear','name':'a'}]", &square, 1,
                   "tensor 'a.weight' is claimed by two layers");
    expect_refused("[3]", "[{'op':'linear','name':'a'}]", &square, 1,
                   "tensor 'a.weight' has shape [2, 2], expected [2, 3]");
    expect_refused("[2]", "[{'op':'linear','name':'a'}]",
                   TENSORS(STORED("a.weight", DIMS(2), 1, 2)),
                   "tensor 'a.weight' has shape [2], expected [2, 2]");
    expect_refused("[2]", "[{'op':'linear','name':'a'}]",
                   TENSORS(STORED("a.weight", DIMS(1, 2), 1, 2), STORED("a.bias", DIMS(2), 1, 2)),
                   "tensor 'a.bias' has shape [2], expected [1]");
}
END_TEST

/* Alternates both kinds of layers, so that results move between the buffers in every possible
 * way. */
START_TEST(layers_follow_each_other)
{
    const struct stored tensors[] = {STORED("up.weight", DIMS(3, 2), 1, 0, 0, 1, 1, 1),
                                     STORED("down.weight", DIMS(1, 3), 1, 10, 100)};
    /* (1,-2): up (1,-2,-1), relu (1,0,0), x2 (2,0,0), down 2, x2 4 */
    /* (3, 4): up (3,4,7), x2 (6,8,14), down 6+80+1400 = 1486, x2 2972 */
    expect_layers("[2]",
                  "[{'op':'linear','name':'up'},{'op':'relu'},{'op':'scale','value':2},"
                  "{'op':'linear','name':'down'},{'op':'scale','value':2}]",
                  tensors, 2, 2, FLOATS(1, -2, 3, 4), FLOATS(4, 2972));
    expect_layers("[2]",
                  "[{'op':'relu'},{'op':'linear','name':'up'},{'op':'linear','name':'down'}]",
                  tensors, 2, 2, FLOATS(1, -2, 3, 4), FLOATS(101, 743));
    expect_layers("[2]", "[{'op':'scale','value':3},{'op':'cube'},{'op':'scale','value':0.5}]",
                  NO_TENSORS, 1, FLOATS(1, -2), FLOATS(13.5f, -108));
}
END_TEST

START_TEST(a_layer_alone_does_not_touch_its_input)
{
    static const char *const ops[] = {"relu", "silu", "cube", "softmax", "flatten", "sigmoid"};
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        char layers[64];
        const float x[4] = {-1, 2, -3, 4};
        float copy[4], y[4];
        memcpy(copy, x, sizeof copy);
        snprintf(layers, sizeof layers, "[{'op':'%s'}]", ops[i]);
        struct moed_model *model = load_layers("[2]", layers, NO_TENSORS);
        run_forward(model, 1, 2, copy, y);
        ck_assert_mem_eq(copy, x, sizeof copy);
        moed_model_free(model);
    }
}
END_TEST

START_TEST(nesting_is_bounded)
{
    char layers[2048] = "";
    for (int i = 0; i < 15; i++)
        strcat(layers, "[{'op':'residual','layers':");
    strcat(layers, "[{'op':'relu'}]");
    for (int i = 0; i < 15; i++)
        strcat(layers, "}]");
    struct moed_model *model = load_layers("[2]", layers, NO_TENSORS);
    float y[2];
    run_forward(model, 1, 1, FLOATS(1, -1), y);
    /* relu(1) plus 15 times x, one at every depth: 1 + 15; -1 gives 0 - 15 */
    expect_close(y, FLOATS(16, -15), 2);
    moed_model_free(model);

    char deeper[4096];
    snprintf(deeper, sizeof deeper, "[{'op':'residual','layers':%s}]", layers);
    expect_refused("[2]", deeper, NO_TENSORS, "layers are nested more than 16 deep");
}
END_TEST

/* Wide enough that threads share segments. With small integers every order of summing gives the
 * same bits. */
#define WIDE 128

static struct moed_model *load_wide(void)
{
    float *weights[3], *gate = new_integers(3 * WIDE, 7);
    for (uint32_t i = 0; i < 3; i++)
        weights[i] = new_integers(WIDE * WIDE, i);
    const struct stored tensors[] = {
        {"a.weight", 2, {WIDE, WIDE}, weights[0], NULL},
        {"m.gate.g.weight", 2, {3, WIDE}, gate, NULL},
        {"m.experts.0.fc.weight", 2, {WIDE, WIDE}, weights[0], NULL},
        {"m.experts.1.fc.weight", 2, {WIDE, WIDE}, weights[1], NULL},
        {"m.experts.2.fc.weight", 2, {WIDE, WIDE}, weights[2], NULL},
        {"z.weight", 2, {WIDE, WIDE}, weights[1], NULL},
    };
    struct moed_model *model =
        load_layers("[128]",
                    "[{'op':'linear','name':'a'},{'op':'relu'},{'op':'scale','value':0.0625},"
                    "{'op':'residual','layers':[{'op':'moe','name':'m',"
                    "'gate':{'layers':[{'op':'linear','name':'g'}],'top_k':1,'normalize':'sum'},"
                    "'experts':{'count':3,'layers':[{'op':'linear','name':'fc'},{'op':'relu'}]}}]},"
                    "{'op':'linear','name':'z'}]",
                    tensors, 6);
    for (int i = 0; i < 3; i++)
        free(weights[i]);
    free(gate);
    return model;
}

START_TEST(threads_do_not_change_results)
{
    enum { ROWS = 37 };
    struct moed_model *model = load_wide();
    float *x = new_integers(ROWS * WIDE, 3), *alone = xcalloc(ROWS * WIDE, sizeof *alone);
    float *y = xcalloc(ROWS * WIDE, sizeof *y);
    run_forward(model, 1, ROWS, x, alone);
    for (unsigned threads = 2; threads <= 4; threads++) {
        memset(y, 0xff, ROWS * WIDE * sizeof *y);
        run_forward(model, threads, ROWS, x, y);
        ck_assert_mem_eq(y, alone, ROWS * WIDE * sizeof *y);
    }
    free(x);
    free(y);
    free(alone);
    moed_model_free(model);
}
END_TEST

START_TEST(batches_do_not_change_rows)
{
    enum { ROWS = 13 };
    struct moed_model *model = load_wide();
    float *x = new_integers(ROWS * WIDE, 5), *all = xcalloc(ROWS * WIDE, sizeof *all), y[3 * WIDE];
    run_forward(model, 1, ROWS, x, all);
    for (size_t row = 0; row + 3 <= ROWS; row++)
        for (size_t rows = 1; rows <= 3; rows++) {
            run_forward(model, 1, rows, x + row * WIDE, y);
            ck_assert_mem_eq(y, all + row * WIDE, rows * WIDE * sizeof *y);
        }
    free(x);
    free(all);
    moed_model_free(model);
}
END_TEST

/* More threads than rows, and fewer rows in the last task than in the others. */
START_TEST(rows_are_shared_out_whatever_their_number)
{
    struct moed_model *model = load_wide();
    float *x = new_integers(9 * WIDE, 6), *alone = xcalloc(9 * WIDE, sizeof *alone);
    float *y = xcalloc(9 * WIDE, sizeof *y);
    run_forward(model, 1, 9, x, alone);
    for (size_t rows = 1; rows <= 9; rows++) {
        run_forward(model, 4, rows, x, y);
        ck_assert_mem_eq(y, alone, rows * WIDE * sizeof *y);
    }
    free(x);
    free(y);
    free(alone);
    moed_model_free(model);
}
END_TEST

START_TEST(weights_at_odd_addresses_are_copied)
{
    const struct stored tensors[] = {STORED("n.weight", DIMS(2), 3, 5),
                                     STORED("n.bias", DIMS(2), 1, 2)};
    for (size_t padding = 0; padding < 8; padding++) {
        struct error err = ERROR_INIT;
        char *directory = new_directory();
        char *config = config_of("[2]", "[{'op':'layer_norm','name':'n','eps':0}]");
        write_checkpoint(directory, config, tensors, 2);
        write_safetensors(directory, "model.safetensors", tensors, 2, padding);
        struct moed_model *model = moed_model_load(directory, NULL, &err);
        ck_assert_msg(model != NULL, "%s", err.text);
        float y[2];
        run_forward(model, 1, 1, FLOATS(1, 3), y);
        expect_close(y, FLOATS(-2, 7), 2);
        moed_model_free(model);
        free(config);
        free(directory);
    }
}
END_TEST

TEST_MAIN("layer", shapes_as_text, shapes_are_equal_axis_by_axis, a_row_is_bounded,
          what_a_layer_must_say, names_are_fit_for_labels_and_paths,
          tensors_must_be_there_once_and_fit, layers_follow_each_other,
          a_layer_alone_does_not_touch_its_input, nesting_is_bounded, threads_do_not_change_results,
          batches_do_not_change_rows, rows_are_shared_out_whatever_their_number,
          weights_at_odd_addresses_are_copied)
