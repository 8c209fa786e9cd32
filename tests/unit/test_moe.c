/* The MoE layer as a whole: y = sum of weight * expert(x), what it reports, what it costs. */
#include "core/gate_counts.h"
#include "support.h"

struct result {
    float y[16];
    int32_t expert[16];
    float weight[16];
    uint64_t selected[4];
};

/* Runs one forward pass and returns the routing of MoE layer `layer`. */
static struct result run_routed(const struct moed_model *model, size_t layer, size_t rows,
                                const float *x)
{
    struct error err = ERROR_INIT;
    struct result result = {.y = {0}};
    struct moed_scratch *scratch = new_scratch(model, rows, 1, &err);
    ck_assert_ptr_nonnull(scratch);
    forward_rows(model, scratch, NULL, rows, x, result.y);
    const struct moed_routing *routing = moed_routing(scratch, layer);
    ck_assert_uint_eq(routing->items, rows);
    memcpy(result.expert, routing->expert, rows * routing->top_k * sizeof(int32_t));
    memcpy(result.weight, routing->weight, rows * routing->top_k * sizeof(float));
    struct moed_gate_counts *counts = moed_gate_counts_new(routing->experts);
    moed_gate_counts_count(counts, routing, 0, rows, 1);
    for (size_t e = 0; e < routing->experts; e++)
        result.selected[e] = counts->expert[e].selected;
    moed_gate_counts_free(counts);
    moed_scratch_free(scratch);
    return result;
}

/* Experts on rows of two: identity, swap, and the sum in both places. */
static const struct stored three_experts[] = {
    STORED("m.gate.g.weight", DIMS(3, 2), 1, 0, 0, 1, 0.5f, 0.5f),
    STORED("m.experts.0.fc.weight", DIMS(2, 2), 1, 0, 0, 1),
    STORED("m.experts.1.fc.weight", DIMS(2, 2), 0, 1, 1, 0),
    STORED("m.experts.2.fc.weight", DIMS(2, 2), 1, 1, 1, 1),
};

static struct moed_model *load_three(const char *gate_options)
{
    char layers[512];
    snprintf(layers, sizeof layers,
             "[{'op':'moe','name':'m','gate':{'layers':[{'op':'linear','name':'g'}]%s},"
             "'experts':{'count':3,'layers':[{'op':'linear','name':'fc'}]}}]",
             gate_options);
    return load_layers("[2]", layers, three_experts, 4);
}

START_TEST(weighted_sum_of_the_chosen_experts)
{
    /* (4, 1): logits 4, 1, 2.5 -> 4 * (4, 1) + 2.5 * (5, 5); (0, 2): 0, 2, 1 -> 2 * (2, 0) + (2, 2)
     */
    struct moed_model *model = load_three(",'score':'none','top_k':2");
    const struct result result = run_routed(model, 0, 2, FLOATS(4, 1, 0, 2));
    expect_close(result.y, FLOATS(28.5f, 16.5f, 6, 2), 4);
    expect_close(result.weight, FLOATS(4, 2.5f, 2, 1), 4);
    ck_assert_mem_eq(result.expert, ((int32_t[]){0, 2, 1, 2}), 4 * sizeof(int32_t));
    ck_assert_uint_eq(result.selected[0], 1);
    ck_assert_uint_eq(result.selected[1], 1);
    ck_assert_uint_eq(result.selected[2], 2);
    moed_model_free(model);
}
END_TEST

START_TEST(dense_when_top_k_is_left_out)
{
    struct moed_model *model = load_three(",'score':'none'");
    ck_assert_uint_eq(moed_model_info(model)->gates[0].top_k, 3);
    /* logits 2, 0, 1: 2 * (2, 0) + 1 * (2, 2) + 0 * (0, 2) */
    const struct result result = run_routed(model, 0, 1, FLOATS(2, 0));
    expect_close(result.y, FLOATS(6, 2), 2);
    ck_assert_mem_eq(result.expert, ((int32_t[]){0, 2, 1}), 3 * sizeof(int32_t));
    moed_model_free(model);
}
END_TEST

START_TEST(a_mixture_of_probabilities_is_one)
{
    struct moed_model *model = load_layers(
        "[2]",
        "[{'op':'moe','name':'m','gate':{'layers':[{'op':'linear','name':'g'}]},"
        "'experts':{'count':3,'layers':[{'op':'linear','name':'fc'},{'op':'softmax'}]}}]",
        three_experts, 4);
    const struct result result = run_routed(model, 0, 3, FLOATS(1, 2, -3, 0.5f, 9, 9));
    for (size_t row = 0; row < 3; row++)
        ck_assert_float_eq_tol(result.y[2 * row] + result.y[2 * row + 1], 1, 1e-6f);
    moed_model_free(model);
}
END_TEST

