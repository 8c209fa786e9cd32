/* The model repository looked through again: what is kept, replaced, dropped and reported. */
#include <sys/socket.h>
#include <sys/un.h>

#include "server/statistics/state.h"
#include "test_repository_support.h"

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
    char itself[PATH_MAX];
    snprintf(itself, sizeof itself, "%s/itself", directory);
    ck_assert_int_eq(symlink("itself", itself), 0);
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
    write_in("half/3", "pytorch_model.bin", "");
    look(LOOK_ASKED);
    expect_state("half", "", MODEL_UNAVAILABLE, "it; pytorch_model.bin, which would be executed");
    put_model("half/3", 1);
    look(LOOK_ASKED);
    ck_assert_int_eq(factor_of("half", NULL), 1);
    ck_assert_uint_eq(catalog->status_count, 2);
}
END_TEST

static void set_mode(const char *name, mode_t mode)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    ck_assert_int_eq(chmod(path, mode), 0);
}

/* As a user whom a new file system gives a lost+found of root's. */
START_TEST(what_may_not_be_read_is_a_model_if_it_is_called_like_one)
{
    put_model("good", 1);
    make_directory("lost+found");
    make_directory("locked");
    set_mode("good", 0755);
    set_mode("lost+found", 0);
    set_mode("locked", 0);
    set_mode("", 0755);
    ck_assert_int_eq(chmod(support_root, 0755), 0);
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
    open_and_keep(&(struct repository_options){0});
    if (getuid() == 0)
        ck_assert_int_eq(seteuid(0), 0);
    ck_assert_uint_eq(catalog->status_count, 2);
    expect_state("good", "1", MODEL_READY, "");
    expect_state("locked", "", MODEL_UNAVAILABLE, "locked/serving.json: cannot open: Permission");
    set_mode("lost+found", 0700);
    set_mode("locked", 0700);
}
END_TEST

/* A disk or a network that fails, and rights: what is served must not be taken for gone, nor one
 * version for another. */
START_TEST(what_cannot_be_looked_at_now_is_served_on)
{
    static const char *const hidden[] = {"m", "m/2", "."};
    make_directory("m");
    put_model("m/1", 1);
    put_model("m/2", 2);
    put_model("flat", 5);
    write_in("m", "serving.json", "{'version_policy':{'latest':1}}");
    open_and_keep(&(struct repository_options){0});
    ck_assert_int_eq(factor_of("m", NULL), 2);
    ck_assert_int_eq(chmod(support_root, 0755), 0);
    set_mode("m", 0755);
    for (size_t i = 0; i < sizeof hidden / sizeof *hidden; i++) {
        set_mode(".", 0755);
        set_mode(hidden[i], 0744); /* its names can be read, and no more */
        if (geteuid() == 0)
            ck_assert_int_eq(seteuid(65534), 0);
        look(LOOK_POLL);
        look(LOOK_ASKED);
        if (getuid() == 0)
            ck_assert_int_eq(seteuid(0), 0);
        set_mode(hidden[i], 0755);
        ck_assert_uint_eq(catalog->count, 2);
        ck_assert_int_eq(factor_of("m", NULL), 2);
        ck_assert_int_eq(factor_of("flat", NULL), 5);
        expect_state("m", "", MODEL_UNAVAILABLE, "Permission denied");
        expect_state("m", "2", MODEL_READY, "");
    }
    look(LOOK_ASKED);
    ck_assert_int_eq(factor_of("m", NULL), 2);
    ck_assert_int_eq(factor_of("flat", NULL), 5);
    ck_assert_int_eq(repository_check(&kept, &err), 0);
}
END_TEST

/* Nor what serving.json says for nothing. */
START_TEST(a_policy_that_cannot_be_looked_at_now_holds)
{
    char path[PATH_MAX], target[PATH_MAX];
    make_directory("m");
    make_directory("else");
    put_model("m/1", 1);
    put_model("m/2", 2);
    write_in("else", "serving.json", "{'version_policy':{'specific':[1]}}");
    snprintf(path, sizeof path, "%s/m/serving.json", directory);
    snprintf(target, sizeof target, "%s/else/serving.json", directory);
    ck_assert_int_eq(symlink(target, path), 0);
    ck_assert_int_eq(chmod(support_root, 0755), 0);
    for (const char *const *at = (const char *const[]){"", "m", "m/1", "m/2", NULL}; *at; at++)
        set_mode(*at, 0755);
    open_and_keep(&(struct repository_options){0});
    ck_assert_int_eq(factor_of("m", NULL), 1);
    if (geteuid() == 0)
        ck_assert_int_eq(seteuid(65534), 0);
    else
        set_mode("else", 0);
    look(LOOK_ASKED);
    if (getuid() == 0)
        ck_assert_int_eq(seteuid(0), 0);
    set_mode("else", 0700);
    ck_assert_int_eq(factor_of("m", NULL), 1);
    expect_state("m", "", MODEL_UNAVAILABLE, "serving.json");
    look(LOOK_ASKED);
    ck_assert_int_eq(factor_of("m", NULL), 1);
    ck_assert_uint_eq(catalog->count, 1);
}
END_TEST

