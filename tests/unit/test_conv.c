/* conv1d and conv2d: compared with results computed by hand, and with the definition for many
 * shapes. */
#include "support.h"

START_TEST(cross_correlation_without_flipping)
{
    /* 1 2 3      the kernel  1 0   gives 1-5  2-6
     * 4 5 6                  0 -1        4-8  5-9
     * 7 8 9 */
    expect_layers("[1,3,3]", "[{'op':'conv2d','name':'c'}]",
                  TENSORS(STORED("c.weight", DIMS(1, 1, 2, 2), 1, 0, 0, -1)), 1,
                  FLOATS(1, 2, 3, 4, 5, 6, 7, 8, 9), FLOATS(-4, -4, -4, -4));
    expect_layers("[1,3,3]", "[{'op':'conv2d','name':'c'}]",
                  TENSORS(STORED("c.weight", DIMS(1, 1, 2, 2), 1, 2, 3, 4)), 1,
                  FLOATS(1, 0, 0, 0, 0, 0, 0, 0, 2), FLOATS(1, 0, 0, 8));
}
END_TEST

START_TEST(bias_stride_and_padding)
{
    /* Padded: 0 0 0 0 / 0 1 2 0 / 0 3 4 0 / 0 0 0 0; stride 2 sees the corners only. */
    const struct stored tensors[] = {STORED("c.weight", DIMS(2, 1, 2, 2), 1, 1, 1, 1, 0, 0, 0, 1),
                                     STORED("c.bias", DIMS(2), 10, -1)};
    expect_layers("[1,2,2]", "[{'op':'conv2d','name':'c','stride':2,'padding':1}]", tensors, 2, 1,
                  FLOATS(1, 2, 3, 4), FLOATS(11, 12, 13, 14, 0, -1, -1, -1));
}
END_TEST

START_TEST(channels_are_summed_and_groups_are_not)
{
    /* One window covers each row: two channels of one pixel. */
    const float x[] = {2, 3};
    expect_layers("[2,1,1]", "[{'op':'conv2d','name':'c'}]",
                  TENSORS(STORED("c.weight", DIMS(2, 2, 1, 1), 1, 10, 100, 1000)), 1, x,
                  FLOATS(32, 3200));
    expect_layers("[2,1,1]", "[{'op':'conv2d','name':'c','groups':2}]",
                  TENSORS(STORED("c.weight", DIMS(4, 1, 1, 1), 1, 10, 100, 1000),
                          STORED("c.bias", DIMS(4), 0.5f, 0.25f, 0, 1)),
                  1, x, FLOATS(2.5f, 20.25f, 300, 3001));
}
END_TEST

START_TEST(one_axis)
{
    const struct stored tensor = STORED("c.weight", DIMS(1, 2, 2), 1, 2, 10, 20);
    expect_layers("[2,3]", "[{'op':'conv1d','name':'c'}]", &tensor, 1, 1, FLOATS(1, 2, 3, 0, 1, 0),
                  FLOATS(5 + 20, 8 + 10));
    /* padded: 0 1 2 3 0 and 0 0 1 0 0, stride 3: windows 0 and 3 */
    expect_layers("[2,3]", "[{'op':'conv1d','name':'c','padding':1,'stride':3}]", &tensor, 1, 1,
                  FLOATS(1, 2, 3, 0, 1, 0), FLOATS(2, 3));
}
END_TEST

/* Windows are not written out where an image has many: they would exceed the bound on workspace. */
START_TEST(large_weights_over_large_images)
{
    enum { CHANNELS = 128 };
    float *weights = xcalloc(CHANNELS * CHANNELS * 9, sizeof *weights);
    const struct stored tensor = {"c.weight", 4, {CHANNELS, CHANNELS, 3, 3}, weights, NULL};
    moed_model_free(
        load_layers("[128,250,250]", "[{'op':'conv2d','name':'c','padding':1}]", &tensor, 1));
    free(weights);
}
END_TEST

struct shape {
    int channels, height, width, out, kernel_h, kernel_w, stride, padding, groups;
};

static int output(int in, int kernel, const struct shape *s)
{
    return (in + 2 * s->padding - kernel) / s->stride + 1;
}