START_TEST(select_bias_and_scale_come_from_the_checkpoint)
{
    struct stored tensors[5];
    memcpy(tensors, three_experts, sizeof three_experts);
    tensors[4] = (struct stored)STORED("m.gate.select_bias", DIMS(3), 0, 100, 0);
    struct moed_model *model = load_layers(
        "[2]",
        "[{'op':'moe','name':'m','gate':{'layers':[{'op':'linear','name':'g'}],'score':'none',"
        "'top_k':1,'scale':-2},'experts':{'count':3,'layers':[{'op':'linear','name':'fc'}]}}]",
        tensors, 5);
    const struct result result = run_routed(model, 0, 1, FLOATS(4, 1));
    ck_assert_int_eq(result.expert[0], 1);
    expect_close(result.y, FLOATS(-2, -8), 2);
    moed_model_free(model);
    expect_refused("[2]",
                   "[{'op':'moe','name':'m','gate':{'layers':[{'op':'flatten'}]},"
                   "'experts':{'count':2,'layers':[{'op':'relu'}]}}]",
                   TENSORS(STORED("m.gate.select_bias", DIMS(1), 0)),
                   "tensor 'm.gate.select_bias' has shape [1], expected [2]");
}
END_TEST

START_TEST(layers_are_routed_each_by_its_own_gate)
{
    struct moed_model *model = load_layers(
        "[2]",
        "[{'op':'moe','name':'first','gate':{'layers':[{'op':'flatten'}],'top_k':1,"
        "'normalize':'sum'},'experts':{'count':2,'layers':[{'op':'linear','name':'fc'}]}},"
        "{'op':'moe','name':'second','gate':{'layers':[{'op':'flatten'}],'top_k':1,"
        "'normalize':'sum'},'experts':{'count':2,'layers':[{'op':'scale','value':3}]}}]",
        TENSORS(STORED("first.experts.0.fc.weight", DIMS(2, 2), 0, 1, 1, 0),
                STORED("first.experts.1.fc.weight", DIMS(2, 2), 1, 0, 0, 1)));
    ck_assert_uint_eq(moed_model_info(model)->gate_count, 2);
    ck_assert_str_eq(moed_model_info(model)->gates[0].name, "first");
    /* (5, 1) chooses 0, is swapped to (1, 5), chooses 1 */
    const struct result first = run_routed(model, 0, 1, FLOATS(5, 1));
    const struct result second = run_routed(model, 1, 1, FLOATS(5, 1));
    ck_assert_int_eq(first.expert[0], 0);
    ck_assert_int_eq(second.expert[0], 1);
    expect_close(first.y, FLOATS(3, 15), 2);
    moed_model_free(model);
}
END_TEST

/* g = x; q = Wq g; e_i = expert i's `h` of x; k_i = Wk e_i; logits q.k_i / sqrt(2). For x = (1, 2):
 * q = (3, 2); e_0 = (1, 2), k_0 = (1, 4), logit 11/sqrt(2); e_1 = (2, 1), k_1 = (2, 5), logit
 * 16/sqrt(2). */
static const struct stored attentive_tensors[] = {
    STORED("m.gate.query.weight", DIMS(2, 2), 1, 1, 0, 1),
    STORED("m.gate.key.weight", DIMS(2, 2), 1, 0, 2, 1),
    STORED("m.experts.0.h.weight", DIMS(2, 2), 1, 0, 0, 1),
    STORED("m.experts.1.h.weight", DIMS(2, 2), 0, 1, 1, 0),
    STORED("m.experts.0.out.weight", DIMS(1, 2), 1, 2),
    STORED("m.experts.1.out.weight", DIMS(1, 2), 1, 1),
};

static struct moed_model *load_attentive(const char *gate_options)
{
    char layers[512];
    snprintf(layers, sizeof layers,
             "[{'op':'moe','name':'m','gate':{'kind':'attentive','key_layer':'h',"
             "'layers':[{'op':'flatten'}],%s},'experts':{'count':2,'layers':["
             "{'op':'linear','name':'h'},{'op':'relu'},{'op':'linear','name':'out'}]}}]",
             gate_options);
    return load_layers("[2]", layers, attentive_tensors, 6);
}

