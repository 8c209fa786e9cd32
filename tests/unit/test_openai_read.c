/* openai readers: every field of a request, what is left out, what is refused and by which name. */
#include <math.h>

#include "core/memory.h"
#include "proto/openai.h"
#include "test_proto_support.h"

/* JSON that uses ' for ", in memory that ends at an unreadable page. */
static struct guarded json_of(const char *text)
{
    struct guarded copy = guarded_text(text);
    for (size_t i = 0; i < copy.length; i++)
        copy.text[i] = copy.text[i] == '\'' ? '"' : copy.text[i];
    return copy;
}

static struct openai_completion completion(const char *text)
{
    struct error err = ERROR_INIT;
    struct openai_completion request;
    struct guarded body = json_of(text);
    ck_assert_msg(openai_read_completion(body.text, body.length, &request, &err) == 0, "%s: %s",
                  text, err.text);
    guarded_free(&body);
    return request;
}

static struct openai_chat chat(const char *text)
{
    struct error err = ERROR_INIT;
    struct openai_chat request;
    struct guarded body = json_of(text);
    ck_assert_msg(openai_read_chat(body.text, body.length, &request, &err) == 0, "%s: %s", text,
                  err.text);
    guarded_free(&body);
    return request;
}

static void expect_variables(const char *text, const char *expected)
{
    struct openai_chat request = chat(text);
    struct guarded wanted = json_of(expected);
    json_t *tree = json_loadb(wanted.text, wanted.length, 0, NULL);
    ck_assert_ptr_nonnull(tree);
    char *found = json_dumps(request.variables, JSON_COMPACT);
    ck_assert_msg(json_equal(request.variables, tree), "%s", found);
    free(found);
    json_decref(tree);
    guarded_free(&wanted);
    openai_chat_close(&request);
}

/* ---- completions ---- */

START_TEST(a_short_completion_has_defaults)
{
    struct openai_completion request = completion("{'prompt':'Once'}");
    const struct openai_generation *generation = &request.generation;
    ck_assert_uint_eq(request.prompts.count, 1);
    ck_assert_str_eq(request.prompts.items[0].text, "Once");
    ck_assert_uint_eq(request.prompts.items[0].length, 4);
    ck_assert(!request.echo && !generation->stream && !generation->include_usage);
    ck_assert(!generation->logprobs && !generation->ignore_eos && !generation->sampling.seeded);
    ck_assert_ptr_null(generation->model);
    ck_assert_ptr_null(generation->user);
    ck_assert_uint_eq(generation->max_tokens, SIZE_MAX);
    ck_assert_uint_eq(generation->stop_count, 0);
    ck_assert_int_eq(generation->routing, OPENAI_ROUTING_NONE);
    struct sampler_options recommended = {.temperature = 0.6f,
                                          .top_k = 20,
                                          .top_p = 0.95f,
                                          .min_p = 0.01f,
                                          .repetition_penalty = 1.1f};
    struct sampler_options options =
        openai_sampler_options(&generation->sampling, &recommended, 99);
    ck_assert_float_eq(options.temperature, 0.6f);
    ck_assert_float_eq(options.top_p, 0.95f);
    ck_assert_float_eq(options.min_p, 0.01f);
    ck_assert_float_eq(options.repetition_penalty, 1.1f);
    ck_assert_float_eq(options.frequency_penalty, 0);
    ck_assert_uint_eq(options.top_k, 20);
    ck_assert_uint_eq(options.seed, 99);
    openai_completion_close(&request);
}
END_TEST

