/* Counts are untrusted: a sum that overflows is an error. */
#include "clients/c/moectl/merge_values.h"

#include <string.h>

int merge_differs(const char *what, struct moed_client_error *err)
{
    return fail_with(err, "'%s' differs", what);
}

json_t *merge_sum(json_t *a, json_t *b)
{
    json_int_t sum;
    if (!json_is_integer(a) || !json_is_integer(b))
        return json_real(json_number_value(a) + json_number_value(b));
    if (__builtin_add_overflow(json_integer_value(a), json_integer_value(b), &sum))
        return NULL;
    return json_integer(sum);
}

static json_t *added(json_t *a, json_t *b, const char *key, struct moed_client_error *err);

static json_t *added_arrays(json_t *a, json_t *b, const char *key, struct moed_client_error *err)
{
    json_t *sum = json_array();
    for (size_t i = 0; i < json_array_size(a); i++) {
        json_t *element = added(json_array_get(a, i), json_array_get(b, i), key, err);
        if (!element) {
            json_decref(sum);
            return NULL;
        }
        json_array_append_new(sum, element);
    }
    return sum;
}

/* Numbers called counts, rows or sum are added; what is the same in both stays; the rest goes. */
static json_t *added_objects(json_t *a, json_t *b, struct moed_client_error *err)
{
    json_t *sum = json_object(), *value;
    const char *key;
    json_object_foreach (a, key, value) {
        json_t *other = json_object_get(b, key), *member = NULL;
        if (strcmp(key, "counts") == 0 || strcmp(key, "rows") == 0 || strcmp(key, "sum") == 0) {
            member = added(value, other, key, err);
            if (!member) {
                json_decref(sum);
                return NULL;
            }
        } else if (json_equal(value, other))
            member = json_incref(value);
        if (member)
            json_object_set_new(sum, key, member);
    }
    return sum;
}

/* Numbers and arrays are added, of objects what counts. A new reference; NULL with an error: they
 * are not of one shape, or a count overflows. */
static json_t *added(json_t *a, json_t *b, const char *key, struct moed_client_error *err)
{
    json_t *sum = NULL;
    if (json_is_number(a) && json_is_number(b))
        sum = merge_sum(a, b);
    else if (json_is_array(a) && json_is_array(b) && json_array_size(a) == json_array_size(b))
        sum = added_arrays(a, b, key, err);
    else if (json_is_object(a) && json_is_object(b))
        sum = added_objects(a, b, err);
    if (!sum)
        merge_differs(key, err);
    return sum;
}

int merge_member(json_t *into, json_t *from, const char *key, struct moed_client_error *err)
{
    json_t *a = json_object_get(into, key), *b = json_object_get(from, key);
    if (!a || !b || json_is_null(a) || json_is_null(b)) {
        json_object_del(into, key);
        return 0;
    }
    json_t *sum = added(a, b, key, err);
    return sum ? json_object_set_new(into, key, sum) : -1;
}

int merge_members(json_t *into, json_t *from, const char *const *keys, size_t count,
                  struct moed_client_error *err)
{
    for (size_t i = 0; i < count; i++)
        if (merge_member(into, from, keys[i], err) != 0)
            return -1;
    return 0;
}
