/* max_pool2d and avg_pool2d, like PyTorch's: floor mode, and averages that count the padding. */
#include "support.h"

#define NINE FLOATS(1, 2, 3, 4, 5, 6, 7, 8, 9)

START_TEST(windows_side_by_side)
{
    /* The stride equals the kernel; the third column and line of the input are dropped. */
    expect_layers("[1,3,3]", "[{'op':'max_pool2d','kernel':2}]", NO_TENSORS, 1, NINE, FLOATS(5));
    expect_layers("[1,3,3]", "[{'op':'avg_pool2d','kernel':2}]", NO_TENSORS, 1, NINE, FLOATS(3));
}
END_TEST

START_TEST(overlapping_windows)
{
    expect_layers("[1,3,3]", "[{'op':'max_pool2d','kernel':2,'stride':1}]", NO_TENSORS, 1, NINE,
                  FLOATS(5, 6, 8, 9));
    expect_layers("[1,3,3]", "[{'op':'avg_pool2d','kernel':2,'stride':1}]", NO_TENSORS, 1, NINE,
                  FLOATS(3, 4, 6, 7));
    expect_layers("[1,3,3]", "[{'op':'max_pool2d','kernel':1,'stride':2}]", NO_TENSORS, 1, NINE,
                  FLOATS(1, 3, 7, 9));
}
END_TEST

START_TEST(padding_is_no_maximum_but_counts_in_averages)
{
    const float negative[] = {-1, -2, -3, -4};
    expect_layers("[1,2,2]", "[{'op':'max_pool2d','kernel':2,'padding':1}]", NO_TENSORS, 1,
                  negative, FLOATS(-1, -2, -3, -4));
    expect_layers("[1,2,2]", "[{'op':'avg_pool2d','kernel':2,'padding':1}]", NO_TENSORS, 1,
                  negative, FLOATS(-0.25f, -0.5f, -0.75f, -1));
    /* kernel 3, padding 1, stride 2 over a line of four: windows _12 and 234 */
    expect_layers("[1,1,4]", "[{'op':'max_pool2d','kernel':3,'padding':1,'stride':2}]", NO_TENSORS,
                  1, FLOATS(1, 2, 3, 4), FLOATS(2, 4));
    expect_layers("[1,1,4]", "[{'op':'avg_pool2d','kernel':3,'padding':1,'stride':2}]", NO_TENSORS,
                  1, FLOATS(1, 2, 3, 4), FLOATS(3.0f / 9, 1));
}
END_TEST

START_TEST(a_kernel_as_large_as_the_padded_input)
{
    expect_layers("[1,1,2]", "[{'op':'max_pool2d','kernel':6,'padding':3}]", NO_TENSORS, 1,
                  FLOATS(-5, -7), FLOATS(-5));
    expect_refused("[1,1,2]", "[{'op':'max_pool2d','kernel':6,'padding':2}]", NO_TENSORS,
                   "kernel: larger than the padded input [1, 1, 2]");
}
END_TEST

START_TEST(channels_and_rows_are_separate)
{
    expect_layers("[2,2,2]", "[{'op':'max_pool2d','kernel':2}]", NO_TENSORS, 2,
                  FLOATS(1, 2, 3, 4, 8, 7, 6, 5, -1, -2, -3, -4, 0, 0, 9, 0), FLOATS(4, 8, -1, 9));
}
END_TEST

START_TEST(nan_and_infinity_pass_through)
{
    expect_layers("[1,1,6]", "[{'op':'max_pool2d','kernel':1,'stride':1}]", NO_TENSORS, 1,
                  FLOATS(NAN, 1, INFINITY, -INFINITY, 2, NAN),
                  FLOATS(NAN, 1, INFINITY, -INFINITY, 2, NAN));
    expect_layers("[1,2,4]", "[{'op':'max_pool2d','kernel':2}]", NO_TENSORS, 1,
                  FLOATS(NAN, 1, 3, 4, 5, 6, 7, NAN), FLOATS(NAN, NAN));
}
END_TEST

struct pooling {
    int size, kernel, stride, padding;
    bool max;
};

static float pool_by_hand(const float *x, const struct pooling *of, int i, int j)
{
    float best = -INFINITY, sum = 0;
    int first = i * of->stride - of->padding, column = j * of->stride - of->padding;
    for (int a = first; a < first + of->kernel; a++)
        for (int b = column; b < column + of->kernel; b++)
            if (a >= 0 && a < of->size && b >= 0 && b < of->size) {
                best = fmaxf(best, x[a * of->size + b]);
                sum += x[a * of->size + b];
            }
    return of->max ? best : sum / (float)(of->kernel * of->kernel);
}

static void check_pool(const struct pooling *of)
{
    int out = (of->size + 2 * of->padding - of->kernel) / of->stride + 1;
    float *x = new_integers((size_t)(of->size * of->size), (uint32_t)(of->size + of->kernel));
    float expected[256];
    ck_assert_int_le(out * out, 256);
    for (int i = 0; i < out; i++)
        for (int j = 0; j < out; j++)
            expected[i * out + j] = pool_by_hand(x, of, i, j);
    char shape[32], layers[128];
    snprintf(shape, sizeof shape, "[1,%d,%d]", of->size, of->size);
    snprintf(layers, sizeof layers, "[{'op':'%s_pool2d','kernel':%d,'stride':%d,'padding':%d}]",
             of->max ? "max" : "avg", of->kernel, of->stride, of->padding);
    expect_layers(shape, layers, NO_TENSORS, 1, x, expected);
    free(x);
}

START_TEST(many_shapes_follow_the_definition)
{
    static const int sizes[] = {1, 4, 7, 10};
    for (size_t i = 0; i < 4; i++)
        for (int kernel = 1; kernel <= 5; kernel++)
            for (int stride = 1; stride <= 4; stride++)
                for (int padding = 0; padding <= kernel / 2; padding++)
                    if (sizes[i] + 2 * padding >= kernel)
                        check_pool(&(struct pooling){sizes[i], kernel, stride, padding,
                                                     (kernel + stride) % 2});
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    static const struct {
        const char *shape, *options, *part;
    } cases[] = {
        {"[4,4]", ",'kernel':2", "max_pool2d needs rows of 3 axes, got shape [4, 4]"},
        {"[1,4,4]", "", "kernel: missing"},
        {"[1,4,4]", ",'kernel':0", "kernel: expected an integer from 1"},
        {"[1,4,4]", ",'kernel':4097", "kernel: expected an integer from 1 to 4096"},
        {"[1,4,4]", ",'kernel':3,'padding':2", "padding: expected an integer from 0 to 1"},
        {"[1,4,4]", ",'kernel':2,'stride':0", "stride: expected an integer from 1"},
        {"[1,4,4]", ",'kernel':5", "larger than the padded input"},
        {"[1,4,4]", ",'kernel':2,'ceil_mode':1", "unknown key 'ceil_mode'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char layers[128];
        snprintf(layers, sizeof layers, "[{'op':'max_pool2d'%s}]", cases[i].options);
        expect_refused(cases[i].shape, layers, NO_TENSORS, cases[i].part);
    }
}
END_TEST

TEST_MAIN("pool", windows_side_by_side, overlapping_windows,
          padding_is_no_maximum_but_counts_in_averages, a_kernel_as_large_as_the_padded_input,
          channels_and_rows_are_separate, nan_and_infinity_pass_through,
          many_shapes_follow_the_definition, what_does_not_fit_is_refused)
