/* What golden cases of the functions of format 3 do not show: NaN stays NaN, as in PyTorch, and
 * numbers at a bend fall on the right side of it. */
#include "support.h"

static struct moed_model *load_function(const char *layer, const char *shape)
{
    char config[512];
    snprintf(config, sizeof config,
             "{'model_type':'moed','format_version':3,'input':{'shape':%s},'layers':[%s]}", shape,
             layer);
    return load_model(config, TENSORS(STORED("p.weight", DIMS(1), 0.5f)));
}

static void expect_function(const char *layer, size_t count, const float *x, const float *expected)
{
    char config[512];
    float y[16];
    snprintf(config, sizeof config,
             "{'model_type':'moed','format_version':3,'input':{'shape':[%zu]},'layers':[%s]}",
             count, layer);
    struct moed_model *model = load_model(config, NO_TENSORS);
    run_forward(model, 1, 1, x, y);
    expect_close(y, expected, count);
    moed_model_free(model);
}

START_TEST(nan_stays_nan)
{
    static const char *const functions[] = {
        "{'op':'relu2'}",
        "{'op':'relu6'}",
        "{'op':'mish'}",
        "{'op':'hardswish'}",
        "{'op':'hardsigmoid'}",
        "{'op':'exp'}",
        "{'op':'log'}",
        "{'op':'sqrt'}",
        "{'op':'leaky_relu'}",
        "{'op':'elu'}",
        "{'op':'softplus'}",
        "{'op':'clamp','min':0,'max':1}",
        "{'op':'log_softmax'}",
        "{'op':'max','axis':0}",
        "{'op':'l2_normalize'}",
        "{'op':'softmax'}",
        "{'op':'add','value':1.5}",
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        char config[256];
        float y[3];
        snprintf(config, sizeof config,
                 "{'model_type':'moed','format_version':3,'input':{'shape':[3]},'layers':[%s]}",
                 functions[i]);
        struct moed_model *model = load_model(config, NO_TENSORS);
        run_forward(model, 1, 1, FLOATS(1, NAN, 2), y);
        const size_t outputs = moed_model_info(model)->outputs[0].elements;
        ck_assert_msg(isnan(y[outputs == 1 ? 0 : 1]), "%s", functions[i]);
        moed_model_free(model);
    }
}
END_TEST

START_TEST(bends)
{
    expect_function("{'op':'relu6'}", 4, FLOATS(-1, 0, 6, 7), FLOATS(0, 0, 6, 6));
    expect_function("{'op':'hardsigmoid'}", 4, FLOATS(-3, 0, 3, 9), FLOATS(0, 0.5f, 1, 1));
    expect_function("{'op':'hardswish'}", 4, FLOATS(-3, -4, 3, 9), FLOATS(0, 0, 3, 9));
    expect_function("{'op':'clamp','min':-1}", 3, FLOATS(-2, -1, INFINITY),
                    FLOATS(-1, -1, INFINITY));
    expect_function("{'op':'clamp','max':1}", 3, FLOATS(2, 1, -INFINITY), FLOATS(1, 1, -INFINITY));
    expect_function("{'op':'softplus','threshold':1}", 2, FLOATS(1, 1.5f),
                    FLOATS(1.31326169f, 1.5f));
    expect_function("{'op':'leaky_relu','slope':0.5}", 3, FLOATS(-2, 0, 2), FLOATS(-1, 0, 2));
}
END_TEST

START_TEST(one_slope_serves_all)
{
    struct moed_model *model = load_function("{'op':'prelu','name':'p'}", "[2,2]");
    float y[4];
    run_forward(model, 1, 1, FLOATS(-2, 2, -4, -6), y);
    expect_close(y, FLOATS(-1, 2, -2, -3), 4);
    moed_model_free(model);
}
END_TEST

START_TEST(windows_of_adaptive_pools_overlap_where_sizes_do_not_divide)
{
    char config[256];
    float y[2];
    snprintf(config, sizeof config,
             "{'model_type':'moed','format_version':3,'input':{'shape':[1,1,3]},'layers':["
             "{'op':'adaptive_avg_pool2d','size':[1,2]}]}");
    struct moed_model *model = load_model(config, NO_TENSORS);
    run_forward(model, 1, 1, FLOATS(1, 2, 6), y);
    expect_close(y, FLOATS(1.5f, 4), 2);
    moed_model_free(model);
}
END_TEST

TEST_MAIN("functions", nan_stays_nan, bends, one_slope_serves_all,
          windows_of_adaptive_pools_overlap_where_sizes_do_not_divide)
