/* Sums are in double, in the order of the rows, so that they do not depend on what else is
 * computed.
 */
#include "proto/pooling.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "proto/text/json_node.h"

enum { PATH_BYTES = 4096 };

/* ---- what the directory says ---- */

static const struct mode {
    const char *name, *flag; /* "pooling_mode", and how it was said before: a flag for each */
    int kind;                /* -1: not supported */
} MODES[] = {
    {"mean", "pooling_mode_mean_tokens", POOLING_MEAN},
    {"cls", "pooling_mode_cls_token", POOLING_FIRST},
    {"lasttoken", "pooling_mode_lasttoken", POOLING_LAST},
    {"max", "pooling_mode_max_tokens", POOLING_MAX},
    {"mean_sqrt_len_tokens", "pooling_mode_mean_sqrt_len_tokens", -1},
    {"weightedmean", "pooling_mode_weightedmean_tokens", -1},
};

enum { MODE_COUNT = sizeof MODES / sizeof *MODES };

static int set_mode(struct pooling *pooling, const struct json_node *node, const char *name,
                    int kind, struct error *err)
{
    if (kind < 0)
        return node_error(node, err, ERROR_INVALID, "%.40s is not supported", name);
    pooling->kind = (enum pooling_kind)kind;
    return 0;
}

/* Several would be vectors behind each other. */
static int read_named(struct pooling *pooling, const struct json_node *node, struct error *err)
{
    struct json_node mode = *node;
    size_t i = 0;
    if (json_is_array(node->json) && json_array_size(node->json) == 1)
        mode = node_item(node, 0);
    if (!json_is_string(mode.json))
        return node_error(node, err, ERROR_INVALID, "expected one mode of pooling");
    const char *name = json_string_value(mode.json);
    while (i < MODE_COUNT && strcmp(MODES[i].name, name) != 0)
        i++;
    return set_mode(pooling, &mode, name, i < MODE_COUNT ? MODES[i].kind : -1, err);
}

static int read_flags(struct pooling *pooling, const struct json_node *config, struct error *err)
{
    const bool otherwise = false;
    size_t chosen = 0;
    for (size_t i = 0; i < MODE_COUNT; i++) {
        bool on;
        if (node_bool(config, MODES[i].flag, &otherwise, &on, err) != 0)
            return -1;
        if (on && set_mode(pooling, config, MODES[i].flag, MODES[i].kind, err) != 0)
            return -1;
        chosen += on;
    }
    if (chosen <= 1)
        return 0;
    return node_error(config, err, ERROR_INVALID, "%zu modes of pooling, expected one", chosen);
}

static int read_mode(struct pooling *pooling, const struct json_node *config, struct error *err)
{
    const struct json_node named = node_member(config, "pooling_mode");
    return named.json ? read_named(pooling, &named, err) : read_flags(pooling, config, err);
}

/* What a text goes through, in this order; the last may be missing. Anything else, such as a
 * matrix behind the vector, would be another vector. */
static const char *const MODULES[] = {"Transformer", "Pooling", "Normalize"};

static int read_modules(struct pooling *pooling, const struct json_node *list, struct error *err)
{
    size_t count;
    if (node_list(list, &count, err) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        const struct json_node module = node_item(list, i);
        const char *type, *dot;
        if (node_text(&module, "type", NULL, &type, err) != 0)
            return -1;
        dot = strrchr(type, '.');
        if (i >= 3 || strcmp(dot ? dot + 1 : type, MODULES[i]) != 0)
            return node_error(&module, err, ERROR_INVALID,
                              "\"%.80s\" is not supported, only Transformer, Pooling and, if at "
                              "all, Normalize, in this order",
                              type);
    }
    if (count < 2)
        return node_error(list, err, ERROR_INVALID, "expected a Transformer and a Pooling");
    pooling->normalize = count == 3;
    return 0;
}

/* A file that need not be there. */
static int read_file(struct pooling *pooling, const char *directory, const char *name,
                     int (*read)(struct pooling *pooling, const struct json_node *node,
                                 struct error *err),
                     struct error *err)
{
    char path[PATH_BYTES];
    struct error unread = ERROR_INIT;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    json_t *tree = node_load(path, &unread);
    if (!tree)
        return unread.code == ERROR_NOT_FOUND ? 0 : error_set(err, unread.code, "%s", unread.text);
    const struct json_node node = {.json = tree};
    const int result = read(pooling, &node, err);
    if (result != 0)
        error_prefix(err, "%s", path);
    json_decref(tree);
    return result;
}

int pooling_load(struct pooling *pooling, const char *directory, struct error *err)
{
    *pooling = (struct pooling){.kind = POOLING_MEAN, .normalize = true};
    if (read_file(pooling, directory, "1_Pooling/config.json", read_mode, err) != 0)
        return -1;
    return read_file(pooling, directory, "modules.json", read_modules, err);
}

/* ---- vectors ---- */

static float mean_of(const float *column, size_t count, size_t size)
{
    double sum = 0;
    for (size_t row = 0; row < count; row++)
        sum += (double)column[row * size];
    return (float)(sum / (double)count);
}

static float largest_of(const float *column, size_t count, size_t size)
{
    float largest = column[0];
    for (size_t row = 1; row < count; row++)
        largest = fmaxf(largest, column[row * size]);
    return largest;
}

void pooling_run(const struct pooling *pooling, const float *rows, size_t count, size_t size,
                 float *vector)
{
    const float *row = pooling->kind == POOLING_LAST ? rows + (count - 1) * size : rows;
    if (pooling->kind == POOLING_FIRST || pooling->kind == POOLING_LAST)
        memcpy(vector, row, size * sizeof *vector);
    for (size_t i = 0; i < size && pooling->kind == POOLING_MEAN; i++)
        vector[i] = mean_of(rows + i, count, size);
    for (size_t i = 0; i < size && pooling->kind == POOLING_MAX; i++)
        vector[i] = largest_of(rows + i, count, size);
}

void pooling_normalize(float *vector, size_t size)
{
    double sum = 0;
    for (size_t i = 0; i < size; i++)
        sum += (double)vector[i] * (double)vector[i];
    const double length = sqrt(sum);
    for (size_t i = 0; i < size && length > 0; i++)
        vector[i] = (float)((double)vector[i] / length);
}
