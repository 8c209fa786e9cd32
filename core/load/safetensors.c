/* The safetensors container: 8 bytes of header length, a JSON header that maps names to dtype,
 * shape and byte offsets, then the data. */
#include "core/load/safetensors.h"

#include <jansson.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/load/config.h"
#include "core/load/file_map.h"
#include "core/memory.h"
#include "core/moed.h"
#include "core/parse_json.h"
#include "core/text.h"

/* A false header length must not cause a huge parse: this is the limit of the reference
 * implementation. The heap suffices for 150,000 tensors in one file, and stops a header of empty
 * objects, of which jansson makes eighty times its size. */
enum { MAX_HEADER_BYTES = 100 * 1000 * 1000, MAX_HEADER_HEAP = 256 << 20 };
/* An index of a million shards would exhaust mappings; the largest published models have hundreds.
 */
enum { MAX_SHARDS = 4096 };

#define SINGLE "model.safetensors"
#define INDEX  "model.safetensors.index.json"
#define PICKLE "pytorch_model.bin"

struct mapping {
    char *name;   /* file name inside the checkpoint directory */
    dev_t device; /* with inode: which file it is, under whatever name */
    ino_t inode;
    struct file_map map;
    const char *data;  /* after the header: the tensors' bytes, */
    size_t data_bytes; /* and how many there are */
};

struct safetensors {
    const char *name; /* SINGLE or INDEX */
    bool copy;        /* map nothing */
    struct mapping *mappings;
    size_t mapping_count;
    struct tensor *tensors; /* sorted by name once loaded */
    size_t tensor_count, tensor_capacity;
};

/* Where a tensor's bytes begin and end in its file; used only while a header is checked. */
struct extent {
    size_t begin, end;
    const char *name;
};

/* One file listed under thousands of names would be read as often. What is not there is for
 * file_map_init() to tell. */
static int check_is_new(const struct safetensors *file, const char *path, const char *name,
                        struct mapping *mapping, struct error *err)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return 0;
    mapping->device = status.st_dev;
    mapping->inode = status.st_ino;
    for (size_t i = 0; i < file->mapping_count; i++)
        if (file->mappings[i].device == status.st_dev && file->mappings[i].inode == status.st_ino)
            return error_set(err, ERROR_INVALID, INDEX ": %s and %s are one file",
                             file->mappings[i].name, name);
    return 0;
}

static int map_file(const struct safetensors *file, const char *directory, const char *name,
                    struct mapping *mapping, struct error *err)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/%s", directory, name) >= (int)sizeof path)
        return error_set(err, ERROR_INVALID, "%s: path too long", name);
    *mapping = (struct mapping){0};
    if (check_is_new(file, path, name, mapping, err) != 0 ||
        file_map_init(&mapping->map, path, sizeof(uint64_t), file->copy, err) != 0)
        return -1;
    mapping->name = xstrdup(name);
    return 0;
}

static int parse_shape(json_t *shape, struct tensor *tensor, const char *where, struct error *err)
{
    if (!json_is_array(shape) || json_array_size(shape) > TENSOR_MAX_RANK)
        return error_set(err, ERROR_INVALID, "%s: shape must be a list of at most %d sizes", where,
                         TENSOR_MAX_RANK);
    tensor->rank = json_array_size(shape);
    tensor->elements = 1;
    for (size_t i = 0; i < tensor->rank; i++) {
        json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 1)
            return error_set(err, ERROR_INVALID, "%s: shape[%zu] must be a positive integer", where,
                             i);
        tensor->dims[i] = (size_t)json_integer_value(dim);
        if (__builtin_mul_overflow(tensor->elements, tensor->dims[i], &tensor->elements))
            return error_set(err, ERROR_INVALID, "%s: shape overflows", where);
    }
    return 0;
}

static int parse_extent(json_t *offsets, size_t data_bytes, struct extent *extent,
                        const char *where, struct error *err)
{
    json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return error_set(err, ERROR_INVALID, "%s: data_offsets must be [begin, end]", where);
    json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || (uint64_t)to > data_bytes)
        return error_set(
            err, ERROR_INVALID,
            "%s: data_offsets [%lld, %lld] do not lie within the file's %zu data bytes", where,
            (long long)from, (long long)to, data_bytes);
    extent->begin = (size_t)from;
    extent->end = (size_t)to;
    return 0;
}

