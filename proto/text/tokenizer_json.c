/* The file, its parts in an order in which each finds what it needs. */
#include "proto/text/tokenizer_json.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/parse_json.h"

/* Published files have up to 35 MB; jansson takes some six times that, and gives it back. */
enum { TOKENIZER_MAX_FILE_BYTES = 128 << 20 };
#define TOKENIZER_MAX_TREE_BYTES ((size_t)2 << 30)

/* What is put around a text is tokens that there are. */
static int check_around(const struct tokenizer *tokenizer, const struct json_node *post_processor,
                        struct error *err)
{
    const struct around *const sides[] = {&tokenizer->before, &tokenizer->after};
    for (size_t side = 0; side < 2; side++)
        for (size_t i = 0; i < sides[side]->count; i++)
            if ((size_t)sides[side]->ids[i] >= tokenizer->vocabulary.size)
                return node_error(post_processor, err, ERROR_INVALID, "no token has the id %d",
                                  (int)sides[side]->ids[i]);
    return 0;
}

static int read_parts(struct tokenizer *tokenizer, const struct json_node *root, struct error *err)
{
    struct json_node normalizer = node_member(root, "normalizer");
    struct json_node splitter = node_member(root, "pre_tokenizer");
    struct json_node post_processor = node_member(root, "post_processor");
    struct json_node decoder = node_member(root, "decoder");
    struct json_node model = node_member(root, "model");
    struct json_node added = node_member(root, "added_tokens");
    if (node_only(root,
                  "version truncation padding added_tokens normalizer pre_tokenizer post_processor "
                  "decoder model",
                  err) != 0 ||
        read_normalizer(&tokenizer->normalizer, &normalizer, err) != 0 ||
        read_splitter(&tokenizer->splitter, &splitter, err) != 0 ||
        read_post_processor(tokenizer, &post_processor, err) != 0 ||
        read_decoder(&tokenizer->decoder, &decoder, err) != 0 ||
        read_model(tokenizer, &model, err) != 0)
        return -1;
    if (read_added_tokens(tokenizer, &added, err) != 0)
        return -1;
    return check_around(tokenizer, &post_processor, err);
}

struct tokenizer *tokenizer_new(const char *json, size_t length, struct error *err)
{
    struct json_fault fault;
    json_t *tree = parse_json(json, length, 0, TOKENIZER_MAX_TREE_BYTES, &fault);
    if (!tree) {
        size_t line, column;
        json_line_and_column(json, fault.position, &line, &column);
        error_set(err, json_fault_code(&fault), "line %zu, column %zu: %s", line, column,
                  fault.reason);
        return NULL;
    }
    struct tokenizer *tokenizer = xcalloc(1, sizeof *tokenizer);
    vocabulary_init(&tokenizer->vocabulary);
    struct json_node root = {.json = tree};
    int result = read_parts(tokenizer, &root, err);
    json_decref(tree);
#ifdef __GLIBC__
    malloc_trim(0); /* the tree took some hundred megabytes that nothing else asks for soon */
#endif
    if (result == 0) {
        tokenizer_find_bound(tokenizer);
        return tokenizer;
    }
    tokenizer_free(tokenizer);
    return NULL;
}

struct tokenizer *tokenizer_load(const char *path, struct error *err)
{
    size_t length;
    char *json = file_read(path, TOKENIZER_MAX_FILE_BYTES, &length, err);
    if (json)
        json_shorten_integers(json, length);
    struct tokenizer *tokenizer = json ? tokenizer_new(json, length, err) : NULL;
    free(json);
    if (!tokenizer)
        error_prefix(err, "%s", path);
    return tokenizer;
}
