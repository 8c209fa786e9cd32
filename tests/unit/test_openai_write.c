/* openai writers: answers, events, log probabilities, routing and errors, byte for byte; whatever
 * the numbers and the text, they are JSON. */
#include <jansson.h>
#include <math.h>
#include <unistd.h>

#include "proto/base64.h"
#include "proto/openai.h"
#include "support.h"

static const struct openai_answer COMPLETION = {.id = "cmpl-1", .model = "tiny", .created = 17};
static const struct openai_answer CHAT = {
    .id = "chatcmpl-1", .model = "tiny", .created = 17, .chat = true};
static const struct openai_usage USAGE = {
    .prompt_tokens = 3, .completion_tokens = 2, .cached_tokens = 1};

/* Compares, with ' for ", and closes. */
static void expect_body(struct buffer *body, const char *expected)
{
    ck_assert(!body->failed);
    buffer_append(body, "", 1);
    for (char *c = body->data; *c; c++)
        *c = *c == '"' ? '\'' : *c;
    ck_assert_str_eq(body->data, expected);
    buffer_close(body);
}

static struct buffer new_body(void)
{
    struct buffer body;
    buffer_init(&body, 1 << 20);
    return body;
}

/* ---- base64 ---- */

START_TEST(base64_is_that_of_the_rfc)
{
    static const char *const cases[][2] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xFB\xFF\xBF", "+/+/"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct buffer body = new_body();
        base64_append(&body, cases[i][0], strlen(cases[i][0]));
        expect_body(&body, cases[i][1]);
    }
}
END_TEST

/* ---- answers ---- */

START_TEST(a_completion_has_choices_and_usage)
{
    struct openai_choice choices[] = {
        {.index = 0, .text = "a\0\"b", .length = 4, .finish = OPENAI_STOP},
        {.index = 1, .text = NULL, .finish = OPENAI_LENGTH},
    };
    struct buffer body = new_body();
    openai_write_answer(&COMPLETION, choices, 2, &USAGE, &body);
    expect_body(&body,
                "{'id':'cmpl-1','object':'text_completion','created':17,'model':'tiny','choices':["
                "{'index':0,'text':'a\\u0000\\'b','logprobs':null,'finish_reason':'stop'},"
                "{'index':1,'text':'','logprobs':null,'finish_reason':'length'}],'usage':{"
                "'prompt_tokens':3,'completion_tokens':2,'total_tokens':5,"
                "'prompt_tokens_details':{'cached_tokens':1}}}");
}
END_TEST

START_TEST(a_chat_has_a_message)
{
    struct openai_choice choice = {.text = "hi", .length = 2, .finish = OPENAI_STOP};
    struct buffer body = new_body();
    openai_write_answer(&CHAT, &choice, 1, &USAGE, &body);
    expect_body(&body, "{'id':'chatcmpl-1','object':'chat.completion','created':17,'model':'tiny',"
                       "'choices':[{'index':0,'message':{'role':'assistant','content':'hi',"
                       "'refusal':null},'logprobs':null,'finish_reason':'stop'}],'usage':{"
                       "'prompt_tokens':3,'completion_tokens':2,'total_tokens':5,"
                       "'prompt_tokens_details':{'cached_tokens':1}}}");
}
END_TEST

#define CHAT_HEAD                                                                                  \
    "data: {'id':'chatcmpl-1','object':'chat.completion.chunk','created':17,'model':'tiny',"       \
    "'choices':["

START_TEST(a_stream_has_deltas_usage_and_an_end)
{
    struct openai_choice choice = {0};
    struct buffer body = new_body();
    openai_write_chunk(&CHAT, &choice, true, true, &body);
    choice.text = "hi";
    choice.length = 2;
    openai_write_chunk(&CHAT, &choice, false, false, &body);
    choice.length = 0;
    choice.finish = OPENAI_LENGTH;
    openai_write_chunk(&CHAT, &choice, false, false, &body);
    openai_write_usage_chunk(&CHAT, &USAGE, &body);
    openai_write_done(&body);
    expect_body(&body, CHAT_HEAD
                "{'index':0,'delta':{'role':'assistant','content':''},'logprobs':null,"
                "'finish_reason':null}],'usage':null}\n\n" CHAT_HEAD
                "{'index':0,'delta':{'content':'hi'},'logprobs':null,'finish_reason':null}]}"
                "\n\n" CHAT_HEAD
                "{'index':0,'delta':{},'logprobs':null,'finish_reason':'length'}]}\n\n" CHAT_HEAD
                "],'usage':{'prompt_tokens':3,'completion_tokens':2,'total_tokens':5,"
                "'prompt_tokens_details':{'cached_tokens':1}}}\n\ndata: [DONE]\n\n");
}
END_TEST

