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

static const struct {
    const char *key;
    int kind; /* -1: not supported */
} MODES[] = {{"pooling_mode_mean_tokens", POOLING_MEAN}, {"pooling_mode_cls_token", POOLING_FIRST},
             {"pooling_mode_lasttoken", POOLING_LAST},   {"pooling_mode_max_tokens", POOLING_MAX},
             {"pooling_mode_mean_sqrt_len_tokens", -1},  {"pooling_mode_weightedmean_tokens", -1}};

/* Exactly one mode: several would be vectors behind each other. */
static int read_mode(struct pooling *pooling, const struct json_node *config, struct error *err)
{
    const bool otherwise = false;
    size_t chosen = 0;
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
        bool on;
        if (node_bool(config, MODES[i].key, &otherwise, &on, err) != 0)
            return -1;
        if (!on)
            continue;
        if (MODES[i].kind < 0)
            return node_error(config, err, ERROR_INVALID, "%s is not supported", MODES[i].key);
        pooling->kind = (enum pooling_kind)MODES[i].kind;
        chosen++;
    }
    if (chosen == 1)
        return 0;
    return node_error(config, err, ERROR_INVALID, "%zu modes of pooling, expected one", chosen);
}

static int read_modules(struct pooling *pooling, const struct json_node *list, struct error *err)
{
    size_t count;
    if (node_list(list, &count, err) != 0)
        return -1;
    pooling->normalize = false;
    for (size_t i = 0; i < count; i++) {
        const struct json_node module = node_item(list, i);
        const char *type, *dot;
        if (node_text(&module, "type", NULL, &type, err) != 0)
            return -1;
        dot = strrchr(type, '.');
        pooling->normalize |= strcmp(dot ? dot + 1 : type, "Normalize") == 0;
    }
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
