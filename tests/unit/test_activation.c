/* Element-wise functions and softmax; expected values are PyTorch's. */
#include "support.h"

static void expect_op(const char *op, size_t count, const float *x, const float *y)
{
    char shape[32], layers[128];
    snprintf(shape, sizeof shape, "[%zu]", count);
    snprintf(layers, sizeof layers, "[{%s}]", op);
    expect_layers(shape, layers, NO_TENSORS, 1, x, y);
    /* behind another layer it works in place */
    snprintf(layers, sizeof layers, "[{'op':'flatten'},{%s},{'op':'flatten'}]", op);
    expect_layers(shape, layers, NO_TENSORS, 1, x, y);
}

START_TEST(relu)
{
    expect_op("'op':'relu'", 5, FLOATS(-1, 0, 2.5f, -INFINITY, INFINITY),
              FLOATS(0, 0, 2.5f, 0, INFINITY));
    expect_op("'op':'relu'", 1, FLOATS(NAN), FLOATS(NAN));
}
END_TEST

START_TEST(gelu)
{
    expect_op("'op':'gelu'", 4, FLOATS(-1, 0, 1, 3),
              FLOATS(-0.15865526f, 0, 0.84134471f, 2.9959502f));
    expect_op("'op':'gelu','approximate':'none'", 1, FLOATS(-2), FLOATS(-0.045500264f));
    expect_op("'op':'gelu','approximate':'tanh'", 4, FLOATS(-1, 0, 1, 3),
              FLOATS(-0.15880801f, 0, 0.84119199f, 2.9963627f));
    expect_op("'op':'gelu'", 2, FLOATS(40, -40), FLOATS(40, 0));
    expect_refused("[1]", "[{'op':'gelu','approximate':'fast'}]", NO_TENSORS,
                   "approximate: 'fast' is not one of none, tanh");
}
END_TEST

START_TEST(silu_and_sigmoid)
{
    expect_op("'op':'silu'", 4, FLOATS(-1, 0, 1, 5),
              FLOATS(-0.26894142f, 0, 0.73105858f, 4.9665356f));
    expect_op("'op':'silu'", 2, FLOATS(-200, 200), FLOATS(0, 200));
    expect_op("'op':'sigmoid'", 3, FLOATS(-1, 0, 1), FLOATS(0.26894142f, 0.5f, 0.73105858f));
    expect_op("'op':'sigmoid'", 4, FLOATS(-200, 200, -INFINITY, INFINITY), FLOATS(0, 1, 0, 1));
}
END_TEST

START_TEST(tanh_and_cube)
{
    expect_op("'op':'tanh'", 4, FLOATS(-1, 0, 1, 100), FLOATS(-0.76159416f, 0, 0.76159416f, 1));
    expect_op("'op':'cube'", 3, FLOATS(-2, 0.5f, 3), FLOATS(-8, 0.125f, 27));
}
END_TEST

START_TEST(scale)
{
    expect_op("'op':'scale','value':-2.5", 2, FLOATS(2, -4), FLOATS(-5, 10));
    expect_op("'op':'scale','value':0", 2, FLOATS(2, -4), FLOATS(0, 0));
    expect_refused("[1]", "[{'op':'scale'}]", NO_TENSORS, "value: missing; expected a number");
    expect_refused("[1]", "[{'op':'scale','value':1e39}]", NO_TENSORS, "f32 can hold");
}
END_TEST

START_TEST(softmax_over_the_last_axis)
{
    expect_layers("[2,2]", "[{'op':'softmax'}]", NO_TENSORS, 1, FLOATS(0, 1.0986123f, 5, 5),
                  FLOATS(0.25f, 0.75f, 0.5f, 0.5f));
    expect_op("'op':'softmax'", 3, FLOATS(1, 2, 3), FLOATS(0.09003057f, 0.24472847f, 0.66524096f));
    expect_op("'op':'softmax'", 1, FLOATS(-7), FLOATS(1));
}
END_TEST

START_TEST(softmax_does_not_overflow)
{
    expect_op("'op':'softmax'", 3, FLOATS(3e38f, 3e38f, -3e38f), FLOATS(0.5f, 0.5f, 0));
    expect_op("'op':'softmax'", 2, FLOATS(-INFINITY, 0), FLOATS(0, 1));
    expect_op("'op':'softmax'", 3, FLOATS(1, NAN, 2), FLOATS(NAN, NAN, NAN));
}
END_TEST

START_TEST(softmax_needs_an_axis)
{
    expect_refused("[2]", "[{'op':'sum','axis':0},{'op':'softmax'}]", NO_TENSORS,
                   "layers[1]: softmax needs at least one axis");
}
END_TEST

TEST_MAIN("activation", relu, gelu, silu_and_sigmoid, tanh_and_cube, scale,
          softmax_over_the_last_axis, softmax_does_not_overflow, softmax_needs_an_axis)