START_TEST(completions_stream_text)
{
    struct openai_choice choice = {.index = 1, .text = "x", .length = 1};
    struct buffer body = new_body();
    openai_write_chunk(&COMPLETION, &choice, true, false, &body);
    expect_body(&body, "data: {'id':'cmpl-1','object':'text_completion','created':17,"
                       "'model':'tiny','choices':[{'index':1,'text':'x','logprobs':null,"
                       "'finish_reason':null}]}\n\n");
}
END_TEST

/* ---- log probabilities ---- */

static struct language *load_language(void)
{
    struct error err = ERROR_INIT;
    char *directory = new_directory(), to[PATH_MAX];
    snprintf(to, sizeof to, "%s/tokenizer.json", directory);
    ck_assert_int_eq(symlink(MOED_TEST_DATA "/data/text/llama3.json", to), 0);
    struct language *language = language_load(directory, &err);
    ck_assert_msg(language != NULL, "%s", err.text);
    free(directory);
    return language;
}

/* 64 is "a"; 158 is the byte E2 (tests/data/text/llama3.json). */
static const struct sampler_choice TOKENS[] = {
    {.token = 64, .logprob = NAN},
    {.token = 158, .logprob = -0.5f, .top_count = 2, .top = {{158, -0.5f}, {64, -INFINITY}}},
    {.token = 64, .logprob = -INFINITY, .top_count = 1, .top = {{64, -1.25f}}},
};

static void expect_logprobs(struct openai_answer answer, const struct language *language,
                            const char *expected)
{
    struct buffer body = new_body();
    struct openai_choice choice = {.logprobs = true,
                                   .tokens = TOKENS,
                                   .token_count = 3,
                                   .text_offsets = language ? (const int32_t[]){10, 11, 11} : NULL};
    answer.language = language;
    openai_write_chunk(&answer, &choice, false, false, &body);
    buffer_append(&body, "", 1);
    char *found = strstr(body.data, "\"logprobs\":");
    char *end = strstr(body.data, ",\"finish_reason\"");
    ck_assert(found && end && found < end);
    struct buffer part = new_body();
    buffer_append(&part, found, (size_t)(end - found));
    expect_body(&part, expected);
    buffer_close(&body);
}

START_TEST(log_probabilities_have_two_shapes)
{
    struct language *language = load_language();
    expect_logprobs(COMPLETION, language,
                    "'logprobs':{'tokens':['a','bytes:\\\\xe2','a'],'text_offset':[10,11,11],"
                    "'token_logprobs':[null,-0.5,-9999.0],'top_logprobs':[null,"
                    "{'bytes:\\\\xe2':-0.5,'a':-9999.0},{'a':-1.25}]}");
    expect_logprobs(CHAT, language,
                    "'logprobs':{'content':[{'token':'a','logprob':null,'bytes':[97],"
                    "'top_logprobs':[]},{'token':'\xEF\xBF\xBD','logprob':-0.5,'bytes':[226],"
                    "'top_logprobs':[{'token':'\xEF\xBF\xBD','logprob':-0.5,'bytes':[226]},"
                    "{'token':'a','logprob':-9999.0,'bytes':[97]}]},{'token':'a',"
                    "'logprob':-9999.0,'bytes':[97],'top_logprobs':[{'token':'a',"
                    "'logprob':-1.25,'bytes':[97]}]}],'refusal':null}");
    language_free(language);
}
END_TEST

START_TEST(tokens_without_text_have_numbers)
{
    expect_logprobs(COMPLETION, NULL,
                    "'logprobs':{'tokens':['token_id:64','token_id:158','token_id:64'],"
                    "'text_offset':[0,0,0],'token_logprobs':[null,-0.5,-9999.0],"
                    "'top_logprobs':[null,{'token_id:158':-0.5,'token_id:64':-9999.0},"
                    "{'token_id:64':-1.25}]}");
    struct openai_choice choice = {.token_ids = (const int32_t[]){5, 6},
                                   .token_count = 2,
                                   .logprobs = true,
                                   .tokens =
                                       (const struct sampler_choice[]){{.token = 5}, {.token = 6}}};
    struct buffer body = new_body();
    openai_write_chunk(&COMPLETION, &choice, false, false, &body);
    buffer_append(&body, "", 1);
    ck_assert_ptr_nonnull(strstr(body.data, "],\"top_logprobs\":null}"));
    ck_assert_ptr_nonnull(strstr(body.data, "\"finish_reason\":null,\"token_ids\":[5,6]}"));
    buffer_close(&body);
}
END_TEST

