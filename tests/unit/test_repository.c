/* The model repository: which directories are models and versions, and which model a name finds. */
#include "test_repository_support.h"

START_TEST(a_model_without_versions_is_version_1)
{
    put_model("scale", 7);
    open_repository();
    ck_assert_uint_eq(catalog->count, 1);
    ck_assert_str_eq(catalog->models[0]->name, "scale");
    ck_assert_str_eq(catalog->models[0]->version, "1");
    ck_assert_int_eq(factor_of("scale", NULL), 7);
    ck_assert_int_eq(factor_of("scale", "1"), 7);
}
END_TEST

START_TEST(the_highest_version_is_the_default)
{
    make_directory("m");
    put_model("m/2", 2);
    put_model("m/10", 10);
    put_model("m/9", 9);
    open_repository();
    ck_assert_str_eq(catalog->models[0]->version, "2");
    ck_assert_str_eq(catalog->models[2]->version, "10");
    ck_assert_int_eq(factor_of("m", NULL), 10);
    ck_assert_int_eq(factor_of("m", "2"), 2);
    ck_assert_int_eq(factor_of("m", "9"), 9);
}
END_TEST

START_TEST(models_stand_in_order_of_names)
{
    put_model("beta", 1);
    put_model("alpha", 1);
    make_directory("alpha-2");
    put_model("alpha-2/1", 1);
    put_model("alpha-2/3", 1);
    open_repository();
    static const char *const names[] = {"alpha", "alpha-2", "alpha-2", "beta"};
    ck_assert_uint_eq(catalog->count, 4);
    for (size_t i = 0; i < 4; i++)
        ck_assert_str_eq(catalog->models[i]->name, names[i]);
    for (size_t i = 0; i < 4; i++) {
        size_t first, last;
        catalog_versions(catalog, catalog->models[i]->name, &first, &last);
        ck_assert_uint_eq(first, i == 2 ? 1 : i);
        ck_assert_uint_eq(last, i == 1 ? 3 : i + 1);
    }
}
END_TEST

START_TEST(what_is_no_model_is_passed_over)
{
    put_model("m", 1);
    put_model(".hidden", 1);
    write_file(directory, "README", "", 0);
    open_repository();
    ck_assert_uint_eq(catalog->count, 1);
}
END_TEST

START_TEST(only_positive_integers_are_versions)
{
    static const char *const others[] = {
        "m/0", "m/01", "m/v2", "m/-3", "m/1.5", "m/latest", "m/9999999999999999999", "m/.1"};
    make_directory("m");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        put_model(others[i], 1);
    put_model("m/4", 4);
    open_repository();
    ck_assert_uint_eq(catalog->count, 1);
    ck_assert_str_eq(catalog->models[0]->version, "4");
}
END_TEST

START_TEST(an_unknown_name_or_version_says_what_there_is)
{
    make_directory("m");
    put_model("m/2", 2);
    put_model("m/3", 3);
    open_repository();
    ck_assert_ptr_null(catalog_find(catalog, "n", NULL, &err));
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
    expect_text(err.text, "unknown model 'n'; GET /v1/models lists the models");
    err = (struct error)ERROR_INIT;
    ck_assert_ptr_null(catalog_find(catalog, "m", "4", &err));
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
    expect_text(err.text, "model 'm' has no version '4'; the latest is 3");
    ck_assert_ptr_null(catalog_find(catalog, "m", "02", NULL));
    ck_assert_ptr_null(catalog_find(catalog, "", NULL, NULL));
    ck_assert_ptr_null(catalog_find(catalog, "M", NULL, NULL));
}
END_TEST

START_TEST(an_empty_repository_is_an_error)
{
    expect_open_fails("no models; expected NAME/config.json or NAME/VERSION/config.json");
    err = (struct error)ERROR_INIT;
    make_directory("m");
    expect_open_fails("no models");
    err = (struct error)ERROR_INIT;
    put_model("m", 1);
    put_model("m/2", 2);
    expect_open_fails("m: config.json beside version directories: expected one or the other");
    err = (struct error)ERROR_INIT;
    free(directory);
    directory = xstrdup("/nowhere");
    expect_open_fails("/nowhere: cannot read the directory: No such file or directory");
}
END_TEST

