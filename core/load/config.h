/* Reads config.json with types, bounds and paths: the engine's only view of JSON.
 *
 * A `config_node` is one JSON object with the path that leads to it. Getters check presence, type
 * and range and record which keys were asked for; config_done() then refuses every other key, so
 * that a misspelt one is an error and never ignored. Errors read "layers[2].gate.top_k: ...". */
#ifndef CORE_CONFIG_H
#define CORE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "core/moed.h"

/* More keys than any object of the format has, and than are asked for of a published config. */
enum { CONFIG_MAX_KEYS = 64 };

struct config_node {
    void *json;                       /* json_t object, borrowed from the document */
    const struct config_node *parent; /* NULL for the root; must outlive this node */
    const char *key;                  /* in the parent */
    size_t index;                     /* in the parent's list, or CONFIG_NO_INDEX */
    const char *asked[CONFIG_MAX_KEYS];
    size_t asked_count;
};

#define CONFIG_NO_INDEX ((size_t)-1)
/* As the default of a getter: the key is required. */
#define CONFIG_REQUIRED INT64_MIN

/* Both included. */
struct config_range {
    int64_t least, most;
};

static inline struct config_range within(int64_t least, int64_t most)
{
    return (struct config_range){least, most};
}

/* Reads a JSON document whose root is an object. The root node owns the document: config_close()
 * it. */
MUST_CHECK int config_open(struct config_node *root, const char *path, struct error *err);
void config_close(struct config_node *root);

bool config_has(struct config_node *node, const char *key);
bool config_is_text(struct config_node *node, const char *key);
MUST_CHECK int config_integer(struct config_node *node, const char *key, int64_t otherwise,
                              struct config_range range, int64_t *value, struct error *err);
/* A number in the range of f32; `otherwise` NULL: required. */
MUST_CHECK int config_real(struct config_node *node, const char *key, const double *otherwise,
                           double *value, struct error *err);
MUST_CHECK int config_flag(struct config_node *node, const char *key, bool otherwise, bool *value,
                           struct error *err);
/* `otherwise` NULL: required. The text is borrowed from the document. */
MUST_CHECK int config_text(struct config_node *node, const char *key, const char *otherwise,
                           const char **value, struct error *err);
/* One of `names` (NULL-terminated); `otherwise` < 0: required. */
MUST_CHECK int config_choice(struct config_node *node, const char *key, const char *const names[],
                             int otherwise, int *value, struct error *err);
/* Required list of `least` to MOED_MAX_RANK sizes of at least 1. */
MUST_CHECK int config_shape(struct config_node *node, const char *key, size_t least,
                            struct moed_shape *shape, struct error *err);
/* Required list of integers in that range; malloc'ed, caller frees. */
MUST_CHECK int config_integers(struct config_node *node, const char *key, struct config_range range,
                               int32_t **values, size_t *count, struct error *err);
/* Required list of numbers in the range of f32; malloc'ed, caller frees. */
MUST_CHECK int config_reals(struct config_node *node, const char *key, double **values,
                            size_t *count, struct error *err);
/* List of texts, borrowed; the array is malloc'ed, caller frees. */
MUST_CHECK int config_texts(struct config_node *node, const char *key, const char ***values,
                            size_t *count, struct error *err);
/* Required object. */
MUST_CHECK int config_object(struct config_node *node, const char *key, struct config_node *child,
                             struct error *err);
/* Required list of objects: its length, then each item. */
MUST_CHECK int config_list(struct config_node *node, const char *key, size_t *count,
                           struct error *err);
MUST_CHECK int config_item(struct config_node *node, const char *key, size_t index,
                           struct config_node *child, struct error *err);

/* For a key that has a singular and a plural: "gate" is one object, "gates" a list of them. */
struct config_items {
    const char *owner; /* for messages: "a MoE layer" */
    const char *one, *many;
    size_t most; /* that a list may have */
    /* Filled by config_items(): */
    bool listed;
    size_t count; /* 1 unless listed */
};

/* Determines which of the two keys the node has; both at once are refused. */
MUST_CHECK int config_items(struct config_items *items, struct config_node *node,
                            struct error *err);
MUST_CHECK int config_items_at(const struct config_items *items, struct config_node *node,
                               size_t index, struct config_node *child, struct error *err);

/* Refuses keys that came with format_version `since` in a config of an earlier `format`. */
MUST_CHECK int config_since(struct config_node *node, int since, int format,
                            const char *const keys[], struct error *err);
#define KEYS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Refuses keys that no getter asked for. */
MUST_CHECK int config_done(struct config_node *node, struct error *err);

/* Whether a getter asked for the key. */
bool config_was_asked(const struct config_node *node, const char *key);

/* Removes members that are null, for configs that write "none" so. */
void config_drop_nulls(struct config_node *node);

/* For objects whose keys are arbitrary names: returns the key after `key`, or the first for NULL;
 * NULL at the end. Borrowed. */
const char *config_next_key(const struct config_node *node, const char *key);

/* Records "<path>.<key>: message"; with key NULL, "<path>: message". Returns -1. */
int config_error(const struct config_node *node, const char *key, struct error *err,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
