/* A member that is null counts as absent. */
#include "proto/members.h"

#include <math.h>
#include <string.h>

const char *member_type(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

static const json_t *find(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

static int wrong_type(const char *where, const char *key, const json_t *value, const char *expected,
                      struct error *err)
{
    return error_set(err, ERROR_INVALID, "%s%s'%s' is %s, expected %s", where ? where : "",
                     where ? ": " : "", key, member_type(value), expected);
}

int member_no_tree(const struct json_fault *fault, struct error *err)
{
    if (fault->kind == JSON_FAULT_NO_MEMORY)
        return error_set(err, ERROR_UNAVAILABLE, "%s", fault->reason);
    return error_set(err, ERROR_INVALID, "malformed JSON at byte %zu: %s", fault->position,
                     fault->reason);
}

int member_missing(const char *where, const char *key, const char *expected, struct error *err)
{
    return error_set(err, ERROR_INVALID, "%s%s'%s' is missing%s, expected %s", where ? where : "",
                     where ? ": " : "", key, where ? "" : " in the body", expected);
}

int member_string(const json_t *object, const char *where, const char *key, const char **value,
                  struct error *err)
{
    const json_t *member = find(object, key);
    if (member && !json_is_string(member))
        return wrong_type(where, key, member, "a string", err);
    if (member)
        *value = json_string_value(member);
    return 0;
}

int member_bool(const json_t *object, const char *where, const char *key, bool *value,
                struct error *err)
{
    const json_t *member = find(object, key);
    if (member && !json_is_boolean(member))
        return wrong_type(where, key, member, "true or false", err);
    if (member)
        *value = json_boolean_value(member);
    return 0;
}

int member_size(const json_t *object, const char *where, const char *key, size_t *value,
                struct error *err)
{
    const json_t *member = find(object, key);
    if (!member)
        return 0;
    if (!json_is_number(member))
        return wrong_type(where, key, member, "a whole number", err);
    double number = json_number_value(member);
    if (!(number >= 0 && number <= 0x1p53 && number == floor(number)))
        return error_set(err, ERROR_INVALID,
                         "%s%s'%s' is %.17g, expected a whole number from 0 to 2^53",
                         where ? where : "", where ? ": " : "", key, number);
    *value = (size_t)number;
    return 0;
}

int member_object(const json_t *object, const char *where, const char *key, const json_t **value,
                  struct error *err)
{
    const json_t *member = find(object, key);
    if (member && !json_is_object(member))
        return wrong_type(where, key, member, "an object", err);
    if (member)
        *value = member;
    return 0;
}

int member_list(const json_t *object, const char *where, const char *key, const json_t **value,
                struct error *err)
{
    const json_t *member = find(object, key);
    if (member && !json_is_array(member))
        return wrong_type(where, key, member, "a list", err);
    if (member)
        *value = member;
    return 0;
}

/* ---- misspelt names ---- */

enum { SHORTEST_MISSPELT = 4 };

static char fold(char letter)
{
    return letter == '-'                    ? '_'
           : letter >= 'A' && letter <= 'Z' ? (char)(letter - 'A' + 'a')
                                            : letter;
}

static bool is_equal(const char *a, const char *b)
{
    while (*a && fold(*a) == fold(*b))
        a++, b++;
    return !*a && !*b;
}

/* The same but for case, "_" and "-": maxTokens, max-tokens. */
static bool is_written_otherwise(const char *a, const char *b)
{
    for (;;) {
        while (fold(*a) == '_')
            a++;
        while (fold(*b) == '_')
            b++;
        if (!*a || fold(*a) != fold(*b))
            return !*a && !*b;
        a++, b++;
    }
}

static bool is_one_letter_away(const char *a, const char *b)
{
    while (*a && fold(*a) == fold(*b))
        a++, b++;
    if (!*a || !*b)
        return (!*a || !a[1]) && (!*b || !b[1]);
    const bool swapped = fold(a[0]) == fold(b[1]) && fold(a[1]) == fold(b[0]);
    return is_equal(a + 1, b) || is_equal(a, b + 1) || is_equal(a + 1, b + 1) ||
           (swapped && is_equal(a + 2, b + 2));
}

enum likeness member_likeness(const char *name, const char *known)
{
    if (is_written_otherwise(name, known))
        return WRITTEN_OTHERWISE;
    return strlen(known) >= SHORTEST_MISSPELT && is_one_letter_away(name, known) ? ONE_LETTER
                                                                                 : UNLIKE;
}

int member_misspelt(const char *where, const char *key, const char *known, struct error *err)
{
    return error_set(err, ERROR_INVALID, "%s%s" QUOTED " is unknown, did you mean '%s'?",
                     where ? where : "", where ? ": " : "", key, known);
}

/* NULL: the key is one of the names, or looks like none. */
static const char *meant(const char *key, const char *const *names)
{
    enum likeness most = UNLIKE;
    const char *found = NULL;
    for (; *names; names++) {
        if (strcmp(*names, key) == 0)
            return NULL;
        const enum likeness likeness = member_likeness(key, *names);
        found = likeness > most ? *names : found;
        most = likeness > most ? likeness : most;
    }
    return found;
}

int member_check_spelling(const json_t *object, const char *where, const char *const *names,
                          struct error *err)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        const char *known = json_is_null(value) ? NULL : meant(key, names);
        if (known)
            return member_misspelt(where, key, known, err);
    }
    return 0;
}