START_TEST(a_long_completion_has_everything)
{
    struct openai_completion request = completion(
        "{'model':'tiny','prompt':[[1,2,3],[4]],'max_tokens':0,'temperature':0,'top_p':0.5,"
        "'top_k':7,'min_p':0.25,'repetition_penalty':1.5,'frequency_penalty':-2,"
        "'presence_penalty':2,'seed':-1,'logit_bias':{'50256':-100,'3':2.5},'logprobs':5,"
        "'echo':true,'stop':['a','\\n'],'stream':true,'stream_options':{'include_usage':true},"
        "'user':'u','priority':-3,'routing':'base64','n':1,'best_of':1,'suffix':'','ignore_eos':"
        "true,"
        "'store':true,'metadata':{'a':'b'}}");
    const struct openai_generation *generation = &request.generation;
    ck_assert_str_eq(generation->model, "tiny");
    ck_assert_uint_eq(request.prompts.count, 2);
    ck_assert_ptr_null(request.prompts.items[0].text);
    ck_assert_uint_eq(request.prompts.items[0].count, 3);
    ck_assert_int_eq(request.prompts.items[0].ids[2], 3);
    ck_assert_int_eq(request.prompts.items[1].ids[0], 4);
    ck_assert(request.echo && generation->stream && generation->include_usage);
    ck_assert(generation->logprobs && generation->ignore_eos && generation->priority == -3);
    ck_assert_uint_eq(generation->top_logprobs, 5);
    ck_assert_uint_eq(generation->max_tokens, 0);
    ck_assert_uint_eq(generation->stop_count, 2);
    ck_assert_str_eq(generation->stops[1], "\n");
    ck_assert_str_eq(generation->user, "u");
    ck_assert_int_eq(generation->routing, OPENAI_ROUTING_BASE64);
    struct sampler_options options =
        openai_sampler_options(&generation->sampling, &SAMPLER_DEFAULTS, 99);
    ck_assert_float_eq(options.temperature, 0);
    ck_assert_float_eq(options.top_p, 0.5f);
    ck_assert_float_eq(options.min_p, 0.25f);
    ck_assert_float_eq(options.repetition_penalty, 1.5f);
    ck_assert_float_eq(options.frequency_penalty, -2);
    ck_assert_float_eq(options.presence_penalty, 2);
    ck_assert_uint_eq(options.top_k, 7);
    ck_assert_uint_eq(options.seed, UINT64_MAX);
    ck_assert_uint_eq(options.bias_count, 2);
    ck_assert_int_eq(options.biases[0].token, 50256);
    ck_assert_float_eq(options.biases[1].bias, 2.5f);
    openai_completion_close(&request);
}
END_TEST

START_TEST(null_counts_as_absent)
{
    struct openai_completion request = completion(
        "{'model':null,'prompt':['a','b'],'max_tokens':null,'temperature':null,'top_p':null,"
        "'top_k':null,'seed':null,'logit_bias':null,'logprobs':null,'echo':null,'stop':null,"
        "'stream':null,'stream_options':null,'user':null,'priority':null,'routing':null,'n':null,'"
        "suffix':null,"
        "'response_format':null,'tools':null}");
    ck_assert_uint_eq(request.prompts.count, 2);
    ck_assert_str_eq(request.prompts.items[1].text, "b");
    ck_assert_uint_eq(request.generation.max_tokens, SIZE_MAX);
    ck_assert(!request.generation.logprobs);
    openai_completion_close(&request);
}
END_TEST

START_TEST(prompts_have_four_forms)
{
    struct openai_completion request = completion("{'prompt':[5,6]}");
    ck_assert_uint_eq(request.prompts.count, 1);
    ck_assert_uint_eq(request.prompts.items[0].count, 2);
    ck_assert_int_eq(request.prompts.items[0].ids[1], 6);
    openai_completion_close(&request);
    request = completion("{'prompt':''}");
    ck_assert_ptr_nonnull(request.prompts.items[0].text);
    ck_assert_uint_eq(request.prompts.items[0].length, 0);
    openai_completion_close(&request);
}
END_TEST

/* Values that many clients send for what they do not want. */
START_TEST(what_asks_for_nothing_is_no_obstacle)
{
    struct openai_completion request = completion(
        "{'prompt':'a','n':1,'response_format':{'type':'text'},'min_tokens':0,'top_k':-1,"
        "'stop_token_ids':[],'length_penalty':1.0,'stop':[],'logit_bias':{},'mirostat':0,"
        "'grammar':'','use_beam_search':false,'typical_p':0}");
    ck_assert_uint_eq(request.generation.sampling.top_k, 0);
    openai_completion_close(&request);
    struct openai_chat other =
        chat("{'messages':[{'role':'user','content':'a'}],'tools':[],'tool_choice':'auto',"
             "'modalities':['text'],'logprobs':false,'top_logprobs':0,'parallel_tool_calls':true,"
             "'service_tier':'auto','verbosity':'medium'}");
    openai_chat_close(&other);
}
END_TEST

