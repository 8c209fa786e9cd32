/* Published checkpoints: config.json of a known "model_type" is translated into moed's own config,
 * and the tensors of the checkpoint into views that have the names and shapes which that config
 * asks for. What cannot be translated exactly is refused, naming the key, the value or the tensor.
 * core/FAMILIES.md lists the families. */
#ifndef CORE_FAMILY_H
#define CORE_FAMILY_H

#include "core/family/result.h"
#include "core/load/safetensors.h"

/* Whether config.json says anything but "moed". */
bool family_is_published(struct config_node *published);

/* Translates; marks the tensors that views are made of, and those that are ignored, as used.
 * family_close() the result also after an error. */
MUST_CHECK int family_translate(struct family *family, struct config_node *published,
                                struct safetensors *tensors, struct error *err);

/* Frees the config, which nobody needs once the model is built. */
void family_close_config(struct family *family);
void family_close(struct family *family);

#endif
