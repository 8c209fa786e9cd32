/* Layers that read each other's values by name: every value is where its readers look, whatever the
 * rows, the threads and the layers between, and names that lead nowhere are refused. */
#include "core/layers/values.h"
#include "support.h"

/* Of format 3. */
static struct moed_model *load_graph(const char *shape, const char *layers,
                                     const struct stored *tensors, size_t count)
{
    char config[2048];
    snprintf(config, sizeof config,
             "{'model_type':'moed','format_version':3,'input':{'shape':%s},'layers':%s}", shape,
             layers);
    return load_model(config, tensors, count);
}

/* On one to three threads. */
static void expect_graph(const char *shape, const char *layers, size_t rows, const float *x,
                         const float *expected)
{
    struct moed_model *model = load_graph(shape, layers, NO_TENSORS);
    const size_t count = rows * moed_model_info(model)->outputs[0].elements;
    float *y = xmalloc(count * sizeof *y);
    for (unsigned threads = 1; threads <= 3; threads++) {
        run_forward(model, threads, rows, x, y);
        expect_close(y, expected, count);
    }
    free(y);
    moed_model_free(model);
}

START_TEST(values_are_read_by_name)
{
    /* (x + 1) * (2x) + (x + 1) */
    expect_graph("[2]",
                 "[{'op':'add','value':1,'result':'a'},{'op':'scale','value':2,'input':'input'},"
                 "{'op':'multiply','of':['a']},{'op':'add','of':['a']}]",
                 3, FLOATS(1, 2, 3, 4, -1, 0), FLOATS(6, 15, 28, 45, 0, 1));
}
END_TEST

START_TEST(a_named_value_survives_layers_that_work_in_place)
{
    expect_graph("[2]",
                 "[{'op':'scale','value':2,'result':'a'},{'op':'scale','value':3},{'op':'relu'},"
                 "{'op':'add','of':['a','input']},{'op':'cube'}]",
                 1, FLOATS(1, -1), FLOATS(729, -27));
}
END_TEST

START_TEST(the_input_may_be_read_at_any_time)
{
    expect_graph("[2]",
                 "[{'op':'relu'},{'op':'scale','value':0},{'op':'add','of':['input','input']},"
                 "{'op':'multiply','of':['input']}]",
                 2, FLOATS(1, -2, 3, 4), FLOATS(2, 8, 18, 32));
}
END_TEST

START_TEST(concat_puts_the_input_first)
{
    expect_graph("[2]",
                 "[{'op':'scale','value':10,'result':'a'},{'op':'scale','value':-1},"
                 "{'op':'concat','of':['input','a']}]",
                 2, FLOATS(1, 2, 3, 4), FLOATS(-10, -20, 1, 2, 10, 20, -30, -40, 3, 4, 30, 40));
    expect_graph("[2,1]", "[{'op':'scale','value':2},{'op':'concat','of':['input'],'axis':-1}]", 1,
                 FLOATS(1, 2), FLOATS(2, 1, 4, 2));
}
END_TEST

START_TEST(axes_of_size_1_are_repeated)
{
    expect_graph("[2,1]",
                 "[{'op':'transpose','result':'t'},{'op':'add','of':['input']},"
                 "{'op':'multiply','of':['t']}]",
                 2, FLOATS(1, 2, 3, 5), FLOATS(2, 6, 3, 8, 18, 40, 24, 50));
}
END_TEST

START_TEST(values_live_across_layers_that_share_rows_out_themselves)
{
    static const char layers[] =
        "[{'op':'scale','value':2,'result':'a'},"
        "{'op':'moe','name':'m','result':'m','gate':{'layers':[{'op':'flatten'}],'score':'none',"
        "'top_k':1,'normalize':'sum'},'experts':{'count':2,'layers':[{'op':'linear','name':'fc',"
        "'result':'y'},{'op':'relu'},{'op':'add','of':['y']}]}},"
        "{'op':'scale','value':0},{'op':'add','of':['m','a','input']}]";
    struct moed_model *model =
        load_graph("[2]", layers,
                   TENSORS(STORED("m.experts.0.fc.weight", DIMS(2, 2), 1, 0, 0, -1),
                           STORED("m.experts.1.fc.weight", DIMS(2, 2), 0, 1, 1, 0)));
    for (unsigned threads = 1; threads <= 3; threads++) {
        float y[6];
        run_forward(model, threads, 3, FLOATS(3, 1, 1, 3, 2, 2), y);
        expect_close(y, FLOATS(21, -1 + 2, 15, 13, 14, 2 + 4 - 4), 6);
    }
    moed_model_free(model);
}
END_TEST

/* Threads are not at the same layer: one must not write a value where another reads an older one.
 */
