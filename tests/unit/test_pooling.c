/* pooling: what sentence-transformers leaves in a model's directory, of today and before. */
#include "proto/pooling.h"
#include "support.h"

#define TRANSFORMER                                                                                \
    "{'idx':0,'name':'0','path':'','type':'sentence_transformers.models.Transformer'}"
#define POOLING                                                                                    \
    "{'idx':1,'name':'1','path':'1_Pooling','type':'sentence_transformers.models.Pooling'}"
#define NORMALIZE                                                                                  \
    "{'idx':2,'name':'2','path':'2_Normalize','type':'sentence_transformers.models.Normalize'}"

/* A directory with these two files; NULL: without. The caller frees the path. */
static char *directory_with(const char *config, const char *modules)
{
    char *directory = new_directory(), path[PATH_MAX];
    snprintf(path, sizeof path, "%s/1_Pooling", directory);
    ck_assert_int_eq(mkdir(path, 0755), 0);
    if (config)
        write_json(path, "config.json", config);
    if (modules)
        write_json(directory, "modules.json", modules);
    return directory;
}

START_TEST(the_directory_says_how)
{
    static const struct {
        const char *config, *modules;
        enum pooling_kind kind;
        bool normalize;
    } cases[] = {
        {NULL, NULL, POOLING_MEAN, true},
        {"{}", NULL, POOLING_MEAN, true},
        {"{'word_embedding_dimension':8,'pooling_mode_mean_tokens':true}", NULL, POOLING_MEAN,
         true},
        {"{'pooling_mode_mean_tokens':false,'pooling_mode_lasttoken':true}", NULL, POOLING_LAST,
         true},
        {"{'pooling_mode_cls_token':true}", NULL, POOLING_FIRST, true},
        {"{'pooling_mode_mean_tokens':false}", NULL, POOLING_MEAN, true},
        {"{'embedding_dimension':8,'pooling_mode':'lasttoken','include_prompt':true}", NULL,
         POOLING_LAST, true},
        {"{'pooling_mode':'cls'}", NULL, POOLING_FIRST, true},
        {"{'pooling_mode':['max']}", NULL, POOLING_MAX, true},
        {"{'pooling_mode':'mean'}", "[" TRANSFORMER "," POOLING "]", POOLING_MEAN, false},
        {"{'pooling_mode':'mean'}", "[" TRANSFORMER "," POOLING "," NORMALIZE "]", POOLING_MEAN,
         true},
        {"{'pooling_mode':'cls'}",
         "[{'type':'sentence_transformers.base.modules.transformer.Transformer'},"
         "{'type':'sentence_transformers.sentence_transformer.modules.pooling.Pooling'}]",
         POOLING_FIRST, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = ERROR_INIT;
        struct pooling pooling;
        char *directory = directory_with(cases[i].config, cases[i].modules);
        ck_assert_msg(pooling_load(&pooling, directory, &err) == 0, "%zu: %s", i, err.text);
        ck_assert_msg(pooling.kind == cases[i].kind && pooling.normalize == cases[i].normalize,
                      "case %zu", i);
        free(directory);
    }
}
END_TEST

START_TEST(what_would_be_another_vector_is_refused)
{
    static const struct {
        const char *config, *modules, *message;
    } cases[] = {
        {"{'pooling_mode':'weightedmean'}", NULL, "pooling_mode: weightedmean is not supported"},
        {"{'pooling_mode':'middle'}", NULL, "pooling_mode: middle is not supported"},
        {"{'pooling_mode':['mean','max']}", NULL, "pooling_mode: expected one mode"},
        {"{'pooling_mode':3}", NULL, "pooling_mode: expected one mode"},
        {"{'pooling_mode_weightedmean_tokens':true}", NULL, "weightedmean_tokens is not supported"},
        {"{'pooling_mode_cls_token':true,'pooling_mode_max_tokens':true}", NULL, "2 modes"},
        {NULL, "[" TRANSFORMER "," POOLING ",{'type':'sentence_transformers.models.Dense'}]",
         "[2]: \"sentence_transformers.models.Dense\" is not supported"},
        {NULL,
         "[" TRANSFORMER "," POOLING "," NORMALIZE
         ",{'type':'sentence_transformers.models.Dense'}]",
         "[3]: \"sentence_transformers.models.Dense\" is not supported"},
        {NULL, "[" POOLING "," TRANSFORMER "]", "[0]: \"sentence_transformers.models.Pooling\""},
        {NULL, "[" TRANSFORMER "]", "expected a Transformer and a Pooling"},
        {NULL, "[]", "expected a Transformer and a Pooling"},
        {NULL, "{}", "modules.json"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct error err = ERROR_INIT;
        struct pooling pooling;
        char *directory = directory_with(cases[i].config, cases[i].modules);
        ck_assert_msg(pooling_load(&pooling, directory, &err) != 0, "case %zu", i);
        expect_text(err.text, cases[i].message);
        free(directory);
    }
}
END_TEST

TEST_MAIN("pooling", the_directory_says_how, what_would_be_another_vector_is_refused)
