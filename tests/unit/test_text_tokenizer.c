/* tokenizer, detokenizer: what the `tokenizers` library makes of the same texts (tests/data/text),
 * files that are refused with their path, texts that cost too much elsewhere. */
#include <glob.h>
#include <jansson.h>
#include <time.h>

#include "core/file.h"
#include "core/memory.h"
#include "proto/text/detokenizer.h"
#include "proto/text/tokenizer.h"
#include "proto/text/unicode.h"
#include "test_proto_support.h"

/* ---- against the library ---- */

static void expect_text(const struct buffer *got, const json_t *want, const char *what)
{
    size_t length = json_string_length(want);
    ck_assert_msg(got->length == length &&
                      memcmp(length ? got->data : "", json_string_value(want), length) == 0,
                  "%s: '%.*s', expected '%s'", what, (int)got->length, got->data ? got->data : "",
                  json_string_value(want));
}

static void expect_ids(const struct token_ids *got, const json_t *want, const char *text)
{
    ck_assert_msg(got->count == json_array_size(want), "'%s': %zu ids, expected %zu", text,
                  got->count, json_array_size(want));
    for (size_t i = 0; i < got->count; i++)
        ck_assert_msg(got->ids[i] == json_integer_value(json_array_get(want, i)),
                      "'%s': id %zu is %d", text, i, (int)got->ids[i]);
}

/* Decoded at once and in a stream. */
static void expect_decoded(const struct tokenizer *tokenizer, const struct token_ids *tokens,
                           bool skip, const json_t *want)
{
    struct error err = ERROR_INIT;
    struct buffer whole, parts;
    buffer_init(&whole, 1 << 20);
    buffer_init(&parts, 1 << 20);
    ck_assert_msg(tokenizer_decode(tokenizer, tokens->ids, tokens->count, skip, &whole, &err) == 0,
                  "%s", err.text);
    expect_text(&whole, want, "decoded");
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, skip);
    for (size_t i = 0; i < tokens->count; i++) {
        ck_assert_int_eq(detokenizer_add(&detokenizer, tokens->ids[i], &parts, &err), 0);
        ck_assert_uint_eq(unicode_check(parts.data ? parts.data : "", parts.length), parts.length);
    }
    detokenizer_end(&detokenizer, &parts);
    expect_text(&parts, want, "streamed");
    detokenizer_close(&detokenizer);
    buffer_close(&whole);
    buffer_close(&parts);
}

static void expect_case(const struct tokenizer *tokenizer, const json_t *golden)
{
    struct error err = ERROR_INIT;
    struct token_ids tokens;
    const json_t *text = json_object_get(golden, "text");
    bool special = json_is_true(json_object_get(golden, "add_special"));
    struct guarded copy = guarded_copy(json_string_value(text), json_string_length(text));
    ck_assert_msg(tokenizer_encode(tokenizer, copy.text, copy.length, special, &tokens, &err) == 0,
                  "%s", err.text);
    expect_ids(&tokens, json_object_get(golden, "ids"), json_string_value(text));
    ck_assert_uint_le(tokenizer_fewest(tokenizer, copy.text, copy.length), tokens.count);
    expect_decoded(tokenizer, &tokens, json_is_true(json_object_get(golden, "skip_special")),
                   json_object_get(golden, "decoded"));
    token_ids_close(&tokens);
    guarded_free(&copy);
}

static struct tokenizer *load(const char *path)
{
    struct error err = ERROR_INIT;
    struct tokenizer *tokenizer = tokenizer_load(path, &err);
    ck_assert_msg(tokenizer != NULL, "%s", err.text);
    return tokenizer;
}

START_TEST(agrees_with_the_library)
{
    glob_t found;
    ck_assert_int_eq(glob(MOED_TEST_DATA "/data/text/*.golden.json", 0, NULL, &found), 0);
    ck_assert_uint_ge(found.gl_pathc, 20);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char path[1024];
        size_t name = strlen(found.gl_pathv[i]) - strlen(".golden.json");
        snprintf(path, sizeof path, "%.*s.json", (int)name, found.gl_pathv[i]);
        struct tokenizer *tokenizer = load(path);
        json_t *cases = json_load_file(found.gl_pathv[i], JSON_ALLOW_NUL, NULL), *golden;
        size_t index;
        ck_assert_uint_ge(json_array_size(cases), 100);
        json_array_foreach(cases, index, golden) expect_case(tokenizer, golden);
        json_decref(cases);
        tokenizer_free(tokenizer);
    }
    globfree(&found);
}
END_TEST

