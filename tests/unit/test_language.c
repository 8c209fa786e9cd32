/* language: the files of a model's directory, what is refused of them, prompts and chats to ids,
 * and streams of ids to text. */
#include <unistd.h>

#include "core/memory.h"
#include "proto/language.h"
#include "support.h"

/* ---- directories ---- */

/* A directory with one of tests/data/text as its tokenizer. */
static char *directory_with(const char *tokenizer)
{
    char *directory = new_directory(), from[PATH_MAX], to[PATH_MAX];
    snprintf(from, sizeof from, "%s/data/text/%s.json", MOED_TEST_DATA, tokenizer);
    snprintf(to, sizeof to, "%s/tokenizer.json", directory);
    ck_assert_int_eq(symlink(from, to), 0);
    return directory;
}

static struct language *load(const char *directory)
{
    struct error err = ERROR_INIT;
    struct language *language = language_load(directory, &err);
    ck_assert_msg(language != NULL, "%s", err.text);
    return language;
}

static void expect_load_refused(const char *file, const char *json, const char *message)
{
    struct error err = ERROR_INIT;
    char *directory = directory_with("qwen2");
    write_json(directory, file, json);
    ck_assert_ptr_null(language_load(directory, &err));
    expect_text(err.text, message);
    expect_text(err.text, file);
    free(directory);
}

static void expect_ids(const struct language *language, const char *text, bool special,
                       const char *expected)
{
    struct error err = ERROR_INIT;
    struct token_ids tokens;
    char found[256] = "";
    ck_assert_int_eq(language_encode(language, text, strlen(text), special, &tokens, &err), 0);
    for (size_t i = 0; i < tokens.count; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), i ? " %d" : "%d",
                 (int)tokens.ids[i]);
    ck_assert_str_eq(found, expected);
    token_ids_close(&tokens);
}

/* ---- loading ---- */

START_TEST(a_directory_without_a_tokenizer_has_no_language)
{
    struct error err = ERROR_INIT;
    char *directory = new_directory();
    ck_assert_ptr_null(language_load(directory, &err));
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
    write_json(directory, "tokenizer.json", "{'version':'1.0'}");
    err = (struct error)ERROR_INIT;
    ck_assert_ptr_null(language_load(directory, &err));
    ck_assert_int_eq(err.code, ERROR_INVALID);
    free(directory);
}
END_TEST

START_TEST(a_tokenizer_alone_suffices)
{
    char *directory = directory_with("llama3");
    struct language *language = load(directory);
    ck_assert_str_eq(language_chat_refusal(language), "the model has no chat template");
    const struct sampler_options *sampling = language_sampling(language);
    ck_assert_float_eq(sampling->temperature, 1);
    ck_assert_float_eq(sampling->top_p, 1);
    ck_assert_uint_eq(sampling->top_k, 0);
    for (int32_t id = -1; id < 410; id++)
        ck_assert(!language_is_stop(language, id));
    expect_ids(language, "", true, "403");
    expect_ids(language, "", false, "");
    language_free(language);
    free(directory);
}
END_TEST

START_TEST(eos_ids_come_from_three_files)
{
    char *directory = directory_with("llama3");
    write_json(directory, "config.json", "{'model_type':'x','eos_token_id':[7,8]}");
    struct language *language = load(directory);
    ck_assert(language_is_stop(language, 7) && language_is_stop(language, 8));
    language_free(language);
    write_json(directory, "generation_config.json", "{'eos_token_id':9}");
    write_json(directory, "tokenizer_config.json", "{'eos_token':{'content':'<|im_end|>'}}");
    language = load(directory);
    ck_assert(language_is_stop(language, 9) && language_is_stop(language, 402));
    ck_assert(!language_is_stop(language, 7));
    language_free(language);
    free(directory);
}
END_TEST

