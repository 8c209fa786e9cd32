/* Integers of 128 bits in strings, as the server has them. */
#include "clients/c/moectl/merge_exact.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- integers in strings ---- */

enum { DIGITS = 36 }; /* of less than 2^120: some can be added */

/* False: it is none. */
static bool read_sum(json_t *json, __int128 *sum)
{
    const char *text = json_string_value(json);
    const bool negative = text && *text == '-';
    const char *at = text ? text + negative : "";
    if (!*at || strlen(at) > DIGITS || strspn(at, "0123456789") != strlen(at))
        return false;
    for (*sum = 0; *at; at++)
        *sum = *sum * 10 + (*at - '0');
    *sum = negative ? -*sum : *sum;
    return true;
}

static json_t *written(__int128 sum)
{
    char text[48];
    size_t at = sizeof text - 1;
    const bool negative = sum < 0;
    text[at] = '\0';
    do {
        text[--at] = (char)('0' + (int)(negative ? -(sum % 10) : sum % 10));
        sum /= 10;
    } while (sum != 0);
    if (negative)
        text[--at] = '-';
    return json_string(text + at);
}

/* As a number; NAN: it is none. */
static double value_of(json_t *json)
{
    __int128 sum;
    return read_sum(json, &sum) ? (double)sum / 0x1p32 : NAN;
}

/* ---- sums ---- */

static json_t *added(json_t *a, json_t *b);

static json_t *added_arrays(json_t *a, json_t *b)
{
    json_t *sum = json_array(), *element;
    for (size_t i = 0; i < json_array_size(a); i++) {
        element = added(json_array_get(a, i), json_array_get(b, i));
        if (!element || json_array_append_new(sum, element) != 0) {
            json_decref(sum);
            return NULL;
        }
    }
    return sum;
}

/* What only one has stays: labels may have come to one replica only. */
static json_t *added_objects(json_t *a, json_t *b)
{
    json_t *sum = json_copy(b), *value;
    const char *key;
    json_object_foreach (a, key, value) {
        json_t *other = json_object_get(b, key);
        json_t *member = other ? added(value, other) : json_incref(value);
        if (!member || json_object_set_new(sum, key, member) != 0) {
            json_decref(sum);
            return NULL;
        }
    }
    return sum;
}

/* A new reference; NULL: they cannot be added. */
static json_t *added(json_t *a, json_t *b)
{
    __int128 one, other;
    json_int_t count;
    if (json_is_object(a) && json_is_object(b))
        return added_objects(a, b);
    if (json_is_array(a) && json_is_array(b) && json_array_size(a) == json_array_size(b))
        return added_arrays(a, b);
    if (json_is_integer(a) && json_is_integer(b) &&
        !__builtin_add_overflow(json_integer_value(a), json_integer_value(b), &count))
        return json_integer(count);
    if (read_sum(a, &one) && read_sum(b, &other))
        return written(one + other);
    return NULL;
}

int exact_add(json_t *into, json_t *from, struct moed_client_error *err)
{
    json_t *a = json_object_get(into, "exact"), *b = json_object_get(from, "exact");
    if (!a || !b) {
        json_object_del(into, "exact");
        return 0;
    }
    json_t *sum = added(a, b);
    return sum ? json_object_set_new(into, "exact", sum) : fail_with(err, "'exact' differs");
}

/* ---- what follows from them ---- */

json_t *exact_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static void set_number(json_t *object, const char *key, double value)
{
    json_object_set_new(object, key, exact_number(value));
}

bool exact_quality_of(json_t *exact, struct exact_quality *quality)
{
    json_t *bin, *bins = json_object_get(exact, "bins");
    double labelled = 0, correct = 0, gaps = 0;
    size_t i;
    json_array_foreach(bins, i, bin)
    {
        const double right = json_number_value(json_array_get(bin, 1));
        labelled += json_number_value(json_array_get(bin, 0));
        correct += right;
        gaps += fabs(right - value_of(json_array_get(bin, 2)));
    }
    *quality = (struct exact_quality){
        .labelled = labelled,
        .accuracy = correct / labelled,
        .log_loss = value_of(json_object_get(exact, "log_loss")) / labelled,
        .ece = gaps / labelled,
    };
    return json_is_array(bins) && labelled >= 0 && labelled < 0x1p53;
}

static void finish_quality(json_t *expert, json_t *exact)
{
    struct exact_quality quality;
    if (!exact_quality_of(exact, &quality))
        return;
    json_object_set_new(expert, "labelled", json_integer((json_int_t)quality.labelled));
    set_number(expert, "accuracy", quality.accuracy);
    set_number(expert, "log_loss", quality.log_loss);
    set_number(expert, "ece", quality.ece);
}

static double total_parts(json_t *experts)
{
    double sum = 0;
    json_t *exact;
    size_t i;
    json_array_foreach(experts, i, exact) sum += value_of(json_object_get(exact, "part"));
    return sum;
}

static void finish_weights(json_t *layer, json_t *experts)
{
    const double total = total_parts(experts), n = (double)json_array_size(experts);
    double bits = 0, most = 0;
    for (size_t i = 0; i < json_array_size(experts); i++) {
        json_t *exact = json_array_get(experts, i);
        json_t *expert = json_array_get(json_object_get(layer, "experts"), i);
        const double part = value_of(json_object_get(exact, "part"));
        const double share = total > 0 ? part / total : 0;
        set_number(expert, "weight", value_of(json_object_get(exact, "weight")));
        set_number(expert, "probability", value_of(json_object_get(exact, "probability")));
        set_number(expert, "weight_share", share);
        if (json_object_get(exact, "compute_seconds"))
            set_number(expert, "compute_seconds",
                       value_of(json_object_get(exact, "compute_seconds")));
        bits -= share > 0 ? share * log2(share) : 0;
        most = fmax(most, share);
        finish_quality(expert, exact);
    }
    set_number(layer, "weight_imbalance", most * n);
    set_number(layer, "effective_experts", most > 0 ? exp2(bits) : 0);
}

void exact_finish(json_t *layer)
{
    json_t *exact = json_object_get(layer, "exact"), *experts = json_object_get(exact, "experts");
    const double rows = json_number_value(json_object_get(layer, "rows"));
    if (!exact || json_array_size(experts) != json_array_size(json_object_get(layer, "experts")))
        return;
    finish_weights(layer, experts);
    if (!(rows > 0))
        return;
    set_number(layer, "gate_entropy_bits",
               value_of(json_object_get(exact, "gate_entropy_bits")) / rows);
    set_number(layer, "margin", value_of(json_object_get(exact, "margin")) / rows);
}
