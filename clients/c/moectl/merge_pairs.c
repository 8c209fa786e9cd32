/* Lists are looked up by the text of a pair or of an expert. */
#include "clients/c/moectl/merge_pairs.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>

#include "clients/c/moectl/merge_values.h"

/* ---- all pairs ---- */

/* "i,j", under which a pair is found. */
static bool pair_key(json_t *pair, char key[48])
{
    json_t *i = json_array_get(pair, 0), *j = json_array_get(pair, 1);
    if (json_array_size(pair) != 3 || !json_is_integer(i) || !json_is_integer(j))
        return false;
    snprintf(key, 48, "%lld,%lld", (long long)json_integer_value(i),
             (long long)json_integer_value(j));
    return true;
}

static int add_pair(json_t *pairs, json_t *index, json_t *pair, struct moed_client_error *err)
{
    char key[48];
    if (!pair_key(pair, key))
        return merge_differs("pairs", err);
    json_t *known = json_object_get(index, key);
    if (!known) {
        json_t *copy = json_deep_copy(pair);
        json_object_set(index, key, copy);
        return json_array_append_new(pairs, copy);
    }
    json_t *sum = merge_sum(json_array_get(known, 2), json_array_get(pair, 2));
    return sum ? json_array_set_new(known, 2, sum) : merge_differs("pairs", err);
}

/* [[i, j, rows], ...]: each document lists the pairs that it has. */
static int add_lists(json_t *into, json_t *pairs, json_t *others, struct moed_client_error *err)
{
    json_t *index = json_object(), *sums = json_array();
    int result = 0;
    for (size_t i = 0; result == 0 && i < json_array_size(pairs); i++)
        result = add_pair(sums, index, json_array_get(pairs, i), err);
    for (size_t i = 0; result == 0 && i < json_array_size(others); i++)
        result = add_pair(sums, index, json_array_get(others, i), err);
    json_decref(index);
    json_object_set_new(into, "pairs", sums);
    return result;
}

/* ---- the busiest experts ---- */

/* [[index, rows], ...] of those in both lists, which ascend; NULL: they are none such. */
static json_t *common_experts(json_t *one, json_t *other)
{
    json_t *both = json_array();
    size_t i = 0, j = 0;
    while (i < json_array_size(one) && j < json_array_size(other)) {
        json_t *a = json_array_get(one, i), *b = json_array_get(other, j);
        const json_int_t x = json_integer_value(json_array_get(a, 0));
        const json_int_t y = json_integer_value(json_array_get(b, 0));
        i += x <= y;
        j += y <= x;
        if (x != y)
            continue;
        json_t *sum = merge_sum(json_array_get(a, 1), json_array_get(b, 1));
        if (!sum) {
            json_decref(both);
            return NULL;
        }
        json_array_append_new(both, json_pack("[I, o]", x, sum));
    }
    return both;
}

static bool lists(json_t *experts, json_t *index)
{
    size_t low = 0, high = json_array_size(experts);
    const json_int_t wanted = json_integer_value(index);
    while (low < high) {
        const size_t middle = (low + high) / 2;
        const json_int_t at =
            json_integer_value(json_array_get(json_array_get(experts, middle), 0));
        if (at == wanted)
            return true;
        if (at < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    return false;
}

/* The pairs of those experts; *outside += the rows of the others. */
static json_t *pairs_within(json_t *pairs, json_t *experts, json_int_t *outside)
{
    json_t *within = json_array(), *pair;
    size_t i;
    json_array_foreach(pairs, i, pair)
    {
        if (lists(experts, json_array_get(pair, 0)) && lists(experts, json_array_get(pair, 1)))
            json_array_append(within, pair);
        else
            *outside += json_integer_value(json_array_get(pair, 2));
    }
    return within;
}

static int add_of_common(json_t *into, json_t *from, json_t *experts, struct moed_client_error *err)
{
    json_t *of = json_object_get(into, "pairs_of"), *others = json_object_get(from, "pairs_of");
    json_int_t outside = json_integer_value(json_object_get(of, "outside")) +
                         json_integer_value(json_object_get(others, "outside"));
    json_t *a = pairs_within(json_object_get(into, "pairs"), experts, &outside);
    json_t *b = pairs_within(json_object_get(from, "pairs"), experts, &outside);
    const double seconds = fmax(json_number_value(json_object_get(of, "seconds")),
                                json_number_value(json_object_get(others, "seconds")));
    const int result = add_lists(into, a, b, err);
    json_decref(a);
    json_decref(b);
    json_object_set(of, "experts", experts);
    json_object_set_new(of, "outside", json_integer(outside));
    json_object_set_new(of, "seconds", json_real(seconds));
    return result == 0 ? merge_member(of, others, "rows", err) : -1;
}

/* A replica that has not chosen them has not counted any pair. */
static int add_busiest(json_t *into, json_t *from, struct moed_client_error *err)
{
    json_t *of = json_object_get(into, "pairs_of"), *others = json_object_get(from, "pairs_of");
    if (json_is_null(others))
        return 0;
    if (json_is_null(of)) {
        json_object_set_new(into, "pairs_of", json_deep_copy(others));
        json_object_set_new(into, "pairs", json_deep_copy(json_object_get(from, "pairs")));
        return 0;
    }
    json_t *experts =
        common_experts(json_object_get(of, "experts"), json_object_get(others, "experts"));
    if (!experts)
        return merge_differs("pairs_of", err);
    const int result = add_of_common(into, from, experts, err);
    json_decref(experts);
    return result;
}

int pairs_add(json_t *into, json_t *from, struct moed_client_error *err)
{
    json_t *pairs = json_object_get(into, "pairs"), *others = json_object_get(from, "pairs");
    json_t *of = json_object_get(into, "pairs_of"), *others_of = json_object_get(from, "pairs_of");
    if (!pairs || !others || !of != !others_of) {
        json_object_del(into, "pairs");
        json_object_del(into, "pairs_of");
        return 0;
    }
    if (of)
        return add_busiest(into, from, err);
    return json_is_null(pairs) && json_is_null(others) ? 0 : add_lists(into, pairs, others, err);
}
