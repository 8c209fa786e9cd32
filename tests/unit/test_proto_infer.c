/* infer: the life of a request. */
#include "test_proto_support.h"

START_TEST(close_frees_and_empties)
{
    struct infer_request request = {
        .id = strdup("7"),
        .inputs = calloc(1, sizeof *request.inputs),
        .outputs = calloc(1, sizeof *request.outputs),
        .output_count = 1,
    };
    infer_request_close(&request);
    ck_assert_ptr_null(request.id);
    ck_assert_ptr_null(request.inputs);
    ck_assert_uint_eq(request.output_count, 0);
    infer_request_close(&request); /* harmless, as on every path that closes twice */
}
END_TEST

RUN_TESTS("proto/infer", close_frees_and_empties)
