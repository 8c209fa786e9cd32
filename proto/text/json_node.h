/* JSON read with types and places: errors begin with the path, "model.merges[3]: ...". */
#ifndef PROTO_TEXT_JSON_NODE_H
#define PROTO_TEXT_JSON_NODE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

/* A value and the way to it; parents must outlive it. */
struct json_node {
    const json_t *json; /* NULL: absent, or null */
    const struct json_node *parent;
    const char *key; /* in the parent; NULL: `index` */
    size_t index;
};

/* The tree of a file of at most 16 MiB. NULL with an error that names the file, ERROR_NOT_FOUND
 * where there is none. The caller drops the reference. */
MUST_CHECK json_t *node_load(const char *path, struct error *err);

/* Records "<path>: <message>". Returns -1. */
int node_error(const struct json_node *node, struct error *err, enum error_code code,
               const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Puts the path in front of an error that is recorded. Returns -1. */
int node_prefix(const struct json_node *node, struct error *err);

/* A member or an item; its json is NULL when it is absent or null. */
struct json_node node_member(const struct json_node *node, const char *key);
struct json_node node_item(const struct json_node *list, size_t index);

/* The value must be an object without other keys than `keys`, separated by blanks. */
MUST_CHECK int node_only(const struct json_node *node, const char *keys, struct error *err);
MUST_CHECK int node_object(const struct json_node *node, struct error *err);
MUST_CHECK int node_list(const struct json_node *node, size_t *count, struct error *err);

/* Members. `otherwise` stands in for one that is absent; NULL: it is required. */
MUST_CHECK int node_text(const struct json_node *node, const char *key, const char *otherwise,
                         const char **value, struct error *err);
MUST_CHECK int node_bool(const struct json_node *node, const char *key, const bool *otherwise,
                         bool *value, struct error *err);
/* Required. */
MUST_CHECK int node_integer(const struct json_node *node, const char *key, int64_t least,
                            int64_t most, int64_t *value, struct error *err);

/* One kind of a thing that has a "type". */
struct node_kind {
    const char *type;
    const char *keys; /* that it may have beside the type */
    int (*read)(void *target, const struct json_node *node, struct error *err);
};

/* Reads `node` as what its "type" says; a type that is not in the list (which ends with a NULL
 * type) is refused. */
MUST_CHECK int node_read_kind(const struct json_node *node, const struct node_kind *kinds,
                              void *target, struct error *err);

/* Reads every item of the list `key` so: a Sequence. */
MUST_CHECK int node_read_each(const struct json_node *node, const char *key,
                              const struct node_kind *kinds, void *target, struct error *err);

#endif