START_TEST(names_must_fit_labels)
{
    put_model("bad name", 1);
    expect_open_fails("bad name: a model's name is at most 128 letters");
}
END_TEST

START_TEST(a_model_too_large_for_its_batches_is_named)
{
    put_model("m", 1);
    ck_assert_int_eq(try_open(SIZE_MAX / 8), -1);
    expect_text(err.text, "/m: ");
    expect_text(err.text, "use smaller batches");
}
END_TEST

START_TEST(a_signature_says_what_the_model_says)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/m", directory);
    write_checkpoint(path,
                     "{'model_type':'moed','format_version':1,'description':'d',"
                     "'input':{'name':'x','shape':[1,2]},'layers':[{'op':'flatten'},"
                     "{'op':'moe','name':'gate-1','gate':{'layers':[{'op':'flatten'}],'top_k':1},"
                     "'experts':{'count':2,'layers':[{'op':'relu'}]}}],"
                     "'output':{'name':'y','labels':['no','yes']}}",
                     NO_TENSORS);
    open_repository();
    const struct signature *signature = &catalog->models[0]->signature;
    ck_assert_str_eq(signature->model, "m");
    ck_assert_str_eq(signature->version, "1");
    ck_assert_uint_eq(signature->input_count, 1);
    ck_assert_str_eq(signature->inputs[0].name, "x");
    ck_assert_uint_eq(signature->inputs[0].rank, 2);
    ck_assert_uint_eq(signature->inputs[0].dims[1], 2);
    ck_assert_uint_eq(signature->inputs[0].elements, 2);
    ck_assert_str_eq(signature->outputs[0].name, "y");
    ck_assert_uint_eq(signature->outputs[0].rank, 1);
    ck_assert_uint_eq(signature->gate_count, 1);
    ck_assert_str_eq(signature->gates[0].name, "gate-1");
    ck_assert_uint_eq(signature->gates[0].experts, 2);
    ck_assert_uint_eq(signature->gates[0].top_k, 1);
    ck_assert_uint_eq(signature->gates[0].items_per_row, 1);
    ck_assert_uint_eq(signature->outputs[0].label_count, 2);
    ck_assert_str_eq(signature->outputs[0].labels[1], "yes");
}
END_TEST

START_TEST(a_thousand_names_are_found)
{
    enum { COUNT = 1000 };
    struct model *models = xcalloc(COUNT, sizeof *models), **held = xcalloc(COUNT, sizeof *held);
    char(*names)[24] = xcalloc(COUNT, sizeof *names);
    for (size_t i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "model-%zu", i);
        models[i] = (struct model){.holders = 2, .name = names[i], .version = (char[]){"1"}};
        held[i] = &models[i];
    }
    catalog = catalog_new(held, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_ptr_eq(catalog_find(catalog, names[i], NULL, NULL), &models[i]);
    ck_assert_ptr_null(catalog_find(catalog, "model-1000", NULL, NULL));
    catalog_release(catalog);
    catalog = NULL;
    for (size_t i = 0; i < COUNT; i++)
        ck_assert_uint_eq(models[i].holders, 1);
    free(names);
    free(models);
}
END_TEST

TEST_MAIN_WITH("repository", begin, end, a_model_without_versions_is_version_1,
               the_highest_version_is_the_default, models_stand_in_order_of_names,
               what_is_no_model_is_passed_over, only_positive_integers_are_versions,
               an_unknown_name_or_version_says_what_there_is, an_empty_repository_is_an_error,
               names_must_fit_labels, a_model_too_large_for_its_batches_is_named,
               a_signature_says_what_the_model_says, a_thousand_names_are_found)