START_TEST(what_transformers_takes_for_none_is_none)
{
    char *directory = directory_with("llama3");
    write_json(directory, "config.json", "{'model_type':'x','eos_token_id':7}");
    write_json(directory, "generation_config.json",
               "{'eos_token_id':-1,'do_sample':true,'top_p':0}");
    struct language *language = load(directory);
    ck_assert(language_is_stop(language, 7) && !language_is_stop(language, -1));
    ck_assert_float_eq(language_sampling(language)->top_p, 0);
    language_free(language);
    write_json(directory, "generation_config.json", "{'eos_token_id':[9,-1]}");
    language = load(directory);
    ck_assert(language_is_stop(language, 9) && !language_is_stop(language, -1));
    language_free(language);
    free(directory);
}
END_TEST

/* transformers writes int(1e30) where a tokenizer has no limit. */
START_TEST(integers_may_be_larger_than_64_bits)
{
    char *directory = directory_with("llama3");
    write_json(directory, "tokenizer_config.json",
               "{'model_max_length':1000000000000000019884624838656,'a':[-9223372036854775808,"
               "18446744073709551615,0.12345678901234567890123,1e-7],"
               "'b':'[10000000000000000000000]','eos_token':'<|im_end|>'}");
    struct language *language = load(directory);
    ck_assert(language_is_stop(language, 402));
    language_free(language);
    write_json(directory, "generation_config.json",
               "{'eos_token_id':9223372036854775808,'max_length':100000000000000000000}");
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(language_load(directory, &err));
    expect_text(err.text, "eos_token_id: expected a token id");
    free(directory);
}
END_TEST

START_TEST(recommended_sampling_is_for_models_that_sample)
{
    char *directory = directory_with("llama3");
    write_json(directory, "generation_config.json",
               "{'do_sample':true,'temperature':0.6,'top_k':20,'top_p':0.95,'min_p':0.01,"
               "'repetition_penalty':1.05,'eos_token_id':null}");
    struct language *language = load(directory);
    const struct sampler_options *sampling = language_sampling(language);
    ck_assert_float_eq(sampling->temperature, 0.6f);
    ck_assert_float_eq(sampling->top_p, 0.95f);
    ck_assert_float_eq(sampling->min_p, 0.01f);
    ck_assert_float_eq(sampling->repetition_penalty, 1.05f);
    ck_assert_uint_eq(sampling->top_k, 20);
    language_free(language);
    write_json(directory, "generation_config.json",
               "{'do_sample':true,'temperature':null,'top_k':-1,'top_p':null,'min_p':null}");
    language = load(directory);
    ck_assert_uint_eq(language_sampling(language)->top_k, 0);
    ck_assert_float_eq(language_sampling(language)->top_p, 1);
    language_free(language);
    write_json(directory, "generation_config.json",
               "{'temperature':0.6,'top_k':'x','repetition_penalty':1.05}");
    language = load(directory);
    ck_assert_float_eq(language_sampling(language)->temperature, 1);
    ck_assert_float_eq(language_sampling(language)->repetition_penalty, 1.05f);
    language_free(language);
    free(directory);
}
END_TEST

START_TEST(what_is_wrong_in_files_is_refused_by_name)
{
    expect_load_refused("generation_config.json", "[]", "expected an object");
    expect_load_refused("generation_config.json", "{", "line 1, column");
    expect_load_refused("generation_config.json", "{'eos_token_id':'x'}", "eos_token_id: expected");
    expect_load_refused("generation_config.json", "{'eos_token_id':[4294967296]}",
                        "eos_token_id[0]: 4294967296 is no token id");
    expect_load_refused("generation_config.json", "{'do_sample':1}", "do_sample: expected");
    expect_load_refused("generation_config.json", "{'do_sample':true,'top_p':-0.1}",
                        "top_p: expected a number from 0, at most 1");
    expect_load_refused("generation_config.json", "{'do_sample':true,'temperature':-1}",
                        "temperature: expected a number from 0");
    expect_load_refused("generation_config.json", "{'do_sample':true,'top_k':1.5}", "top_k");
    expect_load_refused("generation_config.json", "{'repetition_penalty':0}",
                        "repetition_penalty: expected a number above 0");
    expect_load_refused("tokenizer_config.json", "{'bos_token':5}",
                        "bos_token: expected a token's text");
    expect_load_refused("tokenizer_config.json", "{'bos_token':'<none>','add_bos_token':true}",
                        "bos_token is not in tokenizer.json");
    expect_load_refused("tokenizer_config.json", "{'eos_token':'<none>','add_eos_token':true}",
                        "eos_token is not in tokenizer.json");
}
END_TEST

