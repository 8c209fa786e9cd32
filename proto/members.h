/* Typed members of a parsed JSON object. Each reader leaves its result untouched when the member is
 * absent or null (some clients write every field they know, null when unset), and reports a member
 * of the wrong type by name. `where` says which object ("input 'image'"), NULL for the body itself.
 */
#ifndef PROTO_MEMBERS_H
#define PROTO_MEMBERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"
#include "core/parse_json.h"

/* The printf format for text from a client: long enough to recognise, short enough to leave room
 * for the rest of the message. */
#define QUOTED "'%.64s'"

/* The word for a value's type in messages: "a string", "an object"... */
const char *member_type(const json_t *value);

MUST_CHECK int member_string(const json_t *object, const char *where, const char *key,
                             const char **value, struct error *err);
MUST_CHECK int member_bool(const json_t *object, const char *where, const char *key, bool *value,
                           struct error *err);
/* Whole numbers up to 2^53, which every JSON reader keeps exactly. */
MUST_CHECK int member_size(const json_t *object, const char *where, const char *key, size_t *value,
                           struct error *err);
MUST_CHECK int member_object(const json_t *object, const char *where, const char *key,
                             const json_t **value, struct error *err);
MUST_CHECK int member_list(const json_t *object, const char *where, const char *key,
                           const json_t **value, struct error *err);

/* How much an unknown name looks like a misspelt `known` one. Names of up to three letters are too
 * short to have a wrong one. */
enum likeness {
    UNLIKE,
    ONE_LETTER,        /* is missing, added, another or swapped with the next */
    WRITTEN_OTHERWISE, /* the same but for case, "_" and "-" */
};
enum likeness member_likeness(const char *name, const char *known);

/* Refuses a member that is none of the names, which end with NULL, and looks like one of them. */
MUST_CHECK int member_check_spelling(const json_t *object, const char *where,
                                     const char *const *names, struct error *err);

/* Records that a member is unknown, and which one it looks like. Returns -1. */
int member_misspelt(const char *where, const char *key, const char *known, struct error *err);

/* Records why a body could not be parsed. Returns -1. */
int member_no_tree(const struct json_fault *fault, struct error *err);

/* Records that a required member is missing. */
int member_missing(const char *where, const char *key, const char *expected, struct error *err);

#endif