START_TEST(threads_do_not_share_the_places_of_values)
{
    enum { ROWS = 48, SIZE = 64, OUT = 1, ROUNDS = 300 };
    struct moed_model *model =
        load_graph("[64]",
                   "[{'op':'cube','result':'a'},{'op':'tanh'},{'op':'sigmoid','result':'b'},"
                   "{'op':'multiply','of':['a','b']},{'op':'sum','axis':0,'result':'c'},"
                   "{'op':'tanh'},{'op':'add','of':['c'],'result':'d'},{'op':'cube'},"
                   "{'op':'add','of':['d']}]",
                   NO_TENSORS);
    float x[ROWS * SIZE], expected[ROWS * OUT], y[ROWS * OUT];
    for (size_t i = 0; i < ROWS * SIZE; i++)
        x[i] = (float)(i * 37 % 101) / 101.0f;
    run_forward(model, 1, ROWS, x, expected);
    struct error err = ERROR_INIT;
    struct moed_scratch *scratch = new_scratch(model, ROWS, 4, &err);
    struct moed_team *team = moed_team_new(4);
    team_fork_from(team, 0);
    for (int round = 0; round < ROUNDS; round++) {
        forward_rows(model, scratch, team, ROWS, x, y);
        ck_assert_mem_eq(y, expected, sizeof y);
    }
    moed_team_free(team);
    moed_scratch_free(scratch);
    moed_model_free(model);
}
END_TEST

/* Lifetimes: [defined, last] of values of `sizes`; places must not overlap while both live. */
static size_t place(const size_t lifetimes[][3], size_t count, struct values *values)
{
    *values = (struct values){.list = xcalloc(count, sizeof *values->list), .count = count};
    for (size_t i = 0; i < count; i++)
        values->list[i] = (struct value){
            .defined = lifetimes[i][0], .last = lifetimes[i][1], .elements = lifetimes[i][2]};
    values_place(values);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++) {
            const struct value *a = &values->list[i], *b = &values->list[j];
            const bool together = a->defined <= b->last && b->defined <= a->last;
            const bool overlap =
                a->place < b->place + b->elements && b->place < a->place + a->elements;
            ck_assert(!together || !overlap);
            ck_assert_uint_le(a->place + a->elements, values->floats);
        }
    return values->floats;
}

START_TEST(values_share_memory_when_they_do_not_live_together)
{
    struct values values;
    /* One after the other, like the shortcuts of a residual network. */
    ck_assert_uint_eq(place((const size_t[][3]){{0, 3, 10}, {4, 7, 10}, {8, 9, 10}}, 3, &values),
                      10);
    values_close(&values);
    /* A value is not written where one lies that the same layer reads. */
    ck_assert_uint_eq(place((const size_t[][3]){{0, 3, 10}, {3, 5, 10}}, 2, &values), 20);
    values_close(&values);
    /* The gap that a short life leaves is used again. */
    ck_assert_uint_eq(
        place((const size_t[][3]){{0, 2, 5}, {1, 9, 7}, {3, 4, 5}, {5, 9, 4}}, 4, &values), 12);
    values_close(&values);
}
END_TEST

START_TEST(random_lifetimes_never_overlap)
{
    unsigned state = 1;
    for (int round = 0; round < 200; round++) {
        size_t lifetimes[40][3];
        for (size_t i = 0; i < 40; i++) {
            state = state * 1103515245 + 12345;
            lifetimes[i][0] = i;
            lifetimes[i][1] = i + 1 + (state >> 16) % 12;
            lifetimes[i][2] = 1 + (state >> 24) % 9;
        }
        struct values values;
        place((const size_t(*)[3])lifetimes, 40, &values);
        values_close(&values);
    }
}
END_TEST

START_TEST(a_plain_list_needs_no_more_scratch_in_format_3)
{
    static const char layers[] = "[{'op':'relu'},{'op':'scale','value':2},{'op':'flatten'}]";
    struct moed_model *old = load_layers("[7]", layers, NO_TENSORS);
    struct moed_model *new = load_graph("[7]", layers, NO_TENSORS);
    ck_assert_uint_eq(moed_model_info(old)->scratch_bytes_per_row,
                      moed_model_info(new)->scratch_bytes_per_row);
    moed_model_free(old);
    moed_model_free(new);
}
END_TEST

/* Lists in lists multiply what they need; the sum must not start again at 0. */
START_TEST(what_is_planned_never_wraps)
{
    const struct plan part = {.most = (size_t)1 << 40};
    struct plan plan = {0};
    plan_part(&plan, &part, (size_t)1 << 30);
    ck_assert_uint_eq(plan.most, PLAN_MOST);
    plan_floats(&plan, SIZE_MAX);
    ck_assert_uint_eq(plan.most, PLAN_MOST);
}
END_TEST

TEST_MAIN("graph", values_are_read_by_name, a_named_value_survives_layers_that_work_in_place,
          the_input_may_be_read_at_any_time, concat_puts_the_input_first,
          axes_of_size_1_are_repeated, values_live_across_layers_that_share_rows_out_themselves,
          threads_do_not_share_the_places_of_values,
          values_share_memory_when_they_do_not_live_together, random_lifetimes_never_overlap,
          a_plain_list_needs_no_more_scratch_in_format_3, what_is_planned_never_wraps)