/* ---- chats ---- */

START_TEST(messages_become_variables)
{
    expect_variables("{'messages':[{'role':'user','content':'hi'}]}",
                     "{'messages':[{'role':'user','content':'hi'}],'tools':null,'documents':null,"
                     "'add_generation_prompt':true}");
    expect_variables(
        "{'messages':[{'role':'developer','content':[{'type':'text','text':'a'},"
        "{'type':'text','text':'b'}]},{'role':'assistant','content':null,'name':'x',"
        "'reasoning_content':'why','tool_calls':[]}],'add_generation_prompt':false,"
        "'reasoning_effort':'low','chat_template_kwargs':{'enable_thinking':false,'date':'today'}}",
        "{'messages':[{'role':'system','content':'a\\nb'},{'role':'assistant','content':null,"
        "'name':'x','reasoning_content':'why','tool_calls':[]}],'tools':null,'documents':null,"
        "'add_generation_prompt':false,'reasoning_effort':'low','enable_thinking':false,"
        "'date':'today'}");
}
END_TEST

START_TEST(a_chat_has_its_own_names)
{
    struct openai_chat request =
        chat("{'messages':[{'role':'user','content':'hi'}],'max_tokens':3,"
             "'max_completion_tokens':5,'logprobs':true,'top_logprobs':2,'routing':true}");
    ck_assert_uint_eq(request.generation.max_tokens, 5);
    ck_assert(request.generation.logprobs);
    ck_assert_uint_eq(request.generation.top_logprobs, 2);
    ck_assert_int_eq(request.generation.routing, OPENAI_ROUTING_LISTS);
    openai_chat_close(&request);
    request = chat("{'messages':[{'role':'user','content':'hi'}],'max_tokens':3}");
    ck_assert_uint_eq(request.generation.max_tokens, 3);
    openai_chat_close(&request);
}
END_TEST

/* ---- refusals ---- */

enum route { COMPLETION, CHAT, EMBEDDINGS, TOKENIZE, DETOKENIZE };

static int read_route(enum route route, const char *body, size_t length, struct error *err)
{
    struct openai_completion completion;
    struct openai_chat chat;
    struct openai_embeddings embeddings;
    struct openai_text text;
    int result = -1;
    if (route == COMPLETION &&
        (result = openai_read_completion(body, length, &completion, err)) == 0)
        openai_completion_close(&completion);
    if (route == CHAT && (result = openai_read_chat(body, length, &chat, err)) == 0)
        openai_chat_close(&chat);
    if (route == EMBEDDINGS &&
        (result = openai_read_embeddings(body, length, &embeddings, err)) == 0)
        openai_embeddings_close(&embeddings);
    if (route == TOKENIZE && (result = openai_read_tokenize(body, length, &text, err)) == 0)
        openai_text_close(&text);
    if (route == DETOKENIZE && (result = openai_read_detokenize(body, length, &text, err)) == 0)
        openai_text_close(&text);
    return result;
}

#define P  "'prompt':'a'"
#define M1 "'messages':[{'role':'user','content':'a'}"
#define M  M1 "]"