/* Computes one output by PyTorch's formula. */
static float window(const struct shape *s, const float *w, const float *x, int channel, int oh,
                    int ow)
{
    const int in = s->channels / s->groups, first = channel / (s->out / s->groups) * in;
    float sum = 0;
    for (int c = 0; c < in; c++)
        for (int i = 0; i < s->kernel_h; i++)
            for (int j = 0; j < s->kernel_w; j++) {
                const int h = oh * s->stride + i - s->padding, v = ow * s->stride + j - s->padding;
                if (h < 0 || h >= s->height || v < 0 || v >= s->width)
                    continue;
                /* volatile: no compiler fuses the product with the sum */
                const volatile float product =
                    w[((channel * in + c) * s->kernel_h + i) * s->kernel_w + j] *
                    x[((first + c) * s->height + h) * s->width + v];
                sum += product;
            }
    return sum;
}

static float *convolve_by_hand(const struct shape *s, const float *w, const float *x, int rows)
{
    const int oh = output(s->height, s->kernel_h, s), ow = output(s->width, s->kernel_w, s);
    float *y = xmalloc((size_t)(rows * s->out * oh * ow) * sizeof *y), *to = y;
    for (int row = 0; row < rows; row++, x += s->channels * s->height * s->width)
        for (int channel = 0; channel < s->out; channel++)
            for (int i = 0; i < oh; i++)
                for (int j = 0; j < ow; j++)
                    *to++ = window(s, w, x, channel, i, j);
    return y;
}

/* A layer of that shape, as tests load it. */
struct conv_case {
    char in[64], layers[128];
    struct stored tensor;
};

static struct conv_case case_of(const struct shape *s, const float *w)
{
    struct conv_case made = {.tensor = {"c.weight",
                                        4,
                                        {(size_t)s->out, (size_t)(s->channels / s->groups),
                                         (size_t)s->kernel_h, (size_t)s->kernel_w},
                                        w,
                                        NULL}};
    snprintf(made.in, sizeof made.in, "[%d,%d,%d]", s->channels, s->height, s->width);
    snprintf(made.layers, sizeof made.layers,
             "[{'op':'conv2d','name':'c','stride':%d,'padding':%d,'groups':%d}]", s->stride,
             s->padding, s->groups);
    return made;
}

static size_t weights_of(const struct shape *s)
{
    return (size_t)(s->out * s->channels / s->groups * s->kernel_h * s->kernel_w);
}

static void check_shape(const struct shape *s)
{
    float *w = new_integers(weights_of(s), (uint32_t)s->out);
    float *x = new_integers((size_t)(3 * s->channels * s->height * s->width), (uint32_t)s->width);
    float *expected = convolve_by_hand(s, w, x, 3);
    const struct conv_case conv = case_of(s, w);
    expect_layers(conv.in, conv.layers, &conv.tensor, 1, 3, x, expected);
    free(w);
    free(x);
    free(expected);
}

static const struct shape SHAPES[] = {
    {3, 7, 5, 4, 3, 3, 1, 1, 1},
    {3, 7, 5, 4, 3, 3, 2, 1, 1},
    {4, 6, 6, 8, 2, 3, 1, 0, 2},
    {4, 6, 6, 4, 3, 3, 1, 2, 4},
    {1, 28, 28, 7, 5, 5, 1, 0, 1},
    {2, 4, 9, 13, 1, 1, 3, 0, 1},
    {2, 3, 3, 2, 5, 5, 1, 1, 1},
    {1, 1, 1, 1, 3, 3, 1, 1, 1},
    {2, 9, 9, 3, 4, 2, 3, 2, 1},
    {1, 5, 100, 2, 3, 3, 1, 1, 1},
    {6, 5, 5, 9, 5, 5, 1, 0, 3},
    {1, 2, 2, 1, 1, 1, 1, 5, 1},
    /* groups of one channel, tiny or with a stride */
    {5, 2, 2, 5, 3, 3, 1, 1, 5},
    {3, 2, 2, 6, 3, 3, 1, 1, 3},
    {4, 4, 4, 4, 3, 3, 2, 1, 4},
    {3, 8, 7, 3, 5, 5, 1, 2, 3},
    {5, 9, 11, 5, 3, 2, 2, 1, 5},
    {4, 8, 8, 12, 5, 5, 3, 2, 4},
    {2, 40, 37, 2, 3, 3, 2, 1, 2},
    /* enough of them for vectors of channels: parts of a vector, shared inputs, strides wider than
     * the kernel, more padding than image */
    {16, 1, 1, 16, 3, 3, 1, 1, 16},
    {17, 2, 2, 17, 3, 3, 2, 1, 17},
    {34, 7, 7, 34, 3, 3, 1, 1, 34},
    {33, 6, 5, 66, 3, 3, 1, 1, 33},
    {12, 9, 10, 36, 3, 2, 3, 0, 12},
    {18, 3, 6, 18, 1, 2, 4, 0, 18},
    {16, 2, 2, 16, 1, 1, 1, 5, 16},
    {5, 4, 12, 15, 2, 5, 1, 3, 5},
    /* several bands of lines, of which some are padding only */
    {20, 50, 41, 20, 3, 3, 1, 1, 20},
    {16, 70, 66, 16, 5, 5, 2, 2, 16},
    {16, 3, 100, 16, 1, 1, 1, 40, 16},
    /* lines of whole vectors, one, two and three of them */
    {2, 8, 8, 13, 3, 3, 1, 1, 1},
    {3, 6, 16, 25, 3, 3, 1, 1, 1},
    {2, 4, 32, 7, 3, 3, 1, 1, 1},
    {4, 4, 48, 6, 3, 3, 1, 1, 2},
    {2, 3, 16, 4, 1, 1, 1, 0, 1},
    /* enough channels for vectors of channels; windows and channels that are not multiples of
     * four */
    {3, 9, 17, 64, 3, 3, 2, 1, 1},
    {2, 7, 7, 34, 3, 3, 1, 1, 1},
    {4, 5, 6, 66, 2, 2, 1, 0, 2},
    {1, 1, 200, 35, 1, 50, 50, 0, 1},
};

