/* Repositories on the disk: whatever files are there, and however they change between two looks,
 * what is known of them is told, and what is served is whole. An input is a script of files. */
#include <ftw.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz_directory.h"
#include "libfuzzer.h"
#include "server/log.h"
#include "server/models/repository.h"

static const char GOOD[] =
    "{\"model_type\":\"moed\",\"format_version\":1,\"input\":{\"shape\":[1]},"
    "\"layers\":[{\"op\":\"scale\",\"value\":2}]}";

static const char *const FILES[] = {"a/config.json",
                                    "a/serving.json",
                                    "a/1/config.json",
                                    "a/2/config.json",
                                    "a/10/config.json",
                                    "a/02/config.json",
                                    "a/model.safetensors",
                                    "a/1/model.safetensors",
                                    "b/config.json",
                                    "b/serving.json",
                                    "b/x/config.json",
                                    ".hidden/config.json",
                                    "c d/config.json",
                                    "plain",
                                    "b/99999999999999999999/config.json",
                                    "b/1"};

static const char NO_TENSORS[] = "\2\0\0\0\0\0\0\0{}";

enum { FILE_COUNT = sizeof FILES / sizeof *FILES, ROOT_BYTES = 64 };

/* What a step does to its file; the first byte of a step has this and which file it is. */
enum act { WRITE_GOOD, WRITE_REST, REMOVE, LINK_TO_ITSELF };

static char root[ROOT_BYTES];

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

static void make_parents(const char *path)
{
    char parent[PATH_MAX];
    for (const char *slash = strchr(path + strlen(root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
        mkdir(parent, 0700);
    }
}

static void put(const char *path, const void *bytes, size_t count)
{
    make_parents(path);
    FILE *file = fopen(path, "wb"); /* NULL where a directory is in the way */
    if (!file)
        return;
    fwrite(bytes, 1, count, file);
    fclose(file);
}

/* Returns how many bytes the step took. */
static size_t act_on(const uint8_t *step, size_t size)
{
    char path[PATH_MAX];
    size_t length = size > 1 ? step[1] : 0;
    length = length < size - 1 ? length : size - 1 - (size > 1);
    const char *rest = size > 1 ? (const char *)step + 2 : "";
    snprintf(path, sizeof path, "%s/%s", root, FILES[step[0] % FILE_COUNT]);
    switch ((enum act)(step[0] / FILE_COUNT % 4)) {
    case WRITE_GOOD:
        if (strstr(path, ".safetensors"))
            put(path, NO_TENSORS, sizeof NO_TENSORS - 1);
        else
            put(path, GOOD, strlen(GOOD));
        return 1;
    case WRITE_REST:
        put(path, rest, size > 1 ? length : 0);
        return size > 1 ? 2 + length : 1;
    case REMOVE:
        remove(path);
        return 1;
    case LINK_TO_ITSELF:
        make_parents(path);
        (void)!symlink(path, path);
        return 1;
    }
    return 1;
}

/* A version that is ready is served, and what has failed says why. */
static void check(const struct repository *repository)
{
    struct catalog *catalog = repository_catalog(repository);
    size_t ready = 0;
    for (size_t i = 0; i < catalog->status_count; i++) {
        const struct model_status *status = &catalog->statuses[i];
        ready += status->state == MODEL_READY;
        if (status->failed && !*status->reason)
            abort();
    }
    if (ready != catalog->count)
        abort();
    catalog_release(catalog);
}

static void look(struct repository *repository, enum repository_look why)
{
    struct error err = ERROR_INIT;
    if ((repository_look(repository, why, &err) == 0) != (err.code == ERROR_NONE))
        abort();
    check(repository);
    repository_reap(repository);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc, (void)argv;
    log_set_level((enum log_level) - 1); /* not even errors, for each input has some */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum repository_look LOOKS[] = {LOOK_START, LOOK_POLL, LOOK_POLL, LOOK_ASKED};
    struct repository repository;
    struct error err = ERROR_INIT;
    make_fuzz_directory(root);
    const struct repository_options options = {
        .directory = root,
        .may_be_empty = true,
        .models = {.loops = 1, .max_batch_rows = 4, .threads = 1}};
    repository_init(&repository, &options);
    size_t at = 0;
    for (size_t i = 0; i < sizeof LOOKS / sizeof *LOOKS; i++) {
        for (size_t until = size * (i + 1) / 4; at < until;)
            at += act_on(data + at, size - at);
        look(&repository, LOOKS[i]);
    }
    (void)!repository_load(&repository, "a", &err);
    check(&repository);
    (void)!repository_unload(&repository, "a", &err);
    check(&repository);
    repository_close(&repository);
    nftw(root, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}