START_TEST(tells_of_its_vocabulary)
{
    struct tokenizer *tokenizer = load(MOED_TEST_DATA "/data/text/llama3.json");
    int32_t begin = tokenizer_id(tokenizer, "<|begin_of_text|>");
    size_t length;
    ck_assert_int_eq(begin, (int)tokenizer_size(tokenizer) - 1);
    ck_assert(tokenizer_is_special(tokenizer, begin));
    ck_assert(!tokenizer_is_special(tokenizer, tokenizer_id(tokenizer, "a")));
    ck_assert(!tokenizer_is_special(tokenizer, -1));
    ck_assert_int_eq(tokenizer_id(tokenizer, "no such token"), -1);
    ck_assert_mem_eq(tokenizer_token(tokenizer, begin, &length), "<|begin_of_text|>", 17);
    ck_assert_uint_eq(length, 17);
    ck_assert_ptr_null(tokenizer_token(tokenizer, begin + 1, &length));
    tokenizer_free(tokenizer);
}
END_TEST

/* ---- hostile texts ---- */

/* So many bytes of `part`, in at most a few seconds also under a sanitizer. */
static void expect_quick(const struct tokenizer *tokenizer, const char *part, size_t bytes)
{
    struct error err = ERROR_INIT;
    struct token_ids tokens;
    size_t size = strlen(part), count = bytes / size;
    char *text = xmalloc(count * size);
    for (size_t i = 0; i < count; i++)
        memcpy(text + i * size, part, size);
    clock_t began = clock();
    ck_assert_msg(tokenizer_encode(tokenizer, text, count * size, true, &tokens, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(clock() - began < 20 * CLOCKS_PER_SEC, "'%s' took too long", part);
    token_ids_close(&tokens);
    free(text);
}

START_TEST(long_texts_take_linear_time)
{
    static const char *const parts[] = {
        "a", " ", "A", "\n", "1", "!", "\xE6\xBC\xA2", "\xCC\x81\xCC\xA7", " a", "'s"};
    static const char *const names[] = {"gpt2",    "o200k",       "qwen2", "deepseek",
                                        "mixtral", "xlm-roberta", "bert"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, MOED_TEST_DATA "/data/text/%s.json", names[i]);
        struct tokenizer *tokenizer = load(path);
        for (size_t j = 0; j < sizeof parts / sizeof *parts; j++)
            expect_quick(tokenizer, parts[j], j == 0 ? 1 << 20 : 1 << 16);
        tokenizer_free(tokenizer);
    }
}
END_TEST

START_TEST(refuses_what_is_no_text)
{
    struct tokenizer *tokenizer = load(MOED_TEST_DATA "/data/text/gpt2.json");
    static const char *const texts[] = {"ab\x80", "\xC0\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                                        "a\xE2\x82"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct error err = ERROR_INIT;
        struct token_ids tokens;
        ck_assert_int_eq(
            tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), true, &tokens, &err), -1);
        ck_assert_msg(strstr(err.text, "not UTF-8 at byte") != NULL, "%s", err.text);
    }
    struct error err = ERROR_INIT;
    struct token_ids tokens;
    ck_assert_int_eq(tokenizer_encode(tokenizer, NULL, (size_t)TOKENIZER_MAX_TEXT_BYTES + 1, true,
                                      &tokens, &err),
                     -1);
    ck_assert_int_eq(err.code, ERROR_TOO_LARGE);
    tokenizer_free(tokenizer);
}
END_TEST

START_TEST(refuses_ids_without_a_token)
{
    struct tokenizer *tokenizer = load(MOED_TEST_DATA "/data/text/gpt2.json");
    static const int32_t ids[] = {-1, 1000000, INT32_MIN, INT32_MAX};
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        struct error err = ERROR_INIT;
        struct buffer text;
        buffer_init(&text, 100);
        ck_assert_int_eq(tokenizer_decode(tokenizer, &ids[i], 1, true, &text, &err), -1);
        ck_assert_msg(strstr(err.text, "there is none") != NULL, "%s", err.text);
        buffer_close(&text);
    }
    tokenizer_free(tokenizer);
}
END_TEST