/* Each test has its own process, which chooses its kernel once. */
static const char *const KERNELS[] = {"avx512", "avx2", "neon", "generic"};
enum { KERNEL_COUNT = sizeof KERNELS / sizeof *KERNELS };

START_TEST(many_shapes_follow_the_definition)
{
    setenv("MOED_KERNEL", KERNELS[_i], 1);
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++)
        check_shape(&SHAPES[i]);
}
END_TEST

static float *new_fractions(size_t count, uint32_t state)
{
    float *values = new_integers(count, state);
    for (size_t i = 0; i < count; i++)
        values[i] = values[i] * 0.37f + 0.1f;
    return values;
}

/* Groups of one channel are convolved by channels or depthwise, which have one order of sums: that
 * of the definition, with every kernel. */
START_TEST(groups_of_one_channel_have_the_bits_of_the_definition)
{
    unsigned checked = 0;
    setenv("MOED_KERNEL", KERNELS[_i], 1);
    for (size_t i = 0; i < sizeof SHAPES / sizeof *SHAPES; i++) {
        const struct shape *s = &SHAPES[i];
        if (s->channels != s->groups || s->out > 3 * s->groups)
            continue;
        float *w = new_fractions(weights_of(s), (uint32_t)i);
        float *x = new_fractions((size_t)(3 * s->channels * s->height * s->width), 7);
        float *expected = convolve_by_hand(s, w, x, 3);
        const struct conv_case conv = case_of(s, w);
        struct moed_model *model = load_layers(conv.in, conv.layers, &conv.tensor, 1);
        const size_t bytes = 3 * moed_model_info(model)->outputs[0].elements * sizeof *x;
        float *y = xmalloc(bytes);
        run_forward(model, 1, 3, x, y);
        ck_assert_msg(memcmp(y, expected, bytes) == 0, "shape %zu", i);
        moed_model_free(model);
        free(w);
        free(x);
        free(expected);
        free(y);
        checked++;
    }
    ck_assert_uint_ge(checked, 20);
}
END_TEST

START_TEST(a_window_at_the_edge_sees_padding_and_not_the_next_line)
{
    /* Windows that wrap around must not carry infinity from one line into the lines around it. */
    expect_layers("[1,3,2]", "[{'op':'conv2d','name':'c'}]",
                  TENSORS(STORED("c.weight", DIMS(1, 1, 1, 2), 1, 1)), 1,
                  FLOATS(1, 2, INFINITY, INFINITY, 3, 4), FLOATS(3, INFINITY, 7));
}
END_TEST

START_TEST(threads_have_workspaces_of_their_own)
{
    float *w = new_integers(16 * 8 * 9, 1), *x = new_integers(9 * 8 * 144, 2);
    const struct stored tensor = {"c.weight", 4, {16, 8, 3, 3}, w, NULL};
    struct moed_model *model =
        load_layers("[8,12,12]", "[{'op':'conv2d','name':'c','padding':1,'stride':2}]", &tensor, 1);
    float alone[9 * 16 * 36], y[9 * 16 * 36];
    run_forward(model, 1, 9, x, alone);
    for (unsigned threads = 2; threads <= 4; threads++) {
        run_forward(model, threads, 9, x, y);
        ck_assert_mem_eq(y, alone, sizeof y);
    }
    moed_model_free(model);
    free(w);
    free(x);
}
END_TEST

