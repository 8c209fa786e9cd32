/* Reading keys and making views, where the first error stays. */
#include "core/family/translation.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/text.h"

/* Far above every published model's sizes, and small enough to multiply three of them. */
enum { MOST = 1 << 20 };

bool translation_failed(const struct translation *t)
{
    return t->err->code != ERROR_NONE;
}

struct tensor_name named(const char *format, ...)
{
    struct tensor_name name;
    va_list args;
    va_start(args, format);
    vsnprintf(name.text, sizeof name.text, format, args);
    va_end(args);
    return name;
}

/* ---- keys --------------------------------------------------------------------------------- */

size_t read_size(struct translation *t, const char *key, size_t otherwise)
{
    int64_t value = 1;
    if (translation_failed(t) ||
        config_integer(t->config, key, otherwise ? (int64_t)otherwise : CONFIG_REQUIRED,
                       within(1, MOST), &value, t->err) != 0)
        return 1;
    return (size_t)value;
}

size_t read_uniform(struct translation *t, const char *key, size_t otherwise)
{
    int32_t *list = NULL;
    size_t count = 0, value = 1;
    if (translation_failed(t) || !config_has(t->config, key) ||
        !json_is_array(json_object_get(t->config->json, key)))
        return read_size(t, key, otherwise);
    if (config_integers(t->config, key, within(1, MOST), &list, &count, t->err) != 0)
        return 1;
    value = (size_t)list[0];
    for (size_t i = 1; i < count; i++)
        if (list[i] != list[0])
            config_error(t->config, key, t->err, "layers that differ are not supported");
    free(list);
    return value;
}

double read_real(struct translation *t, const char *key, double otherwise)
{
    double value = otherwise;
    if (translation_failed(t) || config_real(t->config, key, &otherwise, &value, t->err) != 0)
        return otherwise;
    return value;
}

bool read_flag(struct translation *t, const char *key, bool otherwise)
{
    bool value = otherwise;
    if (translation_failed(t) || config_flag(t->config, key, otherwise, &value, t->err) != 0)
        return otherwise;
    return value;
}

void read_only(struct translation *t, const char *key, const char *only)
{
    const char *value;
    if (translation_failed(t) || config_text(t->config, key, only, &value, t->err) != 0)
        return;
    if (strcmp(value, only) != 0)
        config_error(t->config, key, t->err, "\"%.40s\" is not supported, only \"%s\"", value,
                     only);
}

void read_only_flag(struct translation *t, const char *key, bool only)
{
    if (read_flag(t, key, only) != only && !translation_failed(t))
        config_error(t->config, key, t->err, "%s is not supported", only ? "false" : "true");
}

void read_only_size(struct translation *t, const char *key, size_t only)
{
    if (read_size(t, key, only) != only && !translation_failed(t))
        config_error(t->config, key, t->err, "only %zu is supported", only);
}

/* Blocks of 128 x 128, the only ones of published checkpoints. */
static void read_fp8(struct translation *t, struct config_node *own)
{
    static const char *const formats[] = {"e4m3", "float8_e4m3fn", NULL};
    int format;
    int32_t *block = NULL;
    size_t count = 0;
    config_has(own, "activation_scheme"); /* activations stay f32 */
    config_has(own, "scale_fmt");         /* of activations; factors of weights are F32 */
    if (!config_has(own, "weight_block_size"))
        config_error(own, "weight_block_size", t->err,
                     "missing; FP8 is read in blocks of [%d, %d], with a factor for each",
                     FP8_BLOCK, FP8_BLOCK);
    if (translation_failed(t) || config_choice(own, "fmt", formats, 0, &format, t->err) != 0 ||
        config_integers(own, "weight_block_size", within(1, INT32_MAX), &block, &count, t->err) !=
            0)
        return;
    if (count != 2 || block[0] != FP8_BLOCK || block[1] != FP8_BLOCK)
        config_error(own, "weight_block_size", t->err, "expected [%d, %d]", FP8_BLOCK, FP8_BLOCK);
    free(block);
}

void read_quantization(struct translation *t)
{
    static const char *const methods[] = {"mxfp4", "fp8", NULL};
    struct config_node own;
    int method;
    if (translation_failed(t) || !config_has(t->config, "quantization_config") ||
        config_object(t->config, "quantization_config", &own, t->err) != 0)
        return;
    config_drop_nulls(&own);
    config_has(&own, "modules_to_not_convert");
    config_has(&own, "dequantize");
    if (config_choice(&own, "quant_method", methods, -1, &method, t->err) != 0)
        return;
    if (method == 1)
        read_fp8(t, &own);
    if (translation_failed(t) || config_done(&own, t->err) != 0)
        return;
}

void read_done(struct translation *t)
{
    for (const char *key = NULL; !translation_failed(t) && (key = config_next_key(t->config, key));)
        if (!config_was_asked(t->config, key) && !read_settled(t, key))
            config_error(t->config, NULL, t->err,
                         "the key '%.60s' is not known for model_type \"%s\"", key,
                         t->family->name);
}

/* ---- tensors ------------------------------------------------------------------------------ */

struct tensor *find_tensor(const struct translation *t, const char *name)
{
    static const char whole[] = "model.";
    bool cut = t->bare && strncmp(name, whole, sizeof whole - 1) == 0;
    return safetensors_find(t->tensors, cut ? name + sizeof whole - 1 : name);
}

bool is_stored(const struct translation *t, const char *name)
{
    return find_tensor(t, name) != NULL;
}