static const struct {
    enum route route;
    const char *body, *message;
} REFUSALS[] = {
    {COMPLETION, "", "the body is empty"},
    {COMPLETION, "{'prompt'", "malformed JSON at byte 9 (line 1, column 10)"},
    {COMPLETION, "[]", "the body is a list, expected a JSON object"},
    {COMPLETION, "{" P "," P "}", "duplicate object key"},
    {COMPLETION, "{}", "'prompt' is missing"},
    {COMPLETION, "{'prompt':5}", "'prompt' is a number, expected a string, a list"},
    {COMPLETION, "{'prompt':[]}", "'prompt' is an empty list"},
    {COMPLETION, "{'prompt':[true]}", "'prompt' is a list of which [0] is a boolean"},
    {COMPLETION, "{'prompt':[1.5]}", "'prompt' is a list of which [0] is a number"},
    {COMPLETION, "{'prompt':['a',1]}", "'prompt' is a list of which [1] is a number"},
    {COMPLETION, "{'prompt':[1,'a']}", "'prompt' has a string among token ids, at [1]"},
    {COMPLETION, "{'prompt':[1,-1]}", "'prompt' has -1, which is no token id, at [1]"},
    {COMPLETION, "{'prompt':[2147483648]}", "'prompt' has 2147483648, which is no token id"},
    {COMPLETION, "{'prompt':[[1],[]]}", "'prompt' is a list of which [1] is empty"},
    {COMPLETION, "{'prompt':[[1],2]}", "'prompt' is a list of which [1] is a number"},
    {COMPLETION, "{'prompt':[[1],[2,'a']]}", "'prompt' has a string among token ids"},
    {COMPLETION, "{" P ",'model':1}", "'model' is a number, expected a string"},
    {COMPLETION, "{" P ",'n':2}", "'n' is not supported, other than 1"},
    {COMPLETION, "{" P ",'best_of':3}", "'best_of' is not supported, other than 1"},
    {COMPLETION, "{" P ",'suffix':'x'}", "'suffix' is not supported"},
    {COMPLETION, "{" P ",'logprobs':21}", "'logprobs' is 21, expected a number from 0 to 20"},
    {COMPLETION, "{" P ",'logprobs':true}", "'logprobs' is a boolean"},
    {COMPLETION, "{" P ",'logprobs':1.5}", "'logprobs' is 1.5, expected a whole number"},
    {COMPLETION, "{" P ",'temperature':2.5}", "'temperature' is 2.5, expected a number from 0"},
    {COMPLETION, "{" P ",'temperature':-0.1}", "'temperature' is -0.1"},
    {COMPLETION, "{" P ",'temperature':'1'}", "'temperature' is a string"},
    {COMPLETION, "{" P ",'top_p':1.1}", "'top_p' is 1.1, expected a number from 0 to 1"},
    {COMPLETION, "{" P ",'top_k':-2}", "'top_k' is -2"},
    {COMPLETION, "{" P ",'top_k':0.5}", "'top_k' is 0.5, expected a whole number"},
    {COMPLETION, "{" P ",'min_p':-1}", "'min_p' is -1"},
    {COMPLETION, "{" P ",'repetition_penalty':0}", "'repetition_penalty' is 0"},
    {COMPLETION, "{" P ",'presence_penalty':3}", "'presence_penalty' is 3"},
    {COMPLETION, "{" P ",'frequency_penalty':-3}", "'frequency_penalty' is -3"},
    {COMPLETION, "{" P ",'seed':1.5}", "'seed' is not whole"},
    {COMPLETION, "{" P ",'seed':'a'}", "'seed' is a string"},
    {COMPLETION, "{" P ",'max_tokens':-1}", "expected a number from 0 to 16777216"},
    {COMPLETION, "{" P ",'max_completion_tokens':-1}", "'max_completion_tokens' is -1"},
    {COMPLETION, "{" P ",'max_tokens':1e9}", "'max_tokens' is 1000000000"},
    {COMPLETION, "{" P ",'logit_bias':[]}", "'logit_bias' is a list"},
    {COMPLETION, "{" P ",'logit_bias':{'a':1}}", "'logit_bias' has the key 'a'"},
    {COMPLETION, "{" P ",'logit_bias':{'-1':1}}", "'logit_bias' has the key '-1'"},
    {COMPLETION, "{" P ",'logit_bias':{'4294967296':1}}", "'logit_bias' has the key"},
    {COMPLETION, "{" P ",'logit_bias':{'1':101}}", "'logit_bias' of token 1 is not a number"},
    {COMPLETION, "{" P ",'logit_bias':{'1':'x'}}", "'logit_bias' of token 1 is not a number"},
    {COMPLETION, "{" P ",'stop':5}", "'stop' is a number"},
    {COMPLETION, "{" P ",'stop':''}", "'stop' has a string of 0 bytes"},
    {COMPLETION, "{" P ",'stop':['a',null]}", "'stop' has null"},
    {COMPLETION,
     "{" P ",'stop':['1','2','3','4','5','6','7','8','9','0','1','2','3','4','5','6','7']}",
     "'stop' has 17 strings, at most 16"},
    {COMPLETION, "{" P ",'stop_token_ids':[1,-1]}", "'stop_token_ids' has at [1] what is no"},
    {COMPLETION, "{" P ",'stream':1}", "'stream' is a number"},
    {COMPLETION, "{" P ",'stream_options':true}", "'stream_options' is a boolean"},
    {COMPLETION, "{" P ",'stream_options':{'include_usage':1}}", "'include_usage' is a number"},
    {COMPLETION, "{" P ",'echo':'yes'}", "'echo' is a string"},
    {COMPLETION, "{" P ",'user':5}", "'user' is a number"},
    {COMPLETION, "{" P ",'priority':0.5}", "'priority' is 0.5, expected a whole number"},
    {COMPLETION, "{" P ",'routing':'json'}", "'routing' is 'json', expected true, false"},
    {COMPLETION, "{" P ",'routing':1}", "'routing' is a number"},
    {COMPLETION, "{" P ",'return_routed_experts':1}", "'return_routed_experts' is a number"},
    {COMPLETION, "{" P ",'routing':true,'return_routed_experts':true}", "the same in two forms"},
    {COMPLETION, "{" P ",'response_format':{'type':'json_object'}}",
     "'response_format' is not supported, other than text"},
    {COMPLETION, "{" P ",'guided_json':{'type':'object'}}", "'guided_json' is not supported"},
    {COMPLETION, "{" P ",'experts':[1]}", "'experts' is a list, expected an object"},
    {CHAT, "{}", "'messages' is missing, expected a list of messages"},
    {CHAT, "{'messages':[]}", "'messages' is empty"},
    {CHAT, "{'messages':'hi'}", "'messages' is a string, expected a list"},
    {CHAT, "{'messages':['hi']}", "'messages' has a string at [0], expected an object"},
    {CHAT, "{'messages':[{'content':'a'}]}", "'messages' has a message without a role at [0]"},
    {CHAT, "{'messages':[{'role':1,'content':'a'}]}", "without a role at [0]"},
    {CHAT, "{'messages':[{'role':'user','content':1}]}", "a number as the content of messages[0]"},
    {CHAT, "{'messages':[{'role':'user','content':[{'type':'x'}]}]}", "type 'x' in messages[0]"},
    {CHAT, "{'messages':[{'role':'user','content':['a']}]}", "part of type '(none)'"},
    {CHAT, "{'messages':[{'role':'user','content':[{'type':'text'}]}]}", "without a string 'text'"},
    {CHAT, "{'messages':[{'role':'x','content':'','tool_calls':[1]}]}", "'tool_calls' is not"},
    {CHAT, "{" M ",'tools':[{'type':'function'}]}", "'tools' is not supported"},
    {CHAT, "{" M ",'tool_choice':'required'}", "'tool_choice' is not supported"},
    {CHAT, "{" M ",'modalities':['text','audio']}", "'modalities' is not supported"},
    {CHAT, "{" M ",'audio':{'voice':'x'}}", "'audio' is not supported"},
    {CHAT, "{" M ",'response_format':{'type':'json_schema','json_schema':{}}}",
     "'response_format' is not supported"},
    {CHAT, "{" M ",'n':2}", "'n' is not supported"},
    {CHAT, "{" M ",'logprobs':5}", "'logprobs' is a number"},
    {CHAT, "{" M ",'top_logprobs':5}", "'top_logprobs' is set, which needs 'logprobs': true"},
    {CHAT, "{" M ",'logprobs':true,'top_logprobs':21}", "'top_logprobs' is 21"},
    {CHAT, "{" M ",'max_tokens':-1}", "'max_tokens' is -1, expected a number from 1 to"},
    {CHAT, "{'messages':[{'role':'user'}]}", "'messages[0].content' is missing, expected a string"},
    {CHAT, "{'messages':[{'role':'system','content':null}]}", "'messages[0].content' is null"},
    {CHAT, "{" M ",'max_completion_tokens':0}", "'max_completion_tokens' is 0"},
    {CHAT, "{" M ",'chat_template':'x'}", "'chat_template' is not supported"},
    {CHAT, "{" M ",'chat_template_kwargs':[]}", "'chat_template_kwargs' is a list"},
    {CHAT, "{" M ",'chat_template_kwargs':{'messages':[]}}",
     "'chat_template_kwargs' must not have 'messages'"},
    {CHAT, "{" M ",'reasoning_effort':1}", "'reasoning_effort' is a number"},
    {EMBEDDINGS, "{}", "'input' is missing"},
    {EMBEDDINGS, "{'input':'a','encoding_format':'int8'}",
     "'encoding_format' is 'int8', expected float or base64"},
    {EMBEDDINGS, "{'input':'a','dimensions':0}", "'dimensions' is 0"},
    {EMBEDDINGS, "{'input':{}}", "'input' is an object"},
    {TOKENIZE, "{}", "'content' is missing"},
    {TOKENIZE, "{'content':['a']}", "'content' is a list, expected a string"},
    {TOKENIZE, "{'content':'a','add_special':1}", "'add_special' is a number"},
    {DETOKENIZE, "{}", "'tokens' is missing"},
    {DETOKENIZE, "{'tokens':'a'}", "'tokens' is a string, expected a list of token ids"},
    {DETOKENIZE, "{'tokens':['a']}", "'tokens' is a list, expected a list of token ids"},
    {DETOKENIZE, "{'tokens':[1,2.5]}", "'tokens' has a number among token ids, at [1]"},
};