START_TEST(too_many_eos_ids_are_refused)
{
    char json[1024] = "{'eos_token_id':[0";
    for (int i = 1; i <= 64; i++)
        snprintf(json + strlen(json), sizeof json - strlen(json), ",%d", i);
    strcat(json, "]}");
    expect_load_refused("generation_config.json", json, "expected at most 64 ids");
}
END_TEST

START_TEST(ids_must_fit_the_model)
{
    struct error err = ERROR_INIT;
    char *directory = directory_with("llama3");
    struct language *language = load(directory);
    ck_assert_int_eq(language_check(language, 404, &err), 0);
    ck_assert_int_eq(language_check(language, 512, &err), 0);
    ck_assert_int_eq(language_check(language, 403, &err), -1);
    expect_text(err.text, "ids up to 403, the model has a vocabulary of 403");
    language_free(language);
    write_json(directory, "generation_config.json", "{'eos_token_id':600}");
    language = load(directory);
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(language_check(language, 512, &err), -1);
    expect_text(err.text, "eos_token_id 600");
    language_free(language);
    free(directory);
}
END_TEST

/* ---- text to ids ---- */

static void expect_around(const char *tokenizer, const char *config, const char *expected)
{
    char *directory = directory_with(tokenizer);
    write_json(directory, "tokenizer_config.json", config);
    struct language *language = load(directory);
    expect_ids(language, "a", true, expected);
    expect_ids(language, "a", false, "64");
    language_free(language);
    free(directory);
}

/* tokenizer.json with a BOS, as AutoTokenizer.from_pretrained() of transformers 5.24 has it with
 * any of these configs; and without, as 4.57 had it. */
