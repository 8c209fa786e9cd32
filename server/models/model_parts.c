/* Weights and shapes first, then what its sequences are, then their text. */
#include "server/models/model_parts.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/text.h"
#include "server/models/model_info.h"

/* ---- what is there ---- */

bool model_has_file(const char *directory, const char *name)
{
    char path[PATH_MAX + 64];
    struct stat status;
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return stat(path, &status) == 0 && !S_ISDIR(status.st_mode);
}

bool model_is_absent(int number)
{
    return number == ENOENT || number == ENOTDIR || number == ELOOP || number == ENAMETOOLONG;
}

int model_can_be_seen(const char *directory, struct error *err)
{
    static const char *const NAMES[] = {"config.json", "model.safetensors",
                                        "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        char path[PATH_MAX + 64];
        struct stat status;
        snprintf(path, sizeof path, "%s/%s", directory, NAMES[i]);
        if (stat(path, &status) != 0 && !model_is_absent(errno))
            return error_set(err, error_of_errno(errno), "%s: cannot be looked at: %s", path,
                             strerror(errno));
    }
    return 0;
}

const char *model_lacks(const char *directory)
{
    const char *pickled = moed_pickled_weights(directory);
    if (!model_has_file(directory, "config.json"))
        return "no config.json in it";
    if (!model_has_file(directory, "model.safetensors") &&
        !model_has_file(directory, "model.safetensors.index.json"))
        return pickled ? pickled : "no model.safetensors in it";
    return NULL;
}

/* ---- what it says ---- */

/* Whether requests can ask anything of it: a step of sequences takes tokens and gives one output.
 */
static int check_sequences(const struct moed_model_info *info, struct error *err)
{
    const struct moed_tensor_info *input = &info->inputs[0], *output = &info->outputs[0];
    if (!info->sequence || info_generates(info) || info_embeds(info))
        return 0;
    if (info->input_count != 1 || input->categories == 0 || input->elements != 1)
        return error_set(err, ERROR_INVALID,
                         "config.json: inputs: with a \"context\" expected one, of a single token: "
                         "\"shape\": [] and \"categories\"");
    if (info->output_count != 1)
        return error_set(err, ERROR_INVALID,
                         "config.json: outputs: %zu, with a \"context\" expected one",
                         info->output_count);
    if (info_keeps_positions(info))
        return error_set(err, ERROR_INVALID,
                         "config.json: outputs[0]: %zu number%s for %zu token%s, expected at most "
                         "one for each",
                         output->elements, text_s(output->elements), input->categories,
                         text_s(input->categories));
    return error_set(err, ERROR_INVALID,
                     "config.json: outputs[0]: %zu %s, of an encoder expected one",
                     output->shape.rank, output->shape.rank == 1 ? "axis" : "axes");
}

/* The text side of a model of sequences, if its directory has one. */
static int load_language(struct model_parts *parts, const char *directory, struct error *err)
{
    const struct moed_model_info *info = moed_model_info(parts->engine);
    struct error cause = ERROR_INIT;
    if (!info->sequence)
        return 0;
    parts->language = language_load(directory, &cause);
    if (!parts->language && cause.code != ERROR_NOT_FOUND)
        return error_set(err, cause.code, "%s", cause.text);
    if (parts->language && language_check(parts->language, info->inputs[0].categories, err) != 0)
        return -1;
    return pooling_load(&parts->pooling, directory, err);
}

int model_parts_load(struct model_parts *parts, const char *directory,
                     const struct moed_load_options *load, struct error *err)
{
    *parts = (struct model_parts){.engine = moed_model_load(directory, load, err)};
    if (!parts->engine)
        return -1;
    if (check_sequences(moed_model_info(parts->engine), err) == 0 &&
        load_language(parts, directory, err) == 0)
        return 0;
    error_in(err, directory);
    model_parts_close(parts);
    return -1;
}

void model_parts_close(struct model_parts *parts)
{
    language_free(parts->language);
    moed_model_free(parts->engine);
    *parts = (struct model_parts){0};
}