START_TEST(what_is_known_of_it)
{
    struct moed_model *model =
        load_layers("[2,4,5]", "[{'op':'conv2d','name':'c','padding':1}]",
                    TENSORS(STORED("c.weight", DIMS(1, 2, 3, 1), 1, 1, 1, 1, 1, 1),
                            STORED("c.bias", DIMS(1), 1)));
    const struct moed_model_info *info = moed_model_info(model);
    ck_assert_uint_eq(info->outputs[0].shape.rank, 3);
    ck_assert_uint_eq(info->outputs[0].shape.dims[1], 4);
    ck_assert_uint_eq(info->outputs[0].shape.dims[2], 7);
    ck_assert_uint_eq(info->parameters, 7);
    ck_assert_uint_eq(info->macs_per_row, 28 * 6);
    moed_model_free(model);
}
END_TEST

START_TEST(what_does_not_fit_is_refused)
{
    const struct stored weight = STORED("c.weight", DIMS(2, 1, 2, 2), 1, 1, 1, 1, 1, 1, 1, 1);
    static const struct {
        const char *shape, *options, *part;
    } cases[] = {
        {"[4]", "", "conv2d needs rows of 3 axes, got shape [4]"},
        {"[1,1,4]", "", "kernel is larger than the padded input [1, 1, 4]"},
        {"[2,4,4]", "", "2 x 1 channels do not fit 2 input channels in 1 groups"},
        {"[3,4,4]", ",'groups':3", "2 x 1 channels do not fit 3 input channels in 3 groups"},
        {"[1,4,4]", ",'groups':0", "groups: expected an integer from 1"},
        {"[1,4,4]", ",'stride':0", "stride: expected an integer from 1"},
        {"[1,4,4]", ",'padding':-1", "padding: expected an integer from 0"},
        {"[1,4,4]", ",'dilation':2", "unknown key 'dilation'"},
        {"[1,8000,8000]", ",'padding':4096", "exceeds 67108864"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char layers[128];
        snprintf(layers, sizeof layers, "[{'op':'conv2d','name':'c'%s}]", cases[i].options);
        expect_refused(cases[i].shape, layers, &weight, 1, cases[i].part);
    }
    expect_refused("[1,4,4]", "[{'op':'conv2d','name':'c'}]",
                   TENSORS(STORED("c.weight", DIMS(1, 1, 2), 1, 1)), "has 3 axes, expected 4");
    expect_refused("[1,4,4]", "[{'op':'conv2d','name':'d'}]", &weight, 1,
                   "tensor 'd.weight' is missing");
    expect_refused("[1,4]", "[{'op':'conv1d','name':'c'}]", &weight, 1, "has 4 axes, expected 3");
}
END_TEST

/* The workspace of an output with a million channels of one pixel must stay bounded. */
START_TEST(the_workspace_is_bounded)
{
    expect_refused("[1,8000,8000]", "[{'op':'conv2d','name':'c','stride':2}]",
                   TENSORS(STORED("c.weight", DIMS(1, 1, 2, 2), 1, 1, 1, 1)),
                   "one row needs more than 67108864 numbers of workspace");
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("conv");
    tcase_set_timeout(tests, TEST_SECONDS);
    tcase_add_test(tests, cross_correlation_without_flipping);
    tcase_add_test(tests, bias_stride_and_padding);
    tcase_add_test(tests, channels_are_summed_and_groups_are_not);
    tcase_add_test(tests, one_axis);
    tcase_add_loop_test(tests, many_shapes_follow_the_definition, 0, KERNEL_COUNT);
    tcase_add_loop_test(tests, groups_of_one_channel_have_the_bits_of_the_definition, 0,
                        KERNEL_COUNT);
    tcase_add_test(tests, a_window_at_the_edge_sees_padding_and_not_the_next_line);
    tcase_add_test(tests, threads_have_workspaces_of_their_own);
    tcase_add_test(tests, what_is_known_of_it);
    tcase_add_test(tests, what_does_not_fit_is_refused);
    tcase_add_test(tests, the_workspace_is_bounded);
    tcase_add_test(tests, large_weights_over_large_images);
    return run_suite("conv", tests);
}
