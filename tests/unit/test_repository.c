/* The model repository: which directories are models and versions, and which model a name finds. */
#include "repository_fixture.h"
#include "server/log.h"
#include "support.h"

static char *directory;
static struct repository kept;
static struct catalog *catalog;
static struct error err;

static void begin(void)
{
    log_set_level(LOG_ERROR);
    directory = new_directory();
    kept = (struct repository){0};
    catalog = NULL;
    err = (struct error)ERROR_INIT;
}

static void end(void)
{
    catalog_release(catalog);
    repository_close(&kept);
    free(directory);
}

static void make_directory(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    ck_assert_int_eq(mkdir(path, 0700), 0);
}

/* Writes a model that multiplies by `factor`, which distinguishes versions. */
static void put_model(const char *name, int factor)
{
    char path[PATH_MAX], layers[64];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    snprintf(layers, sizeof layers, "[{'op':'scale','value':%d}]", factor);
    char *config = config_of("[1]", layers);
    write_checkpoint(path, config, NO_TENSORS);
    free(config);
}

static int try_open(size_t max_batch_rows)
{
    const struct model_options options = {
        .loops = 1, .max_batch_rows = max_batch_rows, .threads = 1};
    catalog = load_repository(directory, &options, &err);
    return catalog ? 0 : -1;
}

/* The same, and goes on with it: look(). */
static void open_and_keep(const struct repository_options *more)
{
    struct repository_options options = *more;
    options.directory = directory;
    options.models = (struct model_options){.loops = 1, .max_batch_rows = 4, .threads = 1};
    repository_init(&kept, &options);
    ck_assert_int_eq(repository_look(&kept, LOOK_START, &err), 0);
    catalog = repository_catalog(&kept);
}

static void show(void)
{
    catalog_release(catalog);
    catalog = repository_catalog(&kept);
}

static void look(enum repository_look why)
{
    ck_assert_msg(repository_look(&kept, why, &err) == 0, "%s", err.text);
    show();
}

static const struct model_status *status_of(const char *name, const char *version)
{
    for (size_t i = 0; i < catalog->status_count; i++)
        if (strcmp(catalog->statuses[i].name, name) == 0 &&
            strcmp(catalog->statuses[i].version, version) == 0)
            return &catalog->statuses[i];
    return NULL;
}

static void expect_state(const char *name, const char *version, enum model_state state,
                         const char *reason)
{
    const struct model_status *status = status_of(name, version);
    ck_assert_msg(status != NULL, "%s %s is not known", name, version);
    ck_assert_str_eq(model_state_word(status->state), model_state_word(state));
    if (*reason)
        expect_text(status->reason, reason);
    else
        ck_assert_str_eq(status->reason, "");
}

static void remove_model(const char *name)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    nftw(path, support_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static void open_repository(void)
{
    ck_assert_msg(try_open(4) == 0, "%s", err.text);
}

static void expect_open_fails(const char *part)
{
    ck_assert_int_eq(try_open(4), -1);
    expect_text(err.text, part);
}

static int factor_of(const char *name, const char *version)
{
    const struct model *model = catalog_find(catalog, name, version, NULL);
    ck_assert_ptr_nonnull(model);
    const float x = 1;
    float y;
    run_forward(model->engine, 1, 1, &x, &y);
    return (int)y;
}

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

static void write_in(const char *name, const char *file, const char *text)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    write_json(path, file, text);
}

START_TEST(one_broken_model_harms_no_other)
{
    put_model("a", 1);
    put_model("z", 2);
    put_model("broken", 3);
    write_in("broken", "config.json", "{");
    open_and_keep(&(struct repository_options){0});
    ck_assert_uint_eq(catalog->count, 2);
    ck_assert_int_eq(factor_of("z", NULL), 2);
    expect_state("a", "1", MODEL_READY, "");
    expect_state("broken", "1", MODEL_UNAVAILABLE, "broken/config.json");
    ck_assert_uint_eq(status_of("broken", "1")->failures, 1);
    ck_assert_ptr_null(catalog_find(catalog, "broken", NULL, &err));
    ck_assert_int_eq(err.code, ERROR_UNAVAILABLE);
    expect_text(err.text, "model 'broken' version 1 cannot be served");
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(repository_check(&kept, &err), -1);
    expect_text(err.text, "broken/config.json");
    ck_assert(catalog_is_ready(catalog));
}
END_TEST