START_TEST(refuses_what_it_cannot_do)
{
    struct error err = ERROR_INIT;
    struct guarded body = json_of(REFUSALS[_i].body);
    ck_assert_msg(read_route(REFUSALS[_i].route, body.text, body.length, &err) == -1, "%s was read",
                  REFUSALS[_i].body);
    ck_assert_msg(strstr(err.text, REFUSALS[_i].message) != NULL, "'%s' is not in: %s",
                  REFUSALS[_i].message, err.text);
    guarded_free(&body);
}
END_TEST

/* ---- bounds ---- */

static void expect_too_large(enum route route, const char *head, const char *item, size_t count,
                             const char *tail)
{
    struct error err = ERROR_INIT;
    struct buffer body;
    buffer_init(&body, SIZE_MAX);
    buffer_text(&body, head);
    for (size_t i = 0; i < count; i++)
        buffer_format(&body, i ? ",%s" : "%s", item);
    buffer_text(&body, tail);
    ck_assert_int_eq(read_route(route, body.data, body.length, &err), -1);
    ck_assert_msg(err.code == ERROR_TOO_LARGE, "%s", err.text);
    buffer_close(&body);
}

START_TEST(bodies_are_bounded)
{
    expect_too_large(COMPLETION, "{\"prompt\":[", "\"a\"", OPENAI_MAX_PROMPTS + 1, "]}");
    expect_too_large(EMBEDDINGS, "{\"input\":[", "[1]", OPENAI_MAX_PROMPTS + 1, "]}");
    expect_too_large(COMPLETION, "{\"prompt\":[", "1", 1 << 20, "]}");
    expect_too_large(CHAT, "{\"messages\":[", "{}", 1 << 18, "]}");
    expect_too_large(COMPLETION, "{\"prompt\":\"a\",\"unknown\":[", "[]", 1 << 18, "]}");
    struct buffer biases;
    struct error err = ERROR_INIT;
    buffer_init(&biases, SIZE_MAX);
    buffer_text(&biases, "{\"prompt\":\"a\",\"logit_bias\":{");
    for (int i = 0; i <= SAMPLER_MAX_BIASES; i++)
        buffer_format(&biases, i ? ",\"%d\":1" : "\"%d\":1", i);
    buffer_text(&biases, "}}");
    ck_assert_int_eq(read_route(COMPLETION, biases.data, biases.length, &err), -1);
    ck_assert_int_eq(err.code, ERROR_TOO_LARGE);
    buffer_close(&biases);
}
END_TEST

