/* A model's metadata: parsed once into one struct that borrows its strings from the JSON. */
#include <stdlib.h>
#include <string.h>

#include "clients/c/internal.h"

struct holder {
    struct moed_client_model model; /* first: what the caller sees */
    json_t *root;
};

/* ---- datatypes ---- */

static const struct {
    const char *name;
    size_t bytes;
} DATATYPES[MOED_CLIENT_DATATYPES] = {
    [MOED_CLIENT_BOOL] = {"BOOL", 1},     [MOED_CLIENT_UINT8] = {"UINT8", 1},
    [MOED_CLIENT_UINT16] = {"UINT16", 2}, [MOED_CLIENT_UINT32] = {"UINT32", 4},
    [MOED_CLIENT_UINT64] = {"UINT64", 8}, [MOED_CLIENT_INT8] = {"INT8", 1},
    [MOED_CLIENT_INT16] = {"INT16", 2},   [MOED_CLIENT_INT32] = {"INT32", 4},
    [MOED_CLIENT_INT64] = {"INT64", 8},   [MOED_CLIENT_FP16] = {"FP16", 2},
    [MOED_CLIENT_BF16] = {"BF16", 2},     [MOED_CLIENT_FP32] = {"FP32", 4},
    [MOED_CLIENT_FP64] = {"FP64", 8},     [MOED_CLIENT_BYTES] = {"BYTES", 0},
};

size_t moed_client_datatype_bytes(enum moed_client_datatype datatype)
{
    return datatype < MOED_CLIENT_DATATYPES ? DATATYPES[datatype].bytes : 0;
}

const char *moed_client_datatype_name(enum moed_client_datatype datatype)
{
    return datatype < MOED_CLIENT_DATATYPES ? DATATYPES[datatype].name : "?";
}

/* ---- tensors ---- */

static int read_datatype(const char *name, enum moed_client_datatype *datatype)
{
    for (int i = 0; name && i < MOED_CLIENT_DATATYPES; i++) {
        if (strcmp(DATATYPES[i].name, name) == 0) {
            *datatype = (enum moed_client_datatype)i;
            return 0;
        }
    }
    return -1;
}

static int read_shape(json_t *shape, struct moed_client_tensor *tensor)
{
    tensor->rank = json_array_size(shape);
    if (!json_is_array(shape) || tensor->rank > MOED_CLIENT_MAX_RANK)
        return -1;
    for (size_t i = 0; i < tensor->rank; i++) {
        json_t *dim = json_array_get(shape, i);
        tensor->dims[i] = json_integer_value(dim);
        if (!json_is_integer(dim) || tensor->dims[i] < -1)
            return -1;
    }
    return 0;
}

int client_read_tensor(json_t *entry, const char *what, struct moed_client_tensor *tensor,
                       struct moed_client_error *err)
{
    *tensor =
        (struct moed_client_tensor){.name = json_string_value(json_object_get(entry, "name"))};
    if (!tensor->name)
        return client_fail(err, MOED_CLIENT_PROTOCOL, "%s: a tensor without a name", what);
    if (read_datatype(json_string_value(json_object_get(entry, "datatype")), &tensor->datatype) !=
            0 ||
        read_shape(json_object_get(entry, "shape"), tensor) != 0)
        return client_fail(err, MOED_CLIENT_PROTOCOL,
                           "%s: '%.100s': expected a datatype and a shape of at most %d sizes",
                           what, tensor->name, MOED_CLIENT_MAX_RANK);
    json_t *categories = json_object_get(json_object_get(entry, "parameters"), "categories");
    json_int_t count = json_integer_value(categories);
    tensor->categories = count > 0 ? (size_t)count : 0;
    return 0;
}

/* The tensors of a list; the caller frees. NULL: wrong, or no memory. */
static struct moed_client_tensor *read_tensors(json_t *list, const char *what, size_t *count,
                                               struct moed_client_error *err)
{
    *count = json_array_size(list);
    if (!json_is_array(list) || *count > CLIENT_MAX_LIST) {
        client_fail(err, MOED_CLIENT_PROTOCOL, "the metadata has no list of %s", what);
        return NULL;
    }
    struct moed_client_tensor *tensors = calloc(*count + 1, sizeof *tensors);
    if (!tensors)
        client_no_memory(err);
    for (size_t i = 0; tensors && i < *count; i++) {
        if (client_read_tensor(json_array_get(list, i), what, &tensors[i], err) != 0) {
            free(tensors);
            return NULL;
        }
    }
    return tensors;
}

/* ---- metadata ---- */

static const char **read_versions(json_t *list, size_t *count, struct moed_client_error *err)
{
    *count = json_array_size(list);
    if (*count > CLIENT_MAX_LIST) {
        client_fail(err, MOED_CLIENT_PROTOCOL, "the answer has %zu version%s", *count,
                    *count == 1 ? "" : "s");
        return NULL;
    }
    const char **versions = calloc(*count + 1, sizeof *versions);
    if (!versions)
        client_no_memory(err);
    for (size_t i = 0; versions && i < *count; i++) {
        versions[i] = json_string_value(json_array_get(list, i));
        if (!versions[i])
            versions[i] = "";
    }
    return versions;
}

static int read_model(struct holder *holder, struct moed_client_error *err)
{
    struct moed_client_model *model = &holder->model;
    model->name = json_string_value(json_object_get(holder->root, "name"));
    if (!model->name)
        return client_fail(err, MOED_CLIENT_PROTOCOL, "the metadata has no name");
    model->versions =
        read_versions(json_object_get(holder->root, "versions"), &model->version_count, err);
    model->inputs =
        read_tensors(json_object_get(holder->root, "inputs"), "inputs", &model->input_count, err);
    model->outputs = read_tensors(json_object_get(holder->root, "outputs"), "outputs",
                                  &model->output_count, err);
    return model->versions && model->inputs && model->outputs ? 0 : -1;
}

const struct moed_client_model *moed_client_model(struct moed_client *client, const char *model,
                                                  const char *version,
                                                  struct moed_client_error *err)
{
    struct moed_client_call call = {.method = "GET"};
    struct moed_client_answer answer = {0};
    struct holder *holder = calloc(1, sizeof *holder);
    if (!holder)
        client_no_memory(err);
    else if ((call.path = client_model_path("v2", model, version, "", err)) &&
             moed_client_exchange(client, &call, &answer, err) == 0)
        holder->root = client_parse(answer.body, answer.length, "the metadata", err);
    free(call.path);
    moed_client_answer_close(&answer);
    if (holder && holder->root && read_model(holder, err) == 0)
        return &holder->model;
    if (holder)
        moed_client_model_free(&holder->model);
    return NULL;
}

void moed_client_model_free(const struct moed_client_model *model)
{
    struct holder *holder = (struct holder *)model;
    if (!holder)
        return;
    free((void *)model->versions);
    free((void *)model->inputs);
    free((void *)model->outputs);
    json_decref(holder->root);
    free(holder);
}