static struct tensor *append_tensor(struct safetensors *file, const char *name, struct error *err)
{
    if (file->tensor_count == file->tensor_capacity) {
        size_t capacity = file->tensor_capacity ? 2 * file->tensor_capacity : 64;
        struct tensor *grown = realloc(file->tensors, capacity * sizeof *grown);
        if (!grown) {
            error_set(err, ERROR_UNAVAILABLE, "no memory for %zu tensor%s", capacity,
                      text_s(capacity));
            return NULL;
        }
        file->tensors = grown;
        file->tensor_capacity = capacity;
    }
    struct tensor *tensor = &file->tensors[file->tensor_count++];
    *tensor = (struct tensor){.name = xstrdup(name)};
    return tensor;
}

/* PyTorch's batch norm counts the batches it was trained on. Inference does not use the count, but
 * nearly every checkpoint with batch norm has one for each such layer. */
static bool is_batch_counter(const char *name, const char *dtype)
{
    static const char suffix[] = ".num_batches_tracked";
    size_t length = strlen(name), most = sizeof suffix - 1;
    return dtype && strcmp(dtype, "I64") == 0 && length > most &&
           strcmp(name + length - most, suffix) == 0;
}

static int parse_tensor(struct safetensors *file, const struct mapping *mapping, const char *name,
                        json_t *entry, struct extent *extent, struct error *err)
{
    char where[ERROR_TEXT_BYTES / 2];
    snprintf(where, sizeof where, "%s: tensor '%s'", mapping->name, name);
    struct tensor *tensor = append_tensor(file, name, err);
    if (!tensor)
        return -1;
    tensor->shard = mapping->name;
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!json_is_object(entry) || json_object_size(entry) != 3)
        return error_set(err, ERROR_INVALID, "%s: expected exactly dtype, shape and data_offsets",
                         where);
    tensor->used = is_batch_counter(name, dtype); /* so that no layer has to claim it */
    if (!tensor->used && dtype_parse(dtype, &tensor->dtype) != 0)
        return error_set(err, ERROR_INVALID,
                         "%s: dtype %s is not one of F32, F16, BF16, nor U8 or F8_E4M3 in blocks",
                         where, dtype ? dtype : "(none)");
    if (parse_shape(json_object_get(entry, "shape"), tensor, where, err) != 0 ||
        parse_extent(json_object_get(entry, "data_offsets"), mapping->data_bytes, extent, where,
                     err) != 0)
        return -1;
    size_t bytes, element = tensor->used ? sizeof(int64_t) : dtype_bytes(tensor->dtype);
    if (__builtin_mul_overflow(tensor->elements, element, &bytes) ||
        bytes != extent->end - extent->begin)
        return error_set(err, ERROR_INVALID,
                         "%s: shape needs %zu x %zu bytes, data_offsets give %zu", where,
                         tensor->elements, element, extent->end - extent->begin);
    tensor->data = mapping->data + extent->begin;
    tensor->mapped = !file->copy;
    extent->name = tensor->name;
    return 0;
}

static int compare_extents(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* The format allows neither overlaps (two names for one weight) nor holes (bytes nobody checked).
 */
static int check_extents(struct extent *extents, size_t count, size_t data_bytes, const char *file,
                         struct error *err)
{
    qsort(extents, count, sizeof *extents, compare_extents);
    size_t end = 0;
    for (size_t i = 0; i < count; i++) {
        if (extents[i].begin < end)
            return error_set(err, ERROR_INVALID, "%s: tensor '%s' overlaps tensor '%s'", file,
                             extents[i].name, extents[i - 1].name);
        if (extents[i].begin > end)
            return error_set(err, ERROR_INVALID, "%s: %zu unused byte%s before tensor '%s'", file,
                             extents[i].begin - end, text_s(extents[i].begin - end),
                             extents[i].name);
        end = extents[i].end;
    }
    if (end != data_bytes)
        return error_set(err, ERROR_INVALID, "%s: %zu unused byte%s after the last tensor", file,
                         data_bytes - end, text_s(data_bytes - end));
    return 0;
}

/* The format allows strings only, and other readers refuse anything else. */
static int check_metadata(json_t *metadata, const char *file, struct error *err)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return error_set(err, ERROR_INVALID, "%s: __metadata__ must be an object of strings", file);
    json_object_foreach (metadata, key, value)
        if (!json_is_string(value))
            return error_set(err, ERROR_INVALID, "%s: __metadata__['%.64s'] must be a string", file,
                             key);
    return 0;
}

static int parse_tensors(struct safetensors *file, const struct mapping *mapping, json_t *header,
                         struct error *err)
{
    size_t count = 0;
    struct extent *extents = calloc_checked(json_object_size(header), sizeof *extents, err);
    if (!extents)
        return -1;
    const char *name;
    json_t *entry;
    int result = 0;
    json_object_foreach (header, name, entry) {
        if (strcmp(name, "__metadata__") == 0)
            result = check_metadata(entry, mapping->name, err);
        else
            result = parse_tensor(file, mapping, name, entry, &extents[count++], err);
        if (result != 0)
            break;
    }
    if (result == 0)
        result = check_extents(extents, count, mapping->data_bytes, mapping->name, err);
    free(extents);
    return result;
}