START_TEST(a_context_of_ids_fits)
{
    struct error err = ERROR_INIT;
    struct openai_completion request;
    struct buffer body;
    buffer_init(&body, SIZE_MAX);
    buffer_text(&body, "{\"prompt\":[");
    for (int i = 0; i < 1 << 17; i++)
        buffer_format(&body, i ? ",%d" : "%d", i);
    buffer_text(&body, "]}");
    ck_assert_msg(openai_read_completion(body.data, body.length, &request, &err) == 0, "%s",
                  err.text);
    ck_assert_uint_eq(request.prompts.items[0].count, 1 << 17);
    ck_assert_int_eq(openai_check_ids(&request.prompts, "prompt", 1 << 17, &err), 0);
    ck_assert_int_eq(openai_check_ids(&request.prompts, "prompt", 100000, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "'prompt' has the token 100000, which is not in "));
    openai_completion_close(&request);
    buffer_close(&body);
}
END_TEST

START_TEST(tokens_are_checked_against_the_vocabulary)
{
    struct error bias = ERROR_INIT, stop = ERROR_INIT;
    struct openai_completion request =
        completion("{'prompt':'a','logit_bias':{'9':1,'99':-1},'stop_token_ids':[3,7]}");
    ck_assert_int_eq(openai_check_tokens(&request.generation, 100, &bias), 0);
    ck_assert_int_eq(openai_check_tokens(&request.generation, 99, &bias), -1);
    ck_assert_msg(strstr(bias.text, "'logit_bias' has the token 99") != NULL, "%s", bias.text);
    ck_assert_int_eq(openai_check_tokens(&request.generation, 7, &stop), -1);
    ck_assert_msg(strstr(stop.text, "'stop_token_ids' has 7") != NULL, "%s", stop.text);
    openai_completion_close(&request);
}
END_TEST

