/* The experts of a MoE layer, run over the items dispatched to them. The input contains the choice:
 * each of its first numbers is the logit of one expert. */
#include "support.h"

/* Rows [choice0, choice1, choice2, v]; the expert sees the whole row and answers factor * v. */
#define LAYERS(top_k)                                                                              \
    "[{'op':'moe','name':'m',"                                                                     \
    "'gate':{'layers':[{'op':'linear','name':'g'}],'score':'none','top_k':" #top_k "},"            \
    "'experts':{'count':3,'layers':[{'op':'linear','name':'fc'}]}}]"

static const struct stored tensors[] = {
    STORED("m.gate.g.weight", DIMS(3, 4), 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0),
    STORED("m.experts.0.fc.weight", DIMS(1, 4), 0, 0, 0, 1),
    STORED("m.experts.1.fc.weight", DIMS(1, 4), 0, 0, 0, 10),
    STORED("m.experts.2.fc.weight", DIMS(1, 4), 0, 0, 0, 100),
};

static void expect_all_threads(const char *layers, size_t rows, const float *x,
                               const float *expected)
{
    struct moed_model *model = load_layers("[4]", layers, tensors, 4);
    for (unsigned threads = 1; threads <= 4; threads++) {
        float y[16];
        memset(y, 0xff, sizeof y);
        run_forward(model, threads, rows, x, y);
        expect_close(y, expected, rows);
    }
    moed_model_free(model);
}

START_TEST(each_item_goes_to_its_expert)
{
    expect_all_threads(LAYERS(1), 4, FLOATS(0, 0, 1, 5, 1, 0, 0, 6, 0, 1, 0, 7, 0, 0, 1, 8),
                       FLOATS(500, 6, 70, 800));
}
END_TEST

START_TEST(experts_without_items_do_nothing)
{
    expect_all_threads(LAYERS(1), 2, FLOATS(0, 0, 1, 5, 0, 0, 1, 6), FLOATS(500, 600));
    expect_all_threads(LAYERS(1), 1, FLOATS(0, 1, 0, 5), FLOATS(50));
}
END_TEST

/* An expert that gets every item reads them in place; the others get copies. */
START_TEST(one_expert_gets_all_and_others_some)
{
    expect_all_threads(LAYERS(2), 3, FLOATS(2, 1, 0, 5, 2, 0, 1, 6, 1, 2, 0, 7),
                       FLOATS(2 * 5 + 50, 2 * 6 + 600, 2 * 70 + 7));
}
END_TEST

START_TEST(all_experts_get_all)
{
    expect_all_threads(LAYERS(3), 2, FLOATS(1, 2, 3, 5, 3, 2, 1, 1),
                       FLOATS(5 + 100 + 1500, 3 + 20 + 100));
}
END_TEST

START_TEST(experts_may_differ_inside)
{
    /* expert 0 has one hidden unit, expert 1 three */
    const struct stored uneven[] = {
        STORED("m.gate.g.weight", DIMS(2, 2), 1, 0, 0, 1),
        STORED("m.experts.0.up.weight", DIMS(1, 2), 1, 1),
        STORED("m.experts.0.down.weight", DIMS(1, 1), 10),
        STORED("m.experts.1.up.weight", DIMS(3, 2), 1, 0, 0, 1, 1, -1),
        STORED("m.experts.1.down.weight", DIMS(1, 3), 1, 2, 3),
    };
    expect_layers("[2]",
                  "[{'op':'moe','name':'m','gate':{'layers':[{'op':'linear','name':'g'}],"
                  "'top_k':1,'normalize':'sum'},"
                  "'experts':{'count':2,'layers':[{'op':'linear','name':'up'},{'op':'relu'},"
                  "{'op':'linear','name':'down'}]}}]",
                  uneven, 5, 3, FLOATS(3, 1, 1, 3, 2, 2), FLOATS(40, 7, 40));
}
END_TEST

/* Convolutions need a workspace; pooling and flattening change shapes. The experts are like those
 * of the shipped models, with more items than threads and more threads than items. */
START_TEST(experts_that_convolve_on_several_threads)
{
    enum { ROWS = 11, IN = 2 * 6 * 6, OUT = 3 };
    float *gate = new_integers(4 * IN, 1), *kernels[4], *outs[4], *x = new_integers(ROWS * IN, 2);
    struct stored all[9] = {{"m.gate.g.weight", 2, {4, IN}, gate, NULL}};
    char names[8][40];
    for (uint32_t e = 0; e < 4; e++) {
        kernels[e] = new_integers(5 * 2 * 9, 10 + e);
        outs[e] = new_integers(OUT * 20, 20 + e);
        snprintf(names[2 * e], sizeof names[0], "m.experts.%u.conv.weight", e);
        snprintf(names[2 * e + 1], sizeof names[0], "m.experts.%u.out.weight", e);
        all[1 + 2 * e] = (struct stored){names[2 * e], 4, {5, 2, 3, 3}, kernels[e], NULL};
        all[2 + 2 * e] = (struct stored){names[2 * e + 1], 2, {OUT, 20}, outs[e], NULL};
    }
    struct moed_model *model = load_layers(
        "[2,6,6]",
        "[{'op':'moe','name':'m','gate':{'layers':[{'op':'flatten'},{'op':'linear','name':'g'}],"
        "'score':'none','top_k':2,'scale':0.5},'experts':{'count':4,'layers':["
        "{'op':'conv2d','name':'conv'},{'op':'relu'},{'op':'max_pool2d','kernel':2},"
        "{'op':'flatten'},{'op':'linear','name':'out'}]}}]",
        all, 9);
    float alone[ROWS * OUT], y[ROWS * OUT], row[OUT];
    run_forward(model, 1, ROWS, x, alone);
    for (unsigned threads = 2; threads <= 4; threads++) {
        run_forward(model, threads, ROWS, x, y);
        ck_assert_mem_eq(y, alone, sizeof y);
    }
    for (size_t i = 0; i < ROWS; i++) {
        run_forward(model, 3, 1, x + i * IN, row);
        ck_assert_mem_eq(row, alone + i * OUT, sizeof row);
    }
    moed_model_free(model);
    for (uint32_t e = 0; e < 4; e++) {
        free(kernels[e]);
        free(outs[e]);
    }
    free(gate);
    free(x);
}
END_TEST