static int parse_file(struct safetensors *file, struct mapping *mapping, struct error *err)
{
    const unsigned char *base = mapping->map.base;
    static const char pointer[] = "version https://git-lfs";
    uint64_t header_bytes = 0;
    if (mapping->map.bytes >= sizeof pointer - 1 && memcmp(base, pointer, sizeof pointer - 1) == 0)
        return error_set(err, ERROR_INVALID,
                         "%s: a Git LFS pointer, not the weights: run git lfs pull", mapping->name);
    for (int i = 7; i >= 0; i--)
        header_bytes = header_bytes << 8 | base[i];
    if (header_bytes > MAX_HEADER_BYTES || header_bytes > mapping->map.bytes - 8)
        return error_set(err, ERROR_INVALID,
                         "%s: header of %llu byte%s does not fit the file (%zu byte%s)",
                         mapping->name, (unsigned long long)header_bytes, text_s(header_bytes),
                         mapping->map.bytes, text_s(mapping->map.bytes));
    mapping->data = (const char *)base + 8 + header_bytes;
    mapping->data_bytes = mapping->map.bytes - 8 - (size_t)header_bytes;
    struct json_fault fault;
    json_t *header =
        parse_json((const char *)base + 8, (size_t)header_bytes, 0, MAX_HEADER_HEAP, &fault);
    if (!header && fault.kind == JSON_FAULT_NO_MEMORY)
        return error_set(err, ERROR_UNAVAILABLE, "%s: header: %s", mapping->name, fault.reason);
    if (!header)
        return error_set(err, ERROR_INVALID, "%s: header cannot be read at byte %zu: %s",
                         mapping->name, 8 + fault.position, fault.reason);
    int result =
        json_is_object(header)
            ? parse_tensors(file, mapping, header, err)
            : error_set(err, ERROR_INVALID, "%s: header is not a JSON object", mapping->name);
    json_decref(header);
    return result;
}

static int open_shard(struct safetensors *file, const char *directory, const char *name,
                      struct error *err)
{
    if (file->mapping_count == MAX_SHARDS)
        return error_set(err, ERROR_INVALID, INDEX ": more than %d shards", MAX_SHARDS);
    file->mappings = xrealloc(file->mappings, (file->mapping_count + 1) * sizeof *file->mappings);
    struct mapping *mapping = &file->mappings[file->mapping_count];
    if (map_file(file, directory, name, mapping, err) != 0)
        return -1;
    file->mapping_count++;
    return parse_file(file, mapping, err);
}

static int open_shards(struct safetensors *file, const char *directory, json_t *weight_map,
                       struct error *err)
{
    const char *tensor;
    json_t *shard, *opened = json_object();
    int result = 0;
    json_object_foreach (weight_map, tensor, shard) {
        const char *name = json_string_value(shard);
        /* A shard is in the checkpoint's own directory: no path may lead out of it. */
        if (!name || !*name || strchr(name, '/') || strcmp(name, "..") == 0)
            result = error_set(err, ERROR_INVALID, INDEX ": weight_map['%s'] must be a file name",
                               tensor);
        else if (!json_object_get(opened, name) &&
                 (result = open_shard(file, directory, name, err)) == 0)
            json_object_set_new(opened, name, json_true());
        if (result != 0)
            break;
    }
    json_decref(opened);
    return result;
}

/* The index and the shards must agree. */
static int check_index(const struct safetensors *file, json_t *weight_map, struct error *err)
{
    if (json_object_size(weight_map) != file->tensor_count)
        return error_set(err, ERROR_INVALID, INDEX " lists %zu tensor%s, its shards hold %zu",
                         json_object_size(weight_map), text_s(json_object_size(weight_map)),
                         file->tensor_count);
    for (size_t i = 0; i < file->tensor_count; i++) {
        const struct tensor *tensor = &file->tensors[i];
        const char *listed = json_string_value(json_object_get(weight_map, tensor->name));
        if (!listed || strcmp(listed, tensor->shard) != 0)
            return error_set(err, ERROR_INVALID, INDEX ": tensor '%s' is in %s, listed in %s",
                             tensor->name, tensor->shard, listed ? listed : "no file");
    }
    return 0;
}

static bool has_file(const char *directory, const char *name)
{
    char path[PATH_MAX];
    return snprintf(path, sizeof path, "%s/%s", directory, name) < (int)sizeof path &&
           access(path, F_OK) == 0;
}