/* ---- other routes ---- */

START_TEST(embeddings_and_texts_are_read)
{
    struct error err = ERROR_INIT;
    struct openai_embeddings embeddings;
    struct openai_text text;
    struct guarded body = json_of("{'model':'m','input':['a','bc'],'encoding_format':'base64',"
                                  "'dimensions':64,'user':'me'}");
    ck_assert_int_eq(openai_read_embeddings(body.text, body.length, &embeddings, &err), 0);
    ck_assert_str_eq(embeddings.model, "m");
    ck_assert_str_eq(embeddings.user, "me");
    ck_assert_uint_eq(embeddings.prompts.count, 2);
    ck_assert_uint_eq(embeddings.dimensions, 64);
    ck_assert(embeddings.base64);
    openai_embeddings_close(&embeddings);
    guarded_free(&body);
    body = json_of("{'content':'a b','add_special':true}");
    ck_assert_int_eq(openai_read_tokenize(body.text, body.length, &text, &err), 0);
    ck_assert_str_eq(text.input.items[0].text, "a b");
    ck_assert(text.add_special);
    openai_text_close(&text);
    guarded_free(&body);
    body = json_of("{'model':'m','tokens':[7,8]}");
    ck_assert_int_eq(openai_read_detokenize(body.text, body.length, &text, &err), 0);
    ck_assert_int_eq(text.input.items[0].ids[1], 8);
    openai_text_close(&text);
    guarded_free(&body);
    body = json_of("{'tokens':[]}");
    ck_assert_int_eq(openai_read_detokenize(body.text, body.length, &text, &err), 0);
    ck_assert_uint_eq(text.input.count, 1);
    ck_assert_uint_eq(text.input.items[0].count, 0);
    openai_text_close(&text);
    guarded_free(&body);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_short_completion_has_defaults,
                                  a_long_completion_has_everything,
                                  null_counts_as_absent,
                                  prompts_have_four_forms,
                                  what_asks_for_nothing_is_no_obstacle,
                                  messages_become_variables,
                                  a_chat_has_its_own_names,
                                  bodies_are_bounded,
                                  a_context_of_ids_fits,
                                  tokens_are_checked_against_the_vocabulary,
                                  embeddings_and_texts_are_read};
    Suite *suite = suite_create("openai_read");
    TCase *tcase = tcase_create("openai_read");
    tcase_set_timeout(tcase, TEST_SECONDS);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, refuses_what_it_cannot_do, 0, sizeof REFUSALS / sizeof *REFUSALS);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