/* Patterns have one budget for a text, however many pieces it is cut into. */
START_TEST(many_costly_pieces_are_refused)
{
    static const char json[] =
        "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
        "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"Removed\"},"
        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a*a*a*a*b\"},\"behavior\":\"Isolated\"}]},"
        "\"added_tokens\":[{\"id\":2,\"content\":\"<s>\"}],"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
    struct error err = ERROR_INIT;
    struct tokenizer *tokenizer = tokenizer_new(json, strlen(json), &err);
    ck_assert_msg(tokenizer != NULL, "%s", err.text);
    static const char *const parts[] = {"aaaaaaaaaa ", "<s>aaaaaaaaaa"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char text[4096] = "";
        struct token_ids tokens;
        for (int j = 0; j < 100; j++)
            strcat(text, parts[i]);
        err = (struct error)ERROR_INIT;
        ck_assert_int_eq(
            tokenizer_encode(tokenizer, parts[i], strlen(parts[i]), true, &tokens, &err), 0);
        token_ids_close(&tokens);
        ck_assert_int_eq(tokenizer_encode(tokenizer, text, strlen(text), true, &tokens, &err), -1);
        ck_assert_msg(strstr(err.text, "takes too many steps") != NULL, "%s", err.text);
    }
    tokenizer_free(tokenizer);
}
END_TEST

/* What a tokenizer.json makes of a text is bounded by the text. */
START_TEST(text_that_grows_is_refused)
{
    static const char json[] =
        "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},"
        "\"content\":\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"},"
        "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}";
    struct error err = ERROR_INIT;
    struct tokenizer *tokenizer = tokenizer_new(json, strlen(json), &err);
    ck_assert_msg(tokenizer != NULL, "%s", err.text);
    char text[1 << 13];
    memset(text, 'a', sizeof text);
    struct token_ids tokens;
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, 10, true, &tokens, &err), 0);
    ck_assert_uint_eq(tokens.count, 320);
    token_ids_close(&tokens);
    ck_assert_int_eq(tokenizer_encode(tokenizer, text, sizeof text, true, &tokens, &err), -1);
    ck_assert_msg(strstr(err.text, "the normalized text is longer than") != NULL, "%s", err.text);
    tokenizer_free(tokenizer);
}
END_TEST

/* ---- what lengths say ---- */

/* Of a text that repeats `part`. Returns how many tokens it is said to have at least. */
static size_t check_fewest(const struct tokenizer *tokenizer, const char *part, size_t length)
{
    enum { TIMES = 30 };
    struct error err = ERROR_INIT;
    struct token_ids tokens;
    char *text = xmalloc(TIMES * length + 1);
    for (size_t i = 0; i < TIMES; i++)
        memcpy(text + i * length, part, length);
    const size_t fewest = tokenizer_fewest(tokenizer, text, TIMES * length);
    ck_assert_msg(tokenizer_encode(tokenizer, text, TIMES * length, false, &tokens, &err) == 0,
                  "%s", err.text);
    ck_assert_msg(fewest <= tokens.count, "%d times '%.*s' has %zu tokens, not %zu", TIMES,
                  (int)length, part, tokens.count, fewest);
    token_ids_close(&tokens);
    free(text);
    return fewest;
}

/* Every token's own text, with which the most bytes go into a token, and what is shortened before.
 * Returns how many tokens a thousand of one letter have at least. */
static size_t check_bound(const struct tokenizer *tokenizer)
{
    static const char *const SHRINKING[] = {
        "\xE1\xBF\xAF",                         /* a grave accent, alone */
        "\xE2\x84\xAA",                         /* the sign for Kelvin */
        "\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8", /* the parts of a syllable */
        "\xCE\xB1\xCC\x93\xCC\x80\xCD\x85",     /* a letter with three marks */
        "e\xCC\x81",
        "\xF0\x9D\x90\x80", /* a bold A */
        " \t\n",
        "<unk>",
    };
    struct error err = ERROR_INIT;
    for (size_t id = 0; id < tokenizer_size(tokenizer); id++) {
        const int32_t one = (int32_t)id;
        struct buffer text;
        buffer_init(&text, 1 << 16);
        if (tokenizer_decode(tokenizer, &one, 1, false, &text, &err) == 0 && text.length > 0)
            (void)check_fewest(tokenizer, text.data, text.length);
        buffer_close(&text);
    }
    for (size_t i = 0; i < sizeof SHRINKING / sizeof *SHRINKING; i++)
        (void)check_fewest(tokenizer, SHRINKING[i], strlen(SHRINKING[i]));
    char letters[1000];
    memset(letters, 'a', sizeof letters);
    return tokenizer_fewest(tokenizer, letters, sizeof letters);
}