/* ---- routing ---- */

static const struct openai_routing_layer LAYERS[] = {
    {"a", 2, (const int32_t[]){1, 0, 2, 3}, (const float[]){0.75f, 0.25f, 0.5f, 0.5f}},
    {"b", 1, (const int32_t[]){7, 6}, (const float[]){1, NAN}},
};

static void expect_routing(enum openai_routing_form form, const char *expected)
{
    struct openai_routing routing = {form, 2, LAYERS, 2};
    struct openai_choice choice = {.routing = &routing};
    struct buffer body = new_body();
    openai_write_chunk(&COMPLETION, &choice, false, false, &body);
    buffer_append(&body, "", 1);
    struct buffer part = new_body();
    const char *const key = form == OPENAI_ROUTING_SGLANG ? "\"sgl_ext\":"
                            : form == OPENAI_ROUTING_NPY  ? "\"routed_experts\":"
                                                          : "\"routing\":";
    char *found = strstr(body.data, key);
    ck_assert_ptr_nonnull(found);
    buffer_text(&part, found);
    expect_body(&part, expected);
    buffer_close(&body);
}

START_TEST(routing_is_lists_or_arrays)
{
    expect_routing(OPENAI_ROUTING_LISTS,
                   "'routing':{'layers':[{'name':'a','experts':[[1,0],[2,3]],"
                   "'weights':[[0.75,0.25],[0.5,0.5]]},{'name':'b','experts':[[7],[6]],"
                   "'weights':[[1.0],[null]]}]}}]}\n\n");
    /* struct.pack("<8i", 1, 0, 7, -1, 2, 3, 6, -1) and floats likewise */
    expect_routing(OPENAI_ROUTING_BASE64,
                   "'routing':{'layers':[{'name':'a'},{'name':'b'}],'shape':[2,2,2],'experts':"
                   "'AQAAAAAAAAAHAAAA/////wIAAAADAAAABgAAAP////8=','weights':"
                   "'AABAPwAAgD4AAIA/AAAAAAAAAD8AAAA/AADAfwAAAAA='}}]}\n\n");
}
END_TEST

/* What numpy.save() writes of [[[1, 0], [7, -1]], [[2, 3], [6, -1]]], and the array alone. */
START_TEST(routing_as_other_clients_read_it)
{
    expect_routing(
        OPENAI_ROUTING_SGLANG,
        "'sgl_ext':{'routed_experts':'AQAAAAAAAAAHAAAA/////wIAAAADAAAABgAAAP////8='}}]}\n\n");
    expect_routing(OPENAI_ROUTING_NPY,
                   "'routed_experts':'"
                   "k05VTVBZAQB2AHsnZGVzY3InOiAnPGk0JywgJ2ZvcnRyYW5fb3JkZXInOiBGYWxzZSwg"
                   "J3NoYXBlJzogKDIsIDIsIDIpLCB9ICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg"
                   "ICAgICAgICAgICAgICAgICAgICAgICAgIAoBAAAAAAAAAAcAAAD/////AgAAAAMAAAAG"
                   "AAAA/////w=="
                   "'}]}\n\n");
}
END_TEST

/* ---- other documents ---- */

START_TEST(embeddings_are_lists_or_base64)
{
    struct openai_vectors vectors = {(const float[]){1, -0.5f, 0.25f, 2}, 2, 2, false};
    struct buffer body = new_body();
    openai_write_embeddings("m", &vectors, 9, &body);
    expect_body(&body,
                "{'object':'list','data':[{'object':'embedding','index':0,'embedding':[1.0,-0.5]},"
                "{'object':'embedding','index':1,'embedding':[0.25,2.0]}],'model':'m',"
                "'usage':{'prompt_tokens':9,'total_tokens':9}}");
    vectors.base64 = true;
    vectors.count = 1;
    body = new_body();
    openai_write_embeddings("m", &vectors, 9, &body);
    expect_body(&body, "{'object':'list','data':[{'object':'embedding','index':0,'embedding':"
                       "'AACAPwAAAL8='}],'model':'m',"
                       "'usage':{'prompt_tokens':9,'total_tokens':9}}");
}
END_TEST

