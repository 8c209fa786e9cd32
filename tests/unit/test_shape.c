/* flatten, reshape, sum and mean. */
#include "support.h"

static void expect_output(const char *shape, const char *layers, size_t rank, const size_t *dims)
{
    struct moed_model *model = load_layers(shape, layers, NO_TENSORS);
    const struct moed_shape *out = &moed_model_info(model)->outputs[0].shape;
    ck_assert_uint_eq(out->rank, rank);
    for (size_t i = 0; i < rank; i++)
        ck_assert_uint_eq(out->dims[i], dims[i]);
    moed_model_free(model);
}

#define EIGHT FLOATS(1, 2, 3, 4, 5, 6, 7, 8)

START_TEST(flatten_and_reshape_keep_the_numbers)
{
    expect_output("[2,2,2]", "[{'op':'flatten'}]", 1, (size_t[]){8});
    expect_output("[2,2,2]", "[{'op':'reshape','shape':[1,4,2]}]", 3, (size_t[]){1, 4, 2});
    expect_layers("[2,2]", "[{'op':'reshape','shape':[4]}]", NO_TENSORS, 2, EIGHT, EIGHT);
    expect_layers("[4]",
                  "[{'op':'scale','value':1},{'op':'reshape','shape':[2,2]},{'op':'flatten'}]",
                  NO_TENSORS, 2, EIGHT, EIGHT);
}
END_TEST

START_TEST(a_reshape_keeps_their_count)
{
    expect_refused("[2,2]", "[{'op':'reshape','shape':[5]}]", NO_TENSORS,
                   "shape: [5] has another number of elements than the input [2, 2]");
    expect_refused("[2,2]", "[{'op':'reshape'}]", NO_TENSORS, "shape: expected a list");
    expect_refused("[2,2]", "[{'op':'reshape','shape':[-1]}]", NO_TENSORS,
                   "size 0 must be a positive integer");
    expect_refused("[2,2]", "[{'op':'reshape','shape':[4294967296,4294967296,4294967296]}]",
                   NO_TENSORS, "exceeds 67108864 elements");
}
END_TEST

START_TEST(sums_along_every_axis)
{
    expect_layers("[2,2,2]", "[{'op':'sum','axis':0}]", NO_TENSORS, 1, EIGHT, FLOATS(6, 8, 10, 12));
    expect_layers("[2,2,2]", "[{'op':'sum','axis':1}]", NO_TENSORS, 1, EIGHT, FLOATS(4, 6, 12, 14));
    expect_layers("[2,2,2]", "[{'op':'sum','axis':2}]", NO_TENSORS, 1, EIGHT, FLOATS(3, 7, 11, 15));
    expect_layers("[2,2,2]", "[{'op':'sum','axis':-3}]", NO_TENSORS, 1, EIGHT,
                  FLOATS(6, 8, 10, 12));
    expect_layers("[1,4]", "[{'op':'sum','axis':0}]", NO_TENSORS, 2, EIGHT, EIGHT);
}
END_TEST

START_TEST(means_divide)
{
    expect_layers("[2,2]", "[{'op':'mean','axis':-1}]", NO_TENSORS, 2, EIGHT,
                  FLOATS(1.5f, 3.5f, 5.5f, 7.5f));
    expect_layers("[4]", "[{'op':'mean','axis':0}]", NO_TENSORS, 2, EIGHT, FLOATS(2.5f, 6.5f));
}
END_TEST

START_TEST(the_last_axis_may_go)
{
    expect_output("[3]", "[{'op':'sum','axis':0}]", 0, NULL);
    expect_layers("[2,2]", "[{'op':'sum','axis':0},{'op':'sum','axis':0},{'op':'flatten'}]",
                  NO_TENSORS, 2, EIGHT, FLOATS(10, 26));
    expect_refused("[3]", "[{'op':'sum','axis':0},{'op':'sum','axis':0}]", NO_TENSORS,
                   "layers[1].axis: sum needs at least one axis");
}
END_TEST

START_TEST(an_axis_must_exist)
{
    expect_refused("[2,2]", "[{'op':'sum','axis':2}]", NO_TENSORS,
                   "expected an integer from -2 to 1");
    expect_refused("[2,2]", "[{'op':'mean','axis':-3}]", NO_TENSORS,
                   "expected an integer from -2 to 1");
    expect_refused("[2,2]", "[{'op':'mean'}]", NO_TENSORS, "axis: missing");
}
END_TEST

TEST_MAIN("shape", flatten_and_reshape_keep_the_numbers, a_reshape_keeps_their_count,
          sums_along_every_axis, means_divide, the_last_axis_may_go, an_axis_must_exist)