/* A single file beside an index would be ambiguous, unless it is one of the shards. */
static int check_single_file(const struct safetensors *file, const char *directory,
                             struct error *err)
{
    for (size_t i = 0; i < file->mapping_count; i++)
        if (strcmp(file->mappings[i].name, SINGLE) == 0)
            return 0;
    if (has_file(directory, SINGLE))
        return error_set(err, ERROR_INVALID,
                         "both " SINGLE " and " INDEX " are there, and the index does not list "
                         "the file: keep one of them");
    return 0;
}

static int open_index(struct safetensors *file, const char *directory, const char *path,
                      struct error *err)
{
    struct config_node index;
    if (config_open(&index, path, err) != 0)
        return -1;
    json_t *weight_map = json_object_get(index.json, "weight_map");
    int result = json_is_object(weight_map)
                     ? open_shards(file, directory, weight_map, err)
                     : error_set(err, ERROR_INVALID, "%s: weight_map must be an object", path);
    if (result == 0)
        result = check_index(file, weight_map, err);
    if (result == 0)
        result = check_single_file(file, directory, err);
    file->name = INDEX;
    config_close(&index);
    return result;
}

static int compare_tensors(const void *a, const void *b)
{
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

static int sort_tensors(struct safetensors *file, struct error *err)
{
    if (file->tensor_count)
        qsort(file->tensors, file->tensor_count, sizeof *file->tensors, compare_tensors);
    for (size_t i = 1; i < file->tensor_count; i++)
        if (compare_tensors(&file->tensors[i - 1], &file->tensors[i]) == 0)
            return error_set(err, ERROR_INVALID, "%s: tensor '%s' is also stored in %s",
                             file->tensors[i].shard, file->tensors[i].name,
                             file->tensors[i - 1].shard);
    return 0;
}

const char *moed_pickled_weights(const char *directory)
{
    if (!has_file(directory, PICKLE) && !has_file(directory, PICKLE ".index.json"))
        return NULL;
    return "no " SINGLE " in it; " PICKLE
           ", which would be executed, not read, is to be converted, "
           "in Python: transformers.AutoModelForCausalLM.from_pretrained(DIRECTORY)"
           ".save_pretrained(DIRECTORY, safe_serialization=True)";
}

static int open_single(struct safetensors *file, const char *directory, struct error *err)
{
    const char *pickled = has_file(directory, SINGLE) ? NULL : moed_pickled_weights(directory);
    if (pickled)
        return error_set(err, ERROR_NOT_FOUND, "%s", pickled);
    return open_shard(file, directory, SINGLE, err);
}

struct safetensors *safetensors_open(const char *directory, bool copy, struct error *err)
{
    char index[PATH_MAX];
    struct safetensors *file = xcalloc(1, sizeof *file);
    file->name = SINGLE;
    file->copy = copy;
    int length = snprintf(index, sizeof index, "%s/" INDEX, directory);
    int result;
    if (length >= (int)sizeof index)
        result = error_set(err, ERROR_INVALID, "%s: path too long", directory);
    else if (access(index, F_OK) == 0)
        result = open_index(file, directory, index, err);
    else
        result = open_single(file, directory, err);
    if (result != 0 || sort_tensors(file, err) != 0) {
        safetensors_free(file);
        return NULL;
    }
    return file;
}

void safetensors_free(struct safetensors *file)
{
    if (!file)
        return;
    for (size_t i = 0; i < file->tensor_count; i++)
        free(file->tensors[i].name);
    for (size_t i = 0; i < file->mapping_count; i++) {
        file_map_close(&file->mappings[i].map);
        free(file->mappings[i].name);
    }
    free(file->tensors);
    free(file->mappings);
    free(file);
}

struct tensor *safetensors_find(const struct safetensors *file, const char *name)
{
    struct tensor key = {.name = (char *)name};
    if (!file->tensor_count)
        return NULL;
    return bsearch(&key, file->tensors, file->tensor_count, sizeof *file->tensors, compare_tensors);
}

struct tensor *safetensors_at(const struct safetensors *file, size_t index)
{
    return index < file->tensor_count ? &file->tensors[index] : NULL;
}

const struct tensor *safetensors_unused(const struct safetensors *file)
{
    for (size_t i = 0; i < file->tensor_count; i++)
        if (!file->tensors[i].used)
            return &file->tensors[i];
    return NULL;
}

const char *safetensors_name(const struct safetensors *file)
{
    return file->name;
}

bool safetensors_are_damaged(const struct safetensors *file)
{
    for (size_t i = 0; i < file->mapping_count; i++)
        if (file_map_is_damaged(&file->mappings[i].map))
            return true;
    return false;
}