START_TEST(attentive_gates_look_at_the_experts)
{
    struct moed_model *model = load_attentive("'score':'none','top_k':2");
    const struct result result = run_routed(model, 0, 1, FLOATS(1, 2));
    ck_assert_mem_eq(result.expert, ((int32_t[]){1, 0}), 2 * sizeof(int32_t));
    expect_close(result.weight, FLOATS(11.313708f, 7.7781746f), 2);
    expect_close(result.y, FLOATS(11.313708f * 3 + 7.7781746f * 5), 1);
    moed_model_free(model);
}
END_TEST

/* Every expert's first layers run for every item; the rest run only for chosen ones. */
START_TEST(attentive_gates_of_many_rows_and_threads)
{
    struct moed_model *model = load_attentive("'score':'softmax','top_k':1,'normalize':'sum'");
    const float x[] = {1, 2, 2, 1, -3, 1, 1, -3, 0, 0};
    float alone[5], y[5];
    run_forward(model, 1, 5, x, alone);
    ck_assert_float_eq(alone[0], 3);
    for (unsigned threads = 1; threads <= 4; threads++) {
        run_forward(model, threads, 5, x, y);
        ck_assert_mem_eq(y, alone, sizeof y);
    }
    for (size_t row = 0; row < 5; row++) {
        run_forward(model, 1, 1, x + 2 * row, y);
        ck_assert_float_eq(y[0], alone[row]);
    }
    moed_model_free(model);
}
END_TEST

START_TEST(the_key_may_be_the_experts_output)
{
    struct moed_model *model =
        load_layers("[2]",
                    "[{'op':'moe','name':'m','gate':{'kind':'attentive','key_layer':'h',"
                    "'layers':[{'op':'flatten'}],'score':'none','top_k':1},"
                    "'experts':{'count':2,'layers':[{'op':'linear','name':'h'}]}}]",
                    attentive_tensors, 4);
    const struct result result = run_routed(model, 0, 1, FLOATS(1, 2));
    expect_close(result.y, FLOATS(11.313708f * 2, 11.313708f), 2);
    moed_model_free(model);
}
END_TEST

START_TEST(what_it_costs)
{
    struct moed_model *model = load_three(",'top_k':2");
    const struct moed_model_info *info = moed_model_info(model);
    ck_assert_uint_eq(info->parameters, 6 + 3 * 4);
    ck_assert_uint_eq(info->active_parameters, 6 + 2 * 4);
    ck_assert_uint_eq(info->macs_per_row, 6 + 2 * 4 + 2 * 2);
    moed_model_free(model);
    model = load_attentive("'top_k':1");
    info = moed_model_info(model);
    ck_assert_uint_eq(info->parameters, 4 + 4 + 2 * 4 + 2 * 2);
    /* query and key, both first layers, one last layer */
    ck_assert_uint_eq(info->active_parameters, 4 + 4 + 2 * 4 + 2);
    /* query 4, two keys 8, two products 4, two first layers 8, one last 2, combining 1 */
    ck_assert_uint_eq(info->macs_per_row, 4 + 8 + 4 + 8 + 2 + 1);
    moed_model_free(model);
}
END_TEST

/* Gates may select more experts, counted twice, than there are. */
START_TEST(what_is_read_whatever_is_selected)
{
    struct moed_model *model = load_model(
        "{'model_type':'moed','format_version':2,'input':{'shape':[2]},'layers':[{'op':'moe',"
        "'name':'m','gates':[{'name':'a','layers':[{'op':'linear','name':'g'}],'top_k':2},"
        "{'name':'b','layers':[{'op':'linear','name':'g'}],'top_k':2}],"
        "'experts':{'count':3,'layers':[{'op':'linear','name':'fc'}]}}]}",
        (struct stored[]){STORED("m.gates.a.g.weight", DIMS(3, 2), 1, 0, 0, 1, 1, 1),
                          STORED("m.gates.b.g.weight", DIMS(3, 2), 1, 0, 0, 1, 1, 1),
                          three_experts[1], three_experts[2], three_experts[3]},
        5);
    const struct moed_model_info *info = moed_model_info(model);
    ck_assert_uint_gt(info->gates[1].expert_bytes, 0);
    ck_assert_uint_eq(info->gates[0].expert_bytes, info->gates[1].expert_bytes);
    ck_assert_uint_eq(info->shared_bytes, info->weight_bytes - 3 * info->gates[0].expert_bytes);
    moed_model_free(model);
}
END_TEST

