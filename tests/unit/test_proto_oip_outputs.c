/* oip_outputs: which outputs a model offers, under which names and shapes. */
#include "proto/oip_outputs.h"
#include "test_proto_support.h"

START_TEST(lists_the_models_own_first)
{
    ck_assert_uint_eq(oip_output_count(&digits_model), 5);
    struct oip_output scores = oip_output_at(&digits_model, 0);
    ck_assert(oip_output_is_named(&scores, "scores"));
    ck_assert_int_eq(scores.source, INFER_OUTPUT);
    ck_assert_int_eq(scores.datatype, DATATYPE_FP32);
    ck_assert_uint_eq(scores.rank, 1);
    ck_assert_uint_eq(scores.dims[0], 4);
    ck_assert_uint_eq(scores.elements, 4);
}
END_TEST

START_TEST(lists_the_routing_of_each_layer)
{
    struct oip_output experts = oip_output_at(&digits_model, 1);
    ck_assert(oip_output_is_named(&experts, "routing.moe.experts"));
    ck_assert_int_eq(experts.source, INFER_ROUTING_EXPERTS);
    ck_assert_int_eq(experts.datatype, DATATYPE_INT32);
    ck_assert_uint_eq(experts.rank, 1);
    ck_assert_uint_eq(experts.dims[0], 2);

    struct oip_output weights = oip_output_at(&digits_model, 4);
    ck_assert(oip_output_is_named(&weights, "routing.blocks.1.weights"));
    ck_assert_int_eq(weights.source, INFER_ROUTING_WEIGHTS);
    ck_assert_int_eq(weights.datatype, DATATYPE_FP32);
    ck_assert_uint_eq(weights.index, 1);
    ck_assert_uint_eq(weights.rank, 2); /* it routes two positions of a row */
    ck_assert_uint_eq(weights.dims[0], 2);
    ck_assert_uint_eq(weights.dims[1], 1);
    ck_assert_uint_eq(weights.elements, 2);
}
END_TEST

START_TEST(probabilities_are_there_for_who_asks)
{
    ck_assert_uint_eq(oip_output_end(&digits_model), 7);
    struct oip_output output = oip_output_at(&digits_model, 6);
    ck_assert(oip_output_is_named(&output, "routing.blocks.1.probabilities"));
    ck_assert_int_eq(output.source, INFER_ROUTING_PROBABILITIES);
    ck_assert_int_eq(output.datatype, DATATYPE_FP32);
    ck_assert_uint_eq(output.index, 1);
    ck_assert_uint_eq(output.rank, 2);
    ck_assert_uint_eq(output.dims[0], 2);
    ck_assert_uint_eq(output.dims[1], 3);
    ck_assert_uint_eq(output.elements, 6);
}
END_TEST

START_TEST(finds_what_a_request_names)
{
    for (size_t i = 0; i < oip_output_end(&digits_model); i++) {
        struct oip_output offered = oip_output_at(&digits_model, i);
        struct oip_output found =
            oip_output_of(&digits_model,
                          &(struct infer_output){.source = offered.source, .index = offered.index});
        ck_assert_int_eq(found.source, offered.source);
        ck_assert_uint_eq(found.index, offered.index);
        ck_assert_str_eq(found.name[1], offered.name[1]);
        ck_assert_str_eq(found.name[2], offered.name[2]);
    }
}
END_TEST

START_TEST(names_match_whole)
{
    struct oip_output output = oip_output_at(&digits_model, 1);
    const char *const others[] = {"",
                                  "moe",
                                  "routing.moe",
                                  "routing.moe.expert",
                                  "routing.moe.experts2",
                                  "routing.moe.weights",
                                  "Routing.moe.experts",
                                  "routing.mo.experts"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        ck_assert_msg(!oip_output_is_named(&output, others[i]), "%s", others[i]);
}
END_TEST

START_TEST(appends_shapes)
{
    struct buffer body;
    buffer_init(&body, 1 << 10);
    oip_append_shape(&body, "-1", (const size_t[]){2, 3}, 2);
    oip_append_shape(&body, NULL, (const size_t[]){2, 3}, 2);
    oip_append_shape(&body, "5", NULL, 0);
    oip_append_shape(&body, NULL, NULL, 0);
    buffer_append(&body, "", 1);
    ck_assert_str_eq(body.data, "[-1,2,3][2,3][5][]");
    buffer_close(&body);
}
END_TEST

RUN_TESTS("proto/oip_outputs", lists_the_models_own_first, lists_the_routing_of_each_layer,
          probabilities_are_there_for_who_asks, finds_what_a_request_names, names_match_whole,
          appends_shapes)