/* Here the list of experts in quarantine; memory, descriptors and a disk are the same. */
START_TEST(what_the_machine_failed_is_tried_again_at_polls)
{
    struct sockaddr_un there = {.sun_family = AF_UNIX};
    struct quarantine quarantine;
    struct state state;
    put_model("m", 1);
    char *kept_in = new_directory();
    snprintf(there.sun_path, sizeof there.sun_path, "%s/quarantine.json", kept_in);
    const int unreadable = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(unreadable, (struct sockaddr *)&there, sizeof there), 0);
    state_init(&state, kept_in, 1);
    quarantine_init(&quarantine, &state);
    open_and_keep(&(struct repository_options){.models.quarantine = &quarantine});
    expect_state("m", "1", MODEL_UNAVAILABLE, "it says which experts must not serve");
    ck_assert_int_eq(unlink(there.sun_path), 0);
    look(LOOK_POLL);
    ck_assert_uint_eq(status_of("m", "1")->failures, 1); /* not at once again */
    uv_sleep(600);
    look(LOOK_POLL);
    ck_assert_int_eq(factor_of("m", NULL), 1);
    expect_state("m", "1", MODEL_READY, "");
    quarantine_close(&quarantine);
    state_close(&state);
    close(unreadable);
    free(kept_in);
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
    put_model("later", 2);
    look(LOOK_POLL);
    expect_state("later", "1", MODEL_UNAVAILABLE,
                 "new: it is loaded once a poll finds it unchanged");
    look(LOOK_POLL);
    expect_state("later", "1", MODEL_READY, "");
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
             "'labels':{'stable':3,'new':4,'a':3}}");
    open_and_keep(&(struct repository_options){0});
    ck_assert_uint_eq(catalog->count, 2);
    ck_assert_int_eq(factor_of("m", NULL), 3);
    ck_assert_int_eq(factor_of("m", "stable"), 3);
    ck_assert_int_eq(factor_of("m", "new"), 4);
    ck_assert_int_eq(factor_of("m", "a"), 3);
    ck_assert_ptr_null(catalog_find(catalog, "m", "old", NULL));
    ck_assert_int_eq(factor_of("m", "4"), 4);
    expect_state("m", "2", MODEL_UNAVAILABLE, "left out by the version policy");
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
    struct error absent = ERROR_INIT; /* what is wrong with the file is not why */
    ck_assert_ptr_null(catalog_find(catalog, "m", "99", &absent));
    ck_assert_int_eq(absent.code, ERROR_NOT_FOUND);
}
END_TEST

START_TEST(nobody_waits_for_a_pipes_writer)
{
    char pipe[PATH_MAX];
    make_directory("m");
    put_model("m/1", 1);
    open_and_keep(&(struct repository_options){0});
    snprintf(pipe, sizeof pipe, "%s/m/serving.json", directory);
    ck_assert_int_eq(mkfifo(pipe, 0600), 0);
    look(LOOK_ASKED);
    expect_state("m", "", MODEL_UNAVAILABLE, "m/serving.json: not a regular file");
    ck_assert_int_eq(factor_of("m", NULL), 1);
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
    expect_state("a", "1", MODEL_UNAVAILABLE, "nobody has asked for it");
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

TEST_MAIN_WITH("repository_look", begin, end, one_broken_model_harms_no_other,
               what_is_not_there_completely_is_passed_over,
               what_may_not_be_read_is_a_model_if_it_is_called_like_one,
               what_cannot_be_looked_at_now_is_served_on,
               a_policy_that_cannot_be_looked_at_now_holds,
               what_the_machine_failed_is_tried_again_at_polls,
               what_failed_is_tried_again_when_it_changes,
               the_policy_says_which_versions_are_served, nobody_waits_for_a_pipes_writer,
               a_failed_version_leaves_the_old_one, a_limit_is_the_models,
               models_are_loaded_by_name, a_reload_keeps_what_has_not_changed,
               an_empty_directory_is_an_accident, a_look_that_is_stopped_loads_nothing_more)
