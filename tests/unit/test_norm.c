/* batch_norm, layer_norm and rms_norm, compared with results computed by hand. */
#include "support.h"

/* Functions of format 3. */
static struct moed_model *load_functions(const char *shape, const char *layers)
{
    char config[256];
    snprintf(config, sizeof config,
             "{'model_type':'moed','format_version':3,'input':{'shape':%s},'layers':%s}", shape,
             layers);
    return load_model(config, NO_TENSORS);
}

START_TEST(batch_norm_works_per_channel)
{
    /* channel 0: (x - 1) / sqrt(4) * 3 + 10; channel 1: (x - -2) / sqrt(0.25) * 1 + 0 */
    expect_layers("[2,1,2]", "[{'op':'batch_norm','name':'n','eps':0}]",
                  TENSORS(STORED("n.weight", DIMS(2), 3, 1), STORED("n.bias", DIMS(2), 10, 0),
                          STORED("n.running_mean", DIMS(2), 1, -2),
                          STORED("n.running_var", DIMS(2), 4, 0.25f)),
                  2, FLOATS(1, 5, 0, -2, 3, -1, 1, 2), FLOATS(10, 16, 4, 0, 13, 7, 6, 8));
}
END_TEST

START_TEST(batch_norm_without_weights)
{
    const struct stored statistics[] = {STORED("n.running_mean", DIMS(1), 2),
                                        STORED("n.running_var", DIMS(1), 3)};
    expect_layers("[1]", "[{'op':'batch_norm','name':'n','eps':1}]", statistics, 2, 1, FLOATS(8),
                  FLOATS(3));
    /* eps is 1e-5 unless it is given */
    expect_layers(
        "[1]", "[{'op':'batch_norm','name':'n'}]",
        TENSORS(STORED("n.running_mean", DIMS(1), 0), STORED("n.running_var", DIMS(1), 0)), 1,
        FLOATS(1), FLOATS(316.22777f));
}
END_TEST

START_TEST(batch_norm_needs_a_positive_variance)
{
    static const float variances[] = {0, -1};
    for (size_t i = 0; i < 2; i++) {
        const struct stored tensors[] = {STORED("n.running_mean", DIMS(1), 0),
                                         {"n.running_var", 1, {1}, &variances[i], NULL}};
        expect_refused("[1]", "[{'op':'batch_norm','name':'n','eps':0}]", tensors, 2,
                       "tensor 'n.running_var': entry 0 is not positive");
    }
    expect_refused("[1]", "[{'op':'batch_norm','name':'n','eps':-1}]", NO_TENSORS,
                   "layers[0].eps: expected a number of at least 0");
    expect_refused("[1]", "[{'op':'batch_norm','name':'n'}]", NO_TENSORS,
                   "tensor 'n.running_mean' is missing");
    expect_refused(
        "[2]", "[{'op':'batch_norm','name':'n'}]",
        TENSORS(STORED("n.running_mean", DIMS(1), 0), STORED("n.running_var", DIMS(1), 1)),
        "tensor 'n.running_mean' has shape [1], expected [2]");
}
END_TEST

START_TEST(layer_norm_over_the_last_axis)
{
    /* 1 3: mean 2, deviation 1; -4 0: mean -2, deviation 2 */
    const struct stored tensors[] = {STORED("n.weight", DIMS(2), 2, 3),
                                     STORED("n.bias", DIMS(2), 0.5f, -1)};
    expect_layers("[2,2]", "[{'op':'layer_norm','name':'n','eps':0}]", tensors, 2, 1,
                  FLOATS(1, 3, -4, 0), FLOATS(-1.5f, 2, -1.5f, 2));
    /* without a bias, and with eps: (x - 2) / sqrt(1 + 3) */
    expect_layers("[2]", "[{'op':'layer_norm','name':'n','eps':3}]", tensors, 1, 1, FLOATS(1, 3),
                  FLOATS(-1, 1.5f));
}
END_TEST