/* Enough items that threads share the items of one expert; expert 0 gets every item, in place. With
 * small integers every order of summing gives the same bits. */
START_TEST(an_expert_is_shared_by_threads)
{
    enum { ROWS = 300, IN = 96, HIDDEN = 64, OUT = 8 };
    float *gate = xcalloc(3 * IN, sizeof *gate), *x = new_integers(ROWS * IN, 1);
    struct stored all[8] = {{"m.gate.g.weight", 2, {3, IN}, gate, NULL},
                            [7] = STORED("m.gate.select_bias", DIMS(3), 100, 0, 0)};
    char names[6][40];
    for (uint32_t e = 0; e < 3; e++) {
        snprintf(names[2 * e], sizeof names[0], "m.experts.%u.up.weight", e);
        snprintf(names[2 * e + 1], sizeof names[0], "m.experts.%u.down.weight", e);
        all[1 + 2 * e] =
            (struct stored){names[2 * e], 2, {HIDDEN, IN}, new_integers(HIDDEN * IN, e), NULL};
        all[2 + 2 * e] = (struct stored){
            names[2 * e + 1], 2, {OUT, HIDDEN}, new_integers(OUT * HIDDEN, e), NULL};
    }
    gate[1 * IN + 1] = gate[2 * IN + 2] = 1; /* logits 0, x1, x2 under the bias 100, 0, 0 */
    struct moed_model *model = load_layers(
        "[96]",
        "[{'op':'moe','name':'m','gate':{'layers':[{'op':'linear','name':'g'}],'score':'sigmoid',"
        "'top_k':2,'scale':0.5},'experts':{'count':3,'layers':[{'op':'linear','name':'up'},"
        "{'op':'relu'},{'op':'scale','value':2},{'op':'linear','name':'down'}]}}]",
        all, 8);
    float *alone = xcalloc(ROWS * OUT, sizeof *alone), *y = xcalloc(ROWS * OUT, sizeof *y);
    run_forward(model, 1, ROWS, x, alone);
    for (unsigned round = 0; round < 12; round++) {
        run_forward(model, 2 + round % 3, ROWS, x, y);
        ck_assert_mem_eq(y, alone, ROWS * OUT * sizeof *y);
    }
    moed_model_free(model);
    for (size_t i = 1; i < 7; i++)
        free((void *)all[i].values);
    free(gate);
    free(x);
    free(y);
    free(alone);
}
END_TEST

#define WITH_EXPERTS(experts)                                                                      \
    "[{'op':'moe','name':'m','gate':{'layers':[{'op':'flatten'}]},'experts':" experts "}]"

START_TEST(what_does_not_fit_is_refused)
{
    expect_refused("[2]", "[{'op':'moe','name':'m'}]", NO_TENSORS, "layers[0].experts: missing");
    expect_refused("[2]", WITH_EXPERTS("{'layers':[{'op':'relu'}]}"), NO_TENSORS,
                   "layers[0].experts.count: missing");
    expect_refused("[2]", WITH_EXPERTS("{'count':0,'layers':[{'op':'relu'}]}"), NO_TENSORS,
                   "experts.count: expected an integer from 1 to 4096");
    expect_refused("[2]", WITH_EXPERTS("{'count':4097,'layers':[{'op':'relu'}]}"), NO_TENSORS,
                   "experts.count: expected an integer from 1 to 4096");
    expect_refused("[2]", WITH_EXPERTS("{'count':2}"), NO_TENSORS, "experts.layers: missing");
    expect_refused("[2]", WITH_EXPERTS("{'count':2,'layers':[{'op':'relu'}],'shared':1}"),
                   NO_TENSORS, "layers[0].experts: unknown key 'shared'");
    expect_refused("[2]", WITH_EXPERTS("{'count':2,'layers':[{'op':'linear','name':'fc'}]}"),
                   TENSORS(STORED("m.experts.0.fc.weight", DIMS(1, 2), 1, 1)),
                   "tensor 'm.experts.1.fc.weight' is missing");
    expect_refused("[2]", WITH_EXPERTS("{'count':2,'layers':[{'op':'linear','name':'fc'}]}"),
                   TENSORS(STORED("m.experts.0.fc.weight", DIMS(1, 2), 1, 1),
                           STORED("m.experts.1.fc.weight", DIMS(2, 2), 1, 1, 1, 1)),
                   "expert 1 gives [2], expert 0 gives [1]");
}
END_TEST

TEST_MAIN("experts", each_item_goes_to_its_expert, experts_without_items_do_nothing,
          one_expert_gets_all_and_others_some, all_experts_get_all, experts_may_differ_inside,
          experts_that_convolve_on_several_threads, an_expert_is_shared_by_threads,
          what_does_not_fit_is_refused)