static bool has_shape(const struct tensor *tensor, size_t rank, const size_t *dims)
{
    return tensor->rank == rank && memcmp(tensor->dims, dims, rank * sizeof *dims) == 0;
}

static struct tensor *find_stored(struct translation *t, const char *name, size_t rank,
                                  const size_t *dims)
{
    char found[SHAPE_TEXT_BYTES], expected[SHAPE_TEXT_BYTES];
    if (translation_failed(t))
        return NULL;
    struct tensor *tensor = find_tensor(t, name);
    if (!tensor)
        error_set(t->err, ERROR_INVALID, "%s: tensor '%s' is missing", safetensors_name(t->tensors),
                  name);
    else if (!has_shape(tensor, rank, dims))
        tensor_error(tensor, t->err, ERROR_INVALID, " has shape %s, expected %s",
                     text_of_shape(found, NULL, tensor->dims, tensor->rank, ", "),
                     text_of_shape(expected, NULL, dims, rank, ", "));
    return translation_failed(t) ? NULL : tensor;
}

struct tensor *stored(struct translation *t, const char *name, size_t rank, const size_t *dims)
{
    struct tensor *tensor = find_stored(t, name, rank, dims);
    if (!tensor || dtype_is_plain(tensor->dtype))
        return tensor;
    tensor_error(tensor, t->err, ERROR_INVALID, ": dtype %s is not one of F32, F16, BF16",
                 dtype_name(tensor->dtype));
    return NULL;
}

struct tensor *stored_bytes(struct translation *t, const char *name, size_t rank,
                            const size_t *dims)
{
    struct tensor *tensor = find_stored(t, name, rank, dims);
    if (!tensor || tensor->dtype == DTYPE_U8)
        return tensor;
    tensor_error(tensor, t->err, ERROR_INVALID, ": dtype %s is not U8", dtype_name(tensor->dtype));
    return NULL;
}

static void add_parts(struct translation *t, const char *to, size_t rank,
                      const struct view_part *parts, size_t count)
{
    if (translation_failed(t) || views_add(t->family->views, to, rank, parts, count, t->err) != 0)
        return;
}

void add_part(struct translation *t, const char *to, size_t rank, const struct view_part *part)
{
    add_parts(t, to, rank, part, 1);
}

/* All of a matrix, which may be FP8. */
struct view_part whole_matrix(struct translation *t, const char *from, size_t n, size_t k)
{
    const size_t dims[] = {n, k};
    const size_t blocks[] = {(n + FP8_BLOCK - 1) / FP8_BLOCK, (k + FP8_BLOCK - 1) / FP8_BLOCK};
    struct view_part part = {.rows = n, .columns = k, .row_stride = k, .column_stride = 1};
    part.source = find_stored(t, from, 2, dims);
    if (part.source && part.source->dtype == DTYPE_F8_E4M3) {
        part.scales = stored(t, named("%s_scale_inv", from).text, 2, blocks);
        return part;
    }
    part.source = stored(t, from, 2, dims);
    return part;
}

void add_matrix(struct translation *t, const char *to, const char *from, size_t n, size_t k)
{
    const struct view_part part = whole_matrix(t, from, n, k);
    add_part(t, to, 2, &part);
}

void add_vector(struct translation *t, const char *to, const char *from, size_t n)
{
    const struct view_part part = {.source = stored(t, from, 1, &n),
                                   .rows = n,
                                   .columns = 1,
                                   .row_stride = 1,
                                   .column_stride = 1};
    add_part(t, to, 1, &part);
}

void add_linear(struct translation *t, const char *to, const char *from, const size_t size[2],
                bool bias)
{
    add_matrix(t, named("%s.weight", to).text, named("%s.weight", from).text, size[0], size[1]);
    if (bias)
        add_vector(t, named("%s.bias", to).text, named("%s.bias", from).text, size[0]);
}

void add_stack(struct translation *t, const char *to, const struct tensor_name from[3],
               const size_t rows[3], size_t columns)
{
    struct view_part parts[3];
    for (size_t i = 0; i < 3; i++) {
        if (columns > 1) {
            parts[i] = whole_matrix(t, from[i].text, rows[i], columns);
            continue;
        }
        parts[i] = (struct view_part){.source = stored(t, from[i].text, 1, &rows[i]),
                                      .rows = rows[i],
                                      .columns = 1,
                                      .row_stride = 1,
                                      .column_stride = 1};
    }
    add_parts(t, to, columns > 1 ? 2 : 1, parts, 3);
}

static void ignore(struct translation *t, struct tensor *tensor)
{
    struct family *family = t->family;
    if (tensor->used)
        return;
    tensor->used = true;
    family->ignored =
        xrealloc(family->ignored, (family->ignored_count + 1) * sizeof *family->ignored);
    family->ignored[family->ignored_count++] = xstrdup(tensor->name);
}

void ignore_suffix(struct translation *t, const char *suffix)
{
    struct tensor *tensor;
    for (size_t i = 0; (tensor = safetensors_at(t->tensors, i)); i++) {
        size_t length = strlen(tensor->name), most = strlen(suffix);
        if (length >= most && strcmp(tensor->name + length - most, suffix) == 0)
            ignore(t, tensor);
    }
}

void ignore_prefix(struct translation *t, const char *prefix)
{
    struct tensor *tensor;
    for (size_t i = 0; (tensor = safetensors_at(t->tensors, i)); i++)
        if (strncmp(tensor->name, prefix, strlen(prefix)) == 0)
            ignore(t, tensor);
}