START_TEST(the_weight_says_how_many_axes_are_normalised)
{
    /* 0 0 0 4 together: mean 1, variance 3 */
    expect_layers("[2,2]", "[{'op':'layer_norm','name':'n','eps':1}]",
                  TENSORS(STORED("n.weight", DIMS(2, 2), 1, 1, 1, 10)), 1, FLOATS(0, 0, 0, 4),
                  FLOATS(-0.5f, -0.5f, -0.5f, 15));
    expect_refused("[2,3]", "[{'op':'layer_norm','name':'n'}]",
                   TENSORS(STORED("n.weight", DIMS(2), 1, 1)), "has shape [2], expected [3]");
    expect_refused("[2]", "[{'op':'layer_norm','name':'n'}]",
                   TENSORS(STORED("n.weight", DIMS(1, 2), 1, 1)), "has shape [1, 2], expected [2]");
    expect_refused("[1]", "[{'op':'layer_norm','name':'n'}]", NO_TENSORS,
                   "tensor 'n.weight' is missing");
    expect_refused("[1]", "[{'op':'sum','axis':0},{'op':'layer_norm','name':'n'}]", NO_TENSORS,
                   "needs at least one axis");
}
END_TEST

START_TEST(rms_norm_keeps_the_mean)
{
    /* 3 4: mean square 12.5 */
    expect_layers("[2]", "[{'op':'rms_norm','name':'n','eps':0}]",
                  TENSORS(STORED("n.weight", DIMS(2), 1, 2)), 2, FLOATS(3, 4, 5, 5),
                  FLOATS(0.84852814f, 2.2627417f, 1, 2));
    expect_refused("[1]", "[{'op':'rms_norm','name':'n'}]",
                   TENSORS(STORED("n.weight", DIMS(1), 1), STORED("n.bias", DIMS(1), 1)),
                   "tensor 'n.bias' is used by no layer");
}
END_TEST

/* With a large mean and a small deviation, sums in single precision would lose the answer. */
START_TEST(a_large_mean_is_subtracted_exactly)
{
    enum { WIDTH = 4096 };
    static float x[WIDTH], y[WIDTH], weight[WIDTH];
    for (size_t i = 0; i < WIDTH; i++) {
        x[i] = i % 2 ? 12346.678f : 12344.678f;
        weight[i] = 1;
    }
    const struct stored tensor = {"n.weight", 1, {WIDTH}, weight, NULL};
    struct moed_model *model =
        load_layers("[4096]", "[{'op':'layer_norm','name':'n','eps':0}]", &tensor, 1);
    run_forward(model, 1, 1, x, y);
    for (size_t i = 0; i < WIDTH; i++)
        if (fabsf(y[i] - (i % 2 ? 1.0f : -1.0f)) > 1e-5f)
            ck_abort_msg("[%zu] is %.9g", i, (double)y[i]);
    moed_model_free(model);
}
END_TEST

/* Along either axis: columns are worked on eight together, of which nine leave one. A vector with a
 * NaN is NaN as a whole, as in PyTorch; the others are not. */
START_TEST(vectors_are_normalised_along_either_axis)
{
    enum { LINES = 3, WIDTH = 9, BROKEN = 4 };
    for (size_t axis = 0; axis < 2; axis++) {
        float x[LINES * WIDTH], y[LINES * WIDTH];
        char layers[64];
        snprintf(layers, sizeof layers, "[{'op':'l2_normalize','axis':%zu}]", axis);
        struct moed_model *model = load_functions("[3,9]", layers);
        for (size_t i = 0; i < LINES * WIDTH; i++)
            x[i] = i == BROKEN ? NAN : (float)i - 10;
        run_forward(model, 1, 1, x, y);
        for (size_t i = 0; i < LINES * WIDTH; i++) {
            size_t first = axis ? i / WIDTH * WIDTH : i % WIDTH, step = axis ? 1 : WIDTH;
            double square = 0;
            for (size_t j = 0; j < (axis ? WIDTH : LINES); j++)
                square += pow((double)x[first + j * step], 2);
            if (isnan(square))
                ck_assert(isnan(y[i]));
            else
                ck_assert_double_eq_tol((double)y[i], (double)x[i] / sqrt(square), 1e-6);
        }
        moed_model_free(model);
    }
}
END_TEST

TEST_MAIN("norm", batch_norm_works_per_channel, batch_norm_without_weights,
          batch_norm_needs_a_positive_variance, layer_norm_over_the_last_axis,
          the_weight_says_how_many_axes_are_normalised, rms_norm_keeps_the_mean,
          a_large_mean_is_subtracted_exactly, vectors_are_normalised_along_either_axis)