#define MOE(name, gate, experts)                                                                   \
    "{'op':'moe'" name ",'gate':{'layers':[{'op':'flatten'}]" gate "},"                            \
    "'experts':{'count':2,'layers':[" experts "]}}"

/* Layers over rows of two numbers, and a part of what is wrong with them. */
struct refusal {
    const char *layers, *part;
};

static void expect_all_refused(const struct refusal *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        expect_refused("[2]", cases[i].layers, NO_TENSORS, cases[i].part);
}

START_TEST(keys_that_do_not_fit_are_refused)
{
    static const struct refusal cases[] = {
        {"[" MOE(",'name':'m'", ",'kind':'attentive'", "{'op':'relu'}") "]",
         "gate.key_layer: missing"},
        {"[" MOE(",'name':'m'", ",'kind':'attentive','key_layer':'x'",
                 "{'op':'relu','name':'h'}") "]",
         "gate.key_layer: no expert layer is called 'x'"},
        {"[" MOE(",'name':'m'", ",'kind':'attentive','key_layer':''", "{'op':'relu'}") "]",
         "gate.key_layer: no expert layer is called ''"},
        {"[" MOE(",'name':'m'", ",'kind':'attentive','key_layer':'h'",
                 "{'op':'sum','axis':0,'name':'h'}") "]",
         "expert 0's 'h' gives 1 number, the gate's hidden vector has 2"},
    };
    expect_all_refused(cases, sizeof cases / sizeof *cases);
}
END_TEST

START_TEST(gates_that_do_not_fit_are_refused)
{
    static const struct refusal cases[] = {
        {"[" MOE("", "", "{'op':'relu'}") "]", "layers[0].name: missing"},
        {"[" MOE(",'name':'m'", ",'top_k':0", "{'op':'relu'}") "]",
         "gate.top_k: expected an integer from 1 to 2"},
        {"[" MOE(",'name':'m'", ",'top_k':3", "{'op':'relu'}") "]",
         "gate.top_k: expected an integer from 1 to 2"},
        {"[" MOE(",'name':'m'", ",'score':'max'", "{'op':'relu'}") "]",
         "gate.score: 'max' is not one of softmax, sigmoid, none"},
        {"[" MOE(",'name':'m'", ",'normalize':'l2'", "{'op':'relu'}") "]",
         "gate.normalize: 'l2' is not one of none, sum, softmax"},
        {"[" MOE(",'name':'m'", ",'scale':1e300", "{'op':'relu'}") "]",
         "gate.scale: expected a number that f32 can hold"},
        {"[" MOE(",'name':'m'", ",'noise':1", "{'op':'relu'}") "]", "gate: unknown key 'noise'"},
        {"[" MOE(",'name':'m'", ",'key_layer':'h'", "{'op':'relu'}") "]",
         "gate: unknown key 'key_layer'"},
        {"[" MOE(",'name':'m'", "", "{'op':'relu'}") "," MOE(",'name':'m'", "",
                                                             "{'op':'relu'}") "]",
         "two MoE layers or gates are called 'm'"},
        {"[" MOE(",'name':'m'", "", MOE(",'name':'n'", "", "{'op':'relu'}")) "]",
         "a MoE layer stands among the model's layers"},
    };
    expect_all_refused(cases, sizeof cases / sizeof *cases);
    expect_refused("[3]", "[" MOE(",'name':'m'", "", "{'op':'relu'}") "]", NO_TENSORS,
                   "give [3]; expected [2], one logit per expert");
    expect_refused("[2]",
                   "[{'op':'moe','name':'m','experts':{'count':1,'layers':[{'op':'relu'}]}}]",
                   NO_TENSORS, "layers[0].gate: missing");
}
END_TEST

TEST_MAIN("moe", weighted_sum_of_the_chosen_experts, dense_when_top_k_is_left_out,
          a_mixture_of_probabilities_is_one, select_bias_and_scale_come_from_the_checkpoint,
          layers_are_routed_each_by_its_own_gate, attentive_gates_look_at_the_experts,
          attentive_gates_of_many_rows_and_threads, the_key_may_be_the_experts_output,
          what_it_costs, what_is_read_whatever_is_selected, gates_that_do_not_fit_are_refused,
          keys_that_do_not_fit_are_refused)
