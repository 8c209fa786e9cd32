/* oip_documents: server metadata, model metadata, model configuration, byte for byte. */
#include "proto/oip.h"
#include "test_proto_support.h"

static void check_body(struct buffer *body, const char *expected)
{
    buffer_append(body, "", 1);
    ck_assert_str_eq(body->data, expected);
    buffer_close(body);
}

START_TEST(server_metadata)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    oip_server_metadata("1.2.3", &body);
    check_body(&body,
               "{\"name\":\"moed\",\"version\":\"1.2.3\","
               "\"extensions\":[\"binary_tensor_data\",\"classification\",\"model_"
               "configuration\",\"model_repository\",\"statistics\",\"logging\",\"trace\"]}");
}
END_TEST

START_TEST(model_metadata)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    oip_model_metadata(&digits_model, (const char *const[]){"1", "3"}, 2, &body);
    check_body(
        &body,
        "{\"name\":\"digits\",\"versions\":[\"1\",\"3\"],\"platform\":\"moed\","
        "\"inputs\":[{\"name\":\"image\",\"datatype\":\"FP32\",\"shape\":[-1,1,2,3]}],"
        "\"outputs\":[{\"name\":\"scores\",\"datatype\":\"FP32\",\"shape\":[-1,4],"
        "\"parameters\":{\"labels\":[\"zero\",\"one\",\"two \\\"2\\\"\",\"three\"]}},"
        "{\"name\":\"routing.moe.experts\",\"datatype\":\"INT32\",\"shape\":[-1,2]},"
        "{\"name\":\"routing.moe.weights\",\"datatype\":\"FP32\",\"shape\":[-1,2]},"
        "{\"name\":\"routing.blocks.1.experts\",\"datatype\":\"INT32\",\"shape\":[-1,2,1]},"
        "{\"name\":\"routing.blocks.1.weights\",\"datatype\":\"FP32\",\"shape\":[-1,2,1]}]}");
}
END_TEST

START_TEST(model_metadata_of_several_tensors)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    oip_model_metadata(&pair_model, NULL, 0, &body);
    check_body(&body, "{\"name\":\"pair\",\"versions\":[],\"platform\":\"moed\","
                      "\"inputs\":[{\"name\":\"left\",\"datatype\":\"FP32\",\"shape\":[-1,2]},"
                      "{\"name\":\"right\",\"datatype\":\"FP32\",\"shape\":[-1]}],"
                      "\"outputs\":[{\"name\":\"sum\",\"datatype\":\"FP32\",\"shape\":[-1,1,2]},"
                      "{\"name\":\"flag\",\"datatype\":\"FP32\",\"shape\":[-1]}]}");
}
END_TEST

START_TEST(model_config)
{
    struct buffer body;
    buffer_init(&body, 1 << 16);
    oip_model_config(&digits_model, 64, 250, &body);
    check_body(
        &body,
        "{\"name\":\"digits\",\"platform\":\"moed\",\"backend\":\"moed\","
        "\"max_batch_size\":64,"
        "\"input\":[{\"name\":\"image\",\"data_type\":\"TYPE_FP32\",\"dims\":[1,2,3]}],"
        "\"output\":[{\"name\":\"scores\",\"data_type\":\"TYPE_FP32\",\"dims\":[4]},"
        "{\"name\":\"routing.moe.experts\",\"data_type\":\"TYPE_INT32\",\"dims\":[2]},"
        "{\"name\":\"routing.moe.weights\",\"data_type\":\"TYPE_FP32\",\"dims\":[2]},"
        "{\"name\":\"routing.blocks.1.experts\",\"data_type\":\"TYPE_INT32\",\"dims\":[2,1]},"
        "{\"name\":\"routing.blocks.1.weights\",\"data_type\":\"TYPE_FP32\",\"dims\":[2,1]}],"
        "\"dynamic_batching\":{\"max_queue_delay_microseconds\":250},"
        "\"instance_group\":[{\"name\":\"cpu\",\"kind\":\"KIND_CPU\",\"count\":1}],"
        "\"model_transaction_policy\":{\"decoupled\":false}}");
}
END_TEST

RUN_TESTS("proto/oip_documents", server_metadata, model_metadata, model_metadata_of_several_tensors,
          model_config)