START_TEST(what_is_not_there_completely_is_passed_over)
{
    static const char *const others[] = {"lost+found", "__pycache__", ".snapshots", "empty", "m"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        make_directory(others[i]);
    put_model("m/1", 1);
    make_directory("m/2"); /* empty */
    make_directory("m/3");
    write_in("m/3", "config.json", "{}"); /* without weights */
    make_directory("half");
    put_model("half/3", 1);
    remove_model("half/3/model.safetensors");
    open_and_keep(&(struct repository_options){0});
    ck_assert_uint_eq(catalog->count, 1);
    ck_assert_uint_eq(catalog->status_count, 2);
    ck_assert_int_eq(factor_of("m", NULL), 1);
    expect_state("half", "", MODEL_UNAVAILABLE, "half/3: no model.safetensors in it");
    put_model("half/3", 1);
    look(LOOK_ASKED);
    ck_assert_int_eq(factor_of("half", NULL), 1);
    ck_assert_uint_eq(catalog->status_count, 2);
}
END_TEST

START_TEST(what_failed_is_tried_again_when_it_changes)
{
    put_model("m", 1);
    write_in("m", "config.json", "{");
    open_and_keep(&(struct repository_options){0});
    ck_assert(!catalog_is_ready(catalog));
    look(LOOK_POLL);
    ck_assert_uint_eq(status_of("m", "1")->failures, 1);
    look(LOOK_ASKED);
    ck_assert_uint_eq(status_of("m", "1")->failures, 2);
    put_model("m", 1);
    look(LOOK_POLL); /* it may still be being copied */
    ck_assert_uint_eq(catalog->count, 0);
    look(LOOK_POLL);
    ck_assert_int_eq(factor_of("m", NULL), 1);
    ck_assert(catalog_is_ready(catalog));
    ck_assert_int_eq(repository_check(&kept, &err), 0);
}
END_TEST

START_TEST(the_policy_says_which_versions_are_served)
{
    make_directory("m");
    for (int version = 1; version <= 4; version++) {
        char name[16];
        snprintf(name, sizeof name, "m/%d", version);
        put_model(name, version);
    }
    write_in("m", "serving.json",
             "{'version_policy':{'latest':2},'default_version':3,"
             "'labels':{'stable':3}}");
    open_and_keep(&(struct repository_options){0});
    ck_assert_uint_eq(catalog->count, 2);
    ck_assert_int_eq(factor_of("m", NULL), 3);
    ck_assert_int_eq(factor_of("m", "stable"), 3);
    ck_assert_int_eq(factor_of("m", "4"), 4);
    expect_state("m", "2", MODEL_UNAVAILABLE, "");
    write_in("m", "serving.json", "{'version_policy':{'specific':[1,7]}}");
    look(LOOK_ASKED);
    ck_assert_uint_eq(catalog->count, 1);
    ck_assert_int_eq(factor_of("m", NULL), 1);
    expect_state("m", "7", MODEL_UNAVAILABLE, "it is not there");
    write_in("m", "serving.json", "{'version_policy':{'specific':[2]},'default_version':3}");
    look(LOOK_ASKED);
    ck_assert_int_eq(factor_of("m", "2"), 2);
    ck_assert_ptr_null(catalog_find(catalog, "m", NULL, NULL)); /* what is pinned is not served */
    write_in("m", "serving.json", "{'version':2}");
    look(LOOK_ASKED);
    expect_state("m", "", MODEL_UNAVAILABLE, "m/serving.json: unknown key 'version'");
    ck_assert_int_eq(factor_of("m", "2"), 2);
}
END_TEST

START_TEST(a_failed_version_leaves_the_old_one)
{
    make_directory("m");
    put_model("m/1", 1);
    write_in("m", "serving.json", "{'version_policy':{'latest':1}}");
    open_and_keep(&(struct repository_options){0});
    put_model("m/2", 2);
    write_in("m/2", "config.json", "[]");
    look(LOOK_ASKED);
    ck_assert_int_eq(factor_of("m", NULL), 1);
    expect_state("m", "2", MODEL_UNAVAILABLE, "m/2/config.json");
    put_model("m/2", 2);
    look(LOOK_ASKED);
    ck_assert_int_eq(factor_of("m", NULL), 2);
    ck_assert_ptr_null(catalog_find(catalog, "m", "1", NULL));
    expect_state("m", "1", MODEL_UNLOADING, "");
    ck_assert(!repository_reap(&kept)); /* nobody uses it */
    show();
    expect_state("m", "1", MODEL_UNAVAILABLE, "unloaded");
}
END_TEST

START_TEST(a_limit_is_the_models)
{
    put_model("m", 1);
    write_in("m", "serving.json", "{'warm_up_rows':3,'limits':{'max_request_rows':7}}");
    open_and_keep(&(struct repository_options){0});
    const struct model *model = catalog_find(catalog, "m", NULL, NULL);
    ck_assert_uint_eq(model_max_request_rows(model, 100), 7);
    look(LOOK_ASKED);
    ck_assert_ptr_eq(catalog_find(catalog, "m", NULL, NULL), model);
    write_in("m", "serving.json", "{}");
    look(LOOK_ASKED);
    ck_assert_uint_eq(model_max_request_rows(catalog_find(catalog, "m", NULL, NULL), 100), 100);
}
END_TEST

START_TEST(models_are_loaded_by_name)
{
    put_model("a", 1);
    put_model("b", 2);
    open_and_keep(&(struct repository_options){.by_name = true, .may_be_empty = true});
    ck_assert_uint_eq(catalog->count, 0);
    ck_assert(catalog_is_ready(catalog));
    ck_assert_int_eq(repository_load(&kept, "b", &err), 0);
    show();
    ck_assert_int_eq(factor_of("b", NULL), 2);
    ck_assert_int_eq(repository_load(&kept, "b", &err), 0); /* nothing has changed */
    put_model("b", 3);
    write_in("b", "config.json", "{");
    ck_assert_int_eq(repository_load(&kept, "b", &err), -1);
    expect_text(err.text, "failed to load 'b' version 1: what was loaded before is served");
    show();
    ck_assert_int_eq(factor_of("b", NULL), 2);
    look(LOOK_ASKED);
    ck_assert_uint_eq(catalog->count, 1);
    ck_assert_int_eq(repository_unload(&kept, "b", &err), 0);
    show();
    ck_assert_uint_eq(catalog->count, 0);
    look(LOOK_ASKED);
    ck_assert_uint_eq(catalog->count, 0);
    static const char *const unknown[] = {"c", "", "..", ".", "a/../b"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        err = (struct error)ERROR_INIT;
        ck_assert_int_eq(repository_load(&kept, unknown[i], &err), -1);
        ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
    }
    err = (struct error)ERROR_INIT;
    ck_assert_int_eq(repository_unload(&kept, "c", &err), -1);
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
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

/* What a reload keeps, replaces and drops. */
START_TEST(a_reload_keeps_what_has_not_changed)
{
    put_model("same", 1);
    put_model("changed", 2);
    put_model("gone", 3);
    put_model("half", 5);
    make_directory("both");
    put_model("both/1", 6);
    put_model("both/2", 7);
    open_and_keep(&(struct repository_options){0});
    struct model *same = catalog_find(catalog, "same", NULL, NULL);
    struct model *changed = catalog_find(catalog, "changed", NULL, NULL);
    struct catalog *before = catalog_hold(catalog);
    remove_model("gone");
    remove_model("half/config.json");
    put_model("both", 8); /* ambiguous beside its version directories */
    put_model("changed", 20);
    put_model("new", 4);
    look(LOOK_ASKED);
    ck_assert_uint_eq(catalog->count, 6);
    ck_assert_int_eq(factor_of("half", NULL), 5);
    ck_assert_int_eq(factor_of("both", "1"), 6);
    ck_assert_int_eq(factor_of("both", NULL), 7);
    ck_assert_ptr_eq(catalog_find(catalog, "same", NULL, NULL), same);
    ck_assert_uint_eq(same->holders, 3); /* the repository and two catalogs */
    ck_assert(!catalog_has(catalog, changed));
    ck_assert_int_eq(factor_of("changed", NULL), 20);
    ck_assert_ptr_eq(catalog_find(catalog, "changed", NULL, NULL)->stats, changed->stats);
    ck_assert_int_eq(factor_of("new", NULL), 4);
    ck_assert_ptr_null(catalog_find(catalog, "gone", NULL, &err));
    ck_assert_int_eq(err.code, ERROR_NOT_FOUND);
    expect_state("gone", "1", MODEL_UNLOADING, "");
    ck_assert(repository_reap(&kept)); /* the catalog before has it */
    catalog_release(before);
    ck_assert(!repository_reap(&kept));
    show();
    ck_assert_ptr_null(status_of("gone", "1"));
}
END_TEST

START_TEST(an_empty_directory_is_an_accident)
{
    put_model("m", 1);
    open_and_keep(&(struct repository_options){0});
    remove_model("m");
    ck_assert_int_eq(repository_look(&kept, LOOK_ASKED, &err), -1);
    show();
    ck_assert_int_eq(factor_of("m", NULL), 1);
}
END_TEST

START_TEST(a_look_that_is_stopped_loads_nothing_more)
{
    const atomic_bool stopping = true;
    put_model("m", 1);
    open_and_keep(&(struct repository_options){.stopping = &stopping});
    ck_assert_uint_eq(catalog->count, 0);
    ck_assert(!catalog->complete);
    ck_assert_ptr_null(catalog_find(catalog, "m", NULL, &err));
    expect_text(err.text, "model 'm' version 1 is being loaded");
    err = (struct error)ERROR_INIT;
    ck_assert_ptr_null(catalog_find(catalog, "n", NULL, &err));
    ck_assert_int_eq(err.code, ERROR_UNAVAILABLE); /* nobody knows yet */
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
               one_broken_model_harms_no_other, names_must_fit_labels,
               what_is_not_there_completely_is_passed_over,
               what_failed_is_tried_again_when_it_changes,
               the_policy_says_which_versions_are_served, a_failed_version_leaves_the_old_one,
               a_limit_is_the_models, models_are_loaded_by_name, an_empty_directory_is_an_accident,
               a_model_too_large_for_its_batches_is_named, a_signature_says_what_the_model_says,
               a_reload_keeps_what_has_not_changed, a_look_that_is_stopped_loads_nothing_more,
               a_thousand_names_are_found)