START_TEST(the_post_processor_counts_before_what_is_configured)
{
    static const char *const cases[][2] = {
        {"{}", "64"},
        {"{'add_bos_token':false}", "64"},
        {"{'add_bos_token':true}", "64"},
        {"{'add_bos_token':true,'bos_token':'<|im_start|>'}", "401 64"},
        {"{'add_eos_token':true,'eos_token':'<|im_end|>'}", "64 402"},
        {"{'add_bos_token':true,'add_eos_token':true,'bos_token':'<|im_start|>',"
         "'eos_token':{'content':'<|im_end|>'}}",
         "401 64 402"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        expect_around("llama3", cases[i][0], "403 64");
        expect_around("qwen2", cases[i][0], cases[i][1]);
    }
}
END_TEST

/* ---- chats ---- */

static int render(const struct language *language, const char *variables, struct buffer *text,
                  struct error *err)
{
    json_t *parsed = json_loads(variables, 0, NULL);
    ck_assert_ptr_nonnull(parsed);
    int result = language_render(language, parsed, 0, text, err);
    json_decref(parsed);
    return result;
}

static void expect_chat(const char *directory, const char *expected)
{
    struct error err = ERROR_INIT;
    struct buffer text;
    struct language *language = load(directory);
    buffer_init(&text, 1000);
    ck_assert_ptr_null(language_chat_refusal(language));
    ck_assert_int_eq(render(language,
                            "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}],"
                            "\"tools\":null}",
                            &text, &err),
                     0);
    buffer_append(&text, "", 1);
    ck_assert_str_eq(text.data, expected);
    buffer_close(&text);
    language_free(language);
}

#define LOOP "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"

START_TEST(templates_come_from_a_file_a_text_or_a_list)
{
    char *directory = directory_with("llama3");
    write_json(directory, "tokenizer_config.json",
               "{'bos_token':'<s>','chat_template':'{{ bos_token }}" LOOP "'}");
    expect_chat(directory, "<s>user:hi;");
    write_json(directory, "tokenizer_config.json",
               "{'chat_template':[{'name':'tool_use','template':'no'},"
               "{'name':'default','template':'list " LOOP "'}]}");
    expect_chat(directory, "list user:hi;");
    write_file(directory, "chat_template.jinja", "file " LOOP, strlen("file " LOOP));
    expect_chat(directory, "file user:hi;");
    free(directory);
}
END_TEST

START_TEST(a_template_that_is_not_supported_refuses_chats_only)
{
    struct error err = ERROR_INIT;
    struct buffer text;
    char *directory = directory_with("llama3");
    write_file(directory, "chat_template.jinja", "a\n{% include 'x' %}", 18);
    struct language *language = load(directory);
    expect_text(language_chat_refusal(language), "line 2, column");
    buffer_init(&text, 1000);
    ck_assert_int_eq(render(language, "{\"messages\":[]}", &text, &err), -1);
    ck_assert_int_eq(err.code, ERROR_INVALID);
    expect_text(err.text, "chat_template.jinja: line 2, column");
    expect_ids(language, "a", true, "403 64");
    buffer_close(&text);
    language_free(language);
    free(directory);
}
END_TEST

/* ---- ids to text ---- */

static void expect_bytes(const struct language *language, int32_t id, const char *expected)
{
    struct buffer bytes;
    buffer_init(&bytes, 1000);
    language_token_bytes(language, id, &bytes);
    ck_assert_uint_eq(bytes.length, strlen(expected));
    ck_assert_int_eq(memcmp(bytes.length ? bytes.data : "", expected, bytes.length), 0);
    buffer_close(&bytes);
}

static int32_t id_of(const char *tokenizer, const char *token)
{
    struct error err = ERROR_INIT;
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/data/text/%s.json", MOED_TEST_DATA, tokenizer);
    struct tokenizer *loaded = tokenizer_load(path, &err);
    int32_t id = tokenizer_id(loaded, token);
    tokenizer_free(loaded);
    ck_assert_int_ge(id, 0);
    return id;
}

START_TEST(bytes_of_tokens_are_those_inside_a_text)
{
    static const struct {
        const char *tokenizer, *token, *bytes;
    } cases[] = {
        {"llama3", "\xC4\xA0the", " the"},
        {"llama3", "\xC3\xA2", "\xE2"},
        {"llama3", "<|im_end|>", "<|im_end|>"},
        {"mixtral", "\xE2\x96\x81", " "},
        {"mixtral", "<0xE2>", "\xE2"},
        {"bert", "[SEP]", " [SEP]"},
        {"bert", "##e", "e"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *directory = directory_with(cases[i].tokenizer);
        struct language *language = load(directory);
        expect_bytes(language, id_of(cases[i].tokenizer, cases[i].token), cases[i].bytes);
        expect_bytes(language, 100000, "");
        expect_bytes(language, -1, "");
        language_free(language);
        free(directory);
    }
}
END_TEST

static void expect_places(const struct language *language, int32_t *ids, const char *text,
                          const char *expected)
{
    struct error err = ERROR_INIT;
    int32_t places[8];
    char found[64] = "";
    struct token_ids tokens = {.ids = ids};
    while (ids[tokens.count] >= 0)
        tokens.count++;
    ck_assert_int_eq(
        language_locate(language, &tokens, text, text ? strlen(text) : 0, places, &err), 0);
    for (size_t i = 0; i < tokens.count; i++)
        snprintf(found + strlen(found), sizeof found - strlen(found), "%d ", (int)places[i]);
    ck_assert_str_eq(found, expected);
}

/* 64 is "a", 158 the byte E2, 403 begins a text, 402 is <|im_end|> (tests/data/text/llama3.json).
 */
START_TEST(tokens_have_places_in_a_prompt)
{
    char *directory = directory_with("llama3");
    struct language *language = load(directory);
    expect_places(language, (int32_t[]){403, 64, 402, 64, -1}, "a<|im_end|>a", "0 0 1 11 ");
    expect_places(language, (int32_t[]){403, 64, 402, -1}, "a", "0 0 1 ");
    expect_places(language, (int32_t[]){403, 64, 402, 64, -1}, NULL, "0 17 18 28 ");
    expect_places(language, (int32_t[]){158, 158, 64, 64, -1}, NULL, "0 0 1 3 ");
    expect_places(language, (int32_t[]){64, 64, 64, -1}, "a", "0 1 1 "); /* changed by it */
    language_free(language);
    free(directory);
}
END_TEST

/* The pieces that a stream gives for the ids of a text and then its end, "|" between them. */
static void expect_stream(const char *text, const char *const *stops, size_t stop_count,
                          const char *expected)
{
    struct error err = ERROR_INIT;
    char *directory = directory_with("llama3");
    struct language *language = load(directory);
    struct token_ids tokens;
    struct text_stream stream;
    struct buffer out;
    bool stopped = false;
    buffer_init(&out, 1000);
    ck_assert_int_eq(language_encode(language, text, strlen(text), true, &tokens, &err), 0);
    ck_assert_int_eq(text_stream_init(&stream, language, stops, stop_count, &err), 0);
    for (size_t i = 0; i < tokens.count && !stopped; i++) {
        stopped = text_stream_add(&stream, tokens.ids[i], &out);
        ck_assert(!text_stream_add(&stream, 100000, &out) || stopped);
        buffer_text(&out, "|");
    }
    if (!stopped)
        stopped = text_stream_end(&stream, &out);
    buffer_text(&out, stopped ? "stop" : "");
    buffer_append(&out, "", 1);
    ck_assert(!out.failed);
    ck_assert_str_eq(out.data, expected);
    text_stream_close(&stream);
    token_ids_close(&tokens);
    buffer_close(&out);
    language_free(language);
    free(directory);
}

START_TEST(streams_hold_back_characters_and_stops)
{
    expect_stream("abc", NULL, 0, "|a|b|c|");
    expect_stream("a\xE6\x86\x82z<|im_end|>", NULL, 0, "|a|||\xE6\x86\x82|z||");
    expect_stream("xyzq", (const char *const[]){"yzz", "zqq"}, 2, "|x|||y|zq");
    expect_stream("xyzqw", (const char *const[]){"zq", "yzz"}, 2, "|x|||y|stop");
    expect_stream("xyzq", (const char *const[]){"q"}, 1, "|x|y|z||stop");
}
END_TEST

START_TEST(bad_stops_are_refused)
{
    struct error err = ERROR_INIT;
    struct text_stream stream;
    char *directory = directory_with("llama3");
    struct language *language = load(directory);
    ck_assert_int_eq(text_stream_init(&stream, language, (const char *const[]){"a", ""}, 2, &err),
                     -1);
    expect_text(err.text, "stop string 1 has 0 bytes");
    language_free(language);
    free(directory);
}
END_TEST

/* What memory or the limit does not hold must not look like an answer. */
START_TEST(a_stream_that_does_not_fit_says_so)
{
    struct error err = ERROR_INIT;
    struct text_stream stream;
    struct buffer out;
    char *directory = directory_with("llama3");
    struct language *language = load(directory);
    ck_assert_int_eq(text_stream_init(&stream, language, NULL, 0, &err), 0);
    buffer_init(&out, 2);
    for (int i = 0; i < 3; i++)
        (void)text_stream_add(&stream, 64, &out);
    ck_assert(out.failed);
    text_stream_close(&stream);
    buffer_close(&out);
    language_free(language);
    free(directory);
}
END_TEST

TEST_MAIN("language", a_directory_without_a_tokenizer_has_no_language, a_tokenizer_alone_suffices,
          eos_ids_come_from_three_files, what_transformers_takes_for_none_is_none,
          integers_may_be_larger_than_64_bits, recommended_sampling_is_for_models_that_sample,
          what_is_wrong_in_files_is_refused_by_name, too_many_eos_ids_are_refused,
          ids_must_fit_the_model, the_post_processor_counts_before_what_is_configured,
          templates_come_from_a_file_a_text_or_a_list,
          a_template_that_is_not_supported_refuses_chats_only,
          bytes_of_tokens_are_those_inside_a_text, tokens_have_places_in_a_prompt,
          streams_hold_back_characters_and_stops, bad_stops_are_refused,
          a_stream_that_does_not_fit_says_so)
