/* residual: y = x + layers(x). */
#include "support.h"

START_TEST(adds_its_input)
{
    expect_layers("[3]", "[{'op':'residual','layers':[{'op':'relu'}]}]", NO_TENSORS, 2,
                  FLOATS(1, -2, 3, -4, 5, -6), FLOATS(2, -2, 6, -4, 10, -6));
}
END_TEST

START_TEST(its_input_survives_layers_that_work_in_place)
{
    /* twice: 2x, then 2x + relu(3 * 2x) */
    expect_layers("[2]",
                  "[{'op':'scale','value':2},"
                  "{'op':'residual','layers':[{'op':'scale','value':3},{'op':'relu'}]},"
                  "{'op':'scale','value':1}]",
                  NO_TENSORS, 2, FLOATS(1, -1, 0, 2), FLOATS(8, -2, 0, 16));
}
END_TEST

START_TEST(residuals_nest)
{
    /* f(x) = x + (2x + relu(2x)) */
    expect_layers("[2]",
                  "[{'op':'residual','layers':[{'op':'scale','value':2},"
                  "{'op':'residual','layers':[{'op':'relu'}]}]}]",
                  NO_TENSORS, 2, FLOATS(1, -1, 3, 0), FLOATS(5, -3, 15, 0));
}
END_TEST

START_TEST(inner_layers_may_be_wider)
{
    const struct stored tensors[] = {STORED("up.weight", DIMS(4, 1), 1, 2, 3, 4),
                                     STORED("down.weight", DIMS(1, 4), 1, 1, 1, 1)};
    expect_layers("[1]",
                  "[{'op':'residual','layers':[{'op':'linear','name':'up'},{'op':'relu'},"
                  "{'op':'linear','name':'down'}]}]",
                  tensors, 2, 3, FLOATS(1, -1, 2), FLOATS(11, -1, 22));
}
END_TEST

START_TEST(the_shape_must_stay)
{
    expect_refused("[2,2]", "[{'op':'residual','layers':[{'op':'flatten'}]}]", NO_TENSORS,
                   "layers[0].layers: map [2, 2] to [4]; a residual must keep the shape");
    expect_refused("[2]", "[{'op':'residual'}]", NO_TENSORS, "layers[0].layers: missing");
    expect_refused("[2]", "[{'op':'residual','layers':[]}]", NO_TENSORS,
                   "layers[0].layers: expected a list of objects");
    expect_refused("[2]", "[{'op':'residual','layers':[{'op':'relu'},{'op':'no'}]}]", NO_TENSORS,
                   "layers[0].layers[1].op: unknown op 'no'");
}
END_TEST

START_TEST(a_moe_layer_inside_is_found_and_routed)
{
    struct moed_model *model = load_layers(
        "[2]",
        "[{'op':'residual','layers':[{'op':'moe','name':'m','gate':{'layers':[{'op':'flatten'}],"
        "'score':'none','top_k':1,'normalize':'sum'},"
        "'experts':{'count':2,'layers':[{'op':'linear','name':'fc'}]}}]}]",
        TENSORS(STORED("m.experts.0.fc.weight", DIMS(2, 2), 10, 0, 0, 10),
                STORED("m.experts.1.fc.weight", DIMS(2, 2), 0, 1, 1, 0)));
    ck_assert_uint_eq(moed_model_info(model)->gate_count, 1);
    for (unsigned threads = 1; threads <= 3; threads++) {
        float y[6];
        run_forward(model, threads, 3, FLOATS(3, 1, 1, 3, 2, 2), y);
        expect_close(y, FLOATS(33, 11, 4, 4, 22, 22), 6);
    }
    moed_model_free(model);
}
END_TEST

TEST_MAIN("residual", adds_its_input, its_input_survives_layers_that_work_in_place, residuals_nest,
          inner_layers_may_be_wider, the_shape_must_stay, a_moe_layer_inside_is_found_and_routed)