START_TEST(small_documents)
{
    struct buffer body = new_body();
    openai_write_tokens((const int32_t[]){1, 22}, 2, &body);
    openai_write_tokens(NULL, 0, &body);
    openai_write_content("a\n", 2, &body);
    openai_write_prompt("", 0, &body);
    expect_body(&body, "{'tokens':[1,22]}{'tokens':[]}{'content':'a\\n'}{'prompt':''}");
    body = new_body();
    openai_write_models((const struct openai_model[]){{"a", 5, 0, false, false, false},
                                                      {"b", 6, 2048, true, true, false},
                                                      {"c", 7, 512, false, false, true}},
                        3, &body);
    expect_body(&body,
                "{'object':'list','data':[{'id':'a','object':'model','created':5,"
                "'owned_by':'moed'},{'id':'b','object':'model','created':6,"
                "'owned_by':'moed','max_model_len':2048,'capabilities':['completion','chat']},"
                "{'id':'c','object':'model','created':7,'owned_by':'moed','max_model_len':512,"
                "'capabilities':['embedding']}],'models':['a','b','c']}");
}
END_TEST

static void expect_error(enum error_code error, const char *message, const char *type,
                         const char *param, const char *code)
{
    struct error err = {.code = error};
    struct buffer body = new_body();
    snprintf(err.text, sizeof err.text, "%s", message);
    openai_write_error(&err, &body);
    json_t *tree = json_loadb(body.data, body.length, 0, NULL), *inner;
    inner = json_object_get(tree, "error");
    json_t *wanted = json_pack("{s:s, s:s, s:s?, s:s?}", "message", message, "type", type, "param",
                               param, "code", code);
    ck_assert_msg(json_equal(inner, wanted), "%.*s", (int)body.length, body.data);
    json_decref(wanted);
    json_decref(tree);
    buffer_close(&body);
}

START_TEST(errors_name_kind_and_parameter)
{
    const char *invalid = "invalid_request_error";
    expect_error(ERROR_INVALID, "'top_p' is 2, expected \"less\"", invalid, "top_p", NULL);
    expect_error(ERROR_TOO_LARGE, "'stop_2' '", invalid, "stop_2", NULL);
    expect_error(ERROR_INVALID, "'messages[0].content' is null", invalid, "messages[0].content",
                 NULL);
    expect_error(ERROR_INVALID, "'a b' is none", invalid, NULL, NULL);
    expect_error(ERROR_INVALID, "''", invalid, NULL, NULL);
    expect_error(ERROR_INVALID, "'", invalid, NULL, NULL);
    expect_error(ERROR_INVALID, "'open", invalid, NULL, NULL);
    expect_error(ERROR_CONTEXT, "long", invalid, NULL, "context_length_exceeded");
    expect_error(ERROR_NOT_FOUND, "no model 'x'", invalid, NULL, "model_not_found");
    expect_error(ERROR_OVERLOADED, "full", "rate_limit_error", NULL, "rate_limit_exceeded");
    expect_error(ERROR_INTERNAL, "failed", "server_error", NULL, NULL);
    expect_error(ERROR_UNAVAILABLE, "stopping", "server_error", NULL, NULL);
    expect_error(ERROR_DEADLINE, "late", "timeout", NULL, NULL);
    struct error err = {ERROR_INTERNAL, "x"};
    struct buffer body = new_body();
    openai_write_error_chunk(&err, &body);
    expect_body(&body, "data: {'error':{'message':'x','type':'server_error','param':null,"
                       "'code':null}}\n\n");
}
END_TEST

/* A body that does not fit fails as a whole. */
START_TEST(what_does_not_fit_fails)
{
    struct openai_routing routing = {OPENAI_ROUTING_BASE64, 2, LAYERS, 2};
    struct openai_choice choice = {.text = "hi", .length = 2, .routing = &routing};
    for (size_t limit = 0; limit < 500; limit++) {
        struct buffer body;
        buffer_init(&body, limit);
        openai_write_answer(&CHAT, &choice, 1, &USAGE, &body);
        json_t *tree = body.failed ? NULL : json_loadb(body.data, body.length, 0, NULL);
        ck_assert(body.failed != (tree != NULL));
        json_decref(tree);
        buffer_close(&body);
    }
}
END_TEST

TEST_MAIN("openai_write", base64_is_that_of_the_rfc, a_completion_has_choices_and_usage,
          a_chat_has_a_message, a_stream_has_deltas_usage_and_an_end, completions_stream_text,
          log_probabilities_have_two_shapes, tokens_without_text_have_numbers,
          routing_is_lists_or_arrays, routing_as_other_clients_read_it,
          embeddings_are_lists_or_base64, small_documents, errors_name_kind_and_parameter,
          what_does_not_fit_fails)
