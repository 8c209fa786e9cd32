/* Which members a request may have: what is not supported is refused by its name, and what is
 * nearly a known name is refused as a misspelt one. All others are ignored: clients send what other
 * servers know, and much of it is for the server only (store, metadata, ...). */
#include <stdlib.h>
#include <string.h>

#include "proto/openai_body.h"

bool openai_asks(const json_t *value)
{
    if (json_is_number(value))
        return json_number_value(value) != 0;
    if (json_is_string(value))
        return json_string_length(value) > 0;
    if (json_is_array(value))
        return json_array_size(value) > 0;
    return json_is_object(value) ? json_object_size(value) > 0 : json_is_true(value);
}

static bool is_word_of(const char *text, const char *words)
{
    size_t length = strlen(text);
    for (const char *word = words; *word;) {
        size_t size = strcspn(word, " ");
        if (size == length && memcmp(word, text, size) == 0)
            return true;
        word += size + strspn(word + size, " ");
    }
    return false;
}

/* A string, a list of one string, or an object whose "type" it is. */
static bool is_harmless(const json_t *value, const char *harmless)
{
    if (json_is_array(value) && json_array_size(value) == 1)
        value = json_array_get(value, 0);
    if (json_is_object(value))
        value = json_object_get(value, "type");
    return json_is_string(value) && is_word_of(json_string_value(value), harmless);
}

static bool is_number_of(const json_t *value, const char *numbers)
{
    char *end;
    for (const char *at = numbers; *at; at = end + strspn(end, " "))
        if (strtod(at, &end) == json_number_value(value))
            return true;
    return false;
}

static bool are_numbers(const char *harmless)
{
    return *harmless >= '0' && *harmless <= '9';
}

int openai_refuse_members(const json_t *object, const char *where,
                          const struct openai_member *table, struct error *err)
{
    for (; table->key; table++) {
        const json_t *value = table->harmless ? json_object_get(object, table->key) : NULL;
        if (!value || json_is_null(value))
            continue;
        const bool number = are_numbers(table->harmless);
        if (number && !json_is_number(value))
            return error_set(err, ERROR_INVALID, "%s%s'%s' is %s, expected a number",
                             where ? where : "", where ? ": " : "", table->key, member_type(value));
        if (number ? !is_number_of(value, table->harmless)
                   : openai_asks(value) && !is_harmless(value, table->harmless))
            return error_set(err, ERROR_INVALID, "%s%s'%s' is not supported%s%s",
                             where ? where : "", where ? ": " : "", table->key,
                             *table->harmless ? ", other than " : "", table->harmless);
    }
    return 0;
}

/* ---- misspelt members ---- */

static bool is_of(const struct openai_member *table, const char *key)
{
    for (; table && table->key; table++)
        if (strcmp(table->key, key) == 0)
            return true;
    return false;
}

/* The member of the tables that the key looks like most; NULL: none. */
static const char *meant(const struct openai_member *const tables[2], const char *key)
{
    enum likeness most = UNLIKE;
    const char *found = NULL;
    for (int i = 0; i < 2; i++)
        for (const struct openai_member *member = tables[i]; member && member->key; member++) {
            const enum likeness likeness = member_likeness(key, member->key);
            found = likeness > most ? member->key : found;
            most = likeness > most ? likeness : most;
        }
    return found;
}

static int check_spelling(const json_t *object, const char *where,
                          const struct openai_member *table, const struct openai_member *more,
                          struct error *err)
{
    /* Other servers' own, one letter from "model": OpenRouter's list of models to fall back to, and
     * what kind of prompt text-generation-webui makes. */
    static const struct openai_member OTHERS[] = {{"models", ""}, {"mode", ""}, {NULL, NULL}};
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)object, key, value) {
        if (json_is_null(value) || is_of(table, key) || is_of(more, key) || is_of(OTHERS, key))
            continue;
        const char *near = meant((const struct openai_member *const[]){table, more}, key);
        if (near)
            return member_misspelt(where, key, near, err);
    }
    return 0;
}

int openai_check_members(const json_t *object, const char *where, const struct openai_member *table,
                         const struct openai_member *more, struct error *err)
{
    if (openai_refuse_members(object, where, table, err) != 0 ||
        (more && openai_refuse_members(object, where, more, err) != 0))
        return -1;
    return check_spelling(object, where, table, more, err);
}