START_TEST(lengths_promise_too_little_at_most)
{
    size_t proved = 0;
    glob_t found;
    ck_assert_int_eq(glob(MOED_TEST_DATA "/data/text/*.golden.json", 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        char path[1024];
        const size_t name = strlen(found.gl_pathv[i]) - strlen(".golden.json");
        snprintf(path, sizeof path, "%.*s.json", (int)name, found.gl_pathv[i]);
        struct tokenizer *tokenizer = load(path);
        const size_t fewest = check_bound(tokenizer);
        proved += fewest > 0;
        if (strstr(path, "bert") || strstr(path, "words") || strstr(path, "roberta"))
            ck_assert_msg(fewest == 0, "%s has one token for all that it does not know", path);
        tokenizer_free(tokenizer);
    }
    globfree(&found);
    ck_assert_uint_ge(proved, 10);
}
END_TEST

/* ---- files ---- */

#define MODEL "'model':{'type':'BPE','vocab':{'a':0,'b':1,'ab':2},'merges':['a b']}"

struct refusal {
    const char *json, *message; /* ' stands for " */
};

static const struct refusal REFUSALS[] = {
    {"", "line 1, column 1"},
    {"[]", "expected an object, it is a list"},
    {"{'models':1}", "the key 'models' is not known here"},
    {"{}", "model: expected an object, it is missing"},
    {"{'model':{'type':'WordLevel'}}", "model.type: 'WordLevel' is not supported"},
    {"{'model':{'type':'BPE','vocab':{'a':'0'},'merges':[]}}", "model.vocab: 'a': expected an id"},
    {"{'model':{'type':'BPE','vocab':{'a':-1},'merges':[]}}", "model.vocab: 'a': expected an id"},
    {"{'model':{'type':'BPE','vocab':{'a':1,'b':1},'merges':[]}}", "another token has the id 1"},
    {"{'model':{'type':'BPE','vocab':{},'merges':[]}}", "model.vocab: there is no token"},
    {"{'model':{'type':'BPE','vocab':{'a':0},'merges':['a b']}}", "model.merges[0]: 'b' is not in"},
    {"{'model':{'type':'BPE','vocab':{'a':0},'merges':['a a']}}", "'what it makes' is not in"},
    {"{'model':{'type':'BPE','vocab':{'a':0},'merges':['aa']}}", "model.merges[0]: expected"},
    {"{'model':{'type':'BPE','vocab':{'a':0},'merges':[],'dropout':0.1}}", "model.dropout"},
    {"{'model':{'type':'BPE','vocab':{'a':0},'merges':[],'end_of_word_suffix':'</w>'}}",
     "model.end_of_word_suffix: '</w>' is not supported"},
    {"{'model':{'type':'BPE','vocab':{'a':0},'merges':[],'unk_token':'u'}}", "model.unk_token"},
    {"{'model':{'type':'Unigram','vocab':[['a',1],['b']]}}", "model.vocab[1]: expected a token"},
    {"{'model':{'type':'Unigram','unk_id':2,'vocab':[['a',1]]}}", "model.unk_id: 2 is not from"},
    {"{'normalizer':{'type':'Nmt'}," MODEL "}", "normalizer.type: 'Nmt' is not supported"},
    {"{'normalizer':{'type':'Sequence','normalizers':[{'type':'NFC'},{'type':'Strip'}]}," MODEL "}",
     "normalizer.normalizers[1].strip_left: expected true or false, it is missing"},
    {"{'normalizer':{'type':'Precompiled','precompiled_charsmap':'AAAA'}," MODEL "}",
     "normalizer: precompiled_charsmap is not"},
    {"{'pre_tokenizer':{'type':'UnicodeScripts'}," MODEL "}",
     "pre_tokenizer.type: 'UnicodeScripts' is not supported"},
    {"{'pre_tokenizer':{'type':'Split','pattern':{'Regex':'(a|b)+'},'behavior':'Isolated'}," MODEL
     "}",
     "pre_tokenizer.pattern: the pattern '(a|b)+': at byte 5 ('+'): a group that repeats"},
    {"{'decoder':{'type':'CTC'}," MODEL "}", "decoder.type: 'CTC' is not supported"},
    {"{'decoder':{'type':'Sequence','decoders':[{'type':'Fuse'},{'type':'ByteLevel'}]}," MODEL "}",
     "decoder.decoders[1]: this decoder is not supported behind"},
    {"{'post_processor':{'type':'TemplateProcessing','single':[{'SpecialToken':{'id':'x'}}],"
     "'special_tokens':{}}," MODEL "}",
     "post_processor.special_tokens.x.ids: expected a list"},
    {"{'added_tokens':[{'id':5,'content':'a'}]," MODEL "}", "added_tokens[0]: 'a' has the id 0"},
    {"{'added_tokens':[{'id':1,'content':'z'}]," MODEL "}", "another token has the id 1"},
    {"{'added_tokens':[{'id':9000000,'content':'z'}]," MODEL "}", "added_tokens[0].id: 9000000"},
};

START_TEST(refuses_files_with_their_path)
{
    const struct refusal *refusal = &REFUSALS[_i];
    char json[1024];
    snprintf(json, sizeof json, "%s", refusal->json);
    for (char *c = json; *c; c++)
        *c = *c == '\'' ? '"' : *c;
    struct error err = ERROR_INIT;
    struct guarded copy = guarded_text(json);
    ck_assert_ptr_null(tokenizer_new(copy.text, copy.length, &err));
    ck_assert_msg(strstr(err.text, refusal->message) != NULL, "%s: '%s' is not in: %s", json,
                  refusal->message, err.text);
    guarded_free(&copy);
}
END_TEST

/* transformers writes int(1e30) where there is no limit, also where nobody reads it. */
START_TEST(an_integer_beyond_64_bits_is_no_fault_of_a_file)
{
    char path[] = "/tmp/moed-tokenizer-XXXXXX";
    struct error err = ERROR_INIT;
    size_t length;
    char *text = file_read(MOED_TEST_DATA "/data/text/llama3.json", 1 << 20, &length, &err);
    char *limit = strstr(text, "null");
    FILE *file = fdopen(mkstemp(path), "w");
    fprintf(file, "%.*s{\"max_length\":1000000000000000019884624838656}%s", (int)(limit - text),
            text, limit + strlen("null"));
    ck_assert_int_eq(fclose(file), 0);
    struct tokenizer *tokenizer = tokenizer_load(path, &err);
    remove(path);
    ck_assert_msg(tokenizer != NULL, "%s", err.text);
    tokenizer_free(tokenizer);
    free(text);
}
END_TEST

START_TEST(names_the_file)
{
    struct error err = ERROR_INIT;
    ck_assert_ptr_null(tokenizer_load("/nowhere/tokenizer.json", &err));
    ck_assert_str_eq(err.text, "/nowhere/tokenizer.json: cannot open: No such file or directory");
    struct error directory = ERROR_INIT;
    ck_assert_ptr_null(tokenizer_load("/", &directory));
    ck_assert_msg(strstr(directory.text, "not a regular file") != NULL, "%s", directory.text);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {agrees_with_the_library,
                                  tells_of_its_vocabulary,
                                  long_texts_take_linear_time,
                                  refuses_what_is_no_text,
                                  refuses_ids_without_a_token,
                                  many_costly_pieces_are_refused,
                                  text_that_grows_is_refused,
                                  lengths_promise_too_little_at_most,
                                  an_integer_beyond_64_bits_is_no_fault_of_a_file,
                                  names_the_file};
    Suite *suite = suite_create("text_tokenizer");
    TCase *tcase = tcase_create("text_tokenizer");
    tcase_set_timeout(tcase, TEST_SECONDS);
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++)
        tcase_add_test(tcase, tests[i]);
    tcase_add_loop_test(tcase, refuses_files_with_their_path, 0,
                        sizeof REFUSALS / sizeof *REFUSALS);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
