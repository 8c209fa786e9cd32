/* Bounds come first: a body's tree and the number of prompts are known before anything is copied.
 */
#include "proto/openai_body.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/parse_json.h"
#include "proto/number.h"

json_t *openai_body(const char *body, size_t length, struct error *err)
{
    struct json_fault fault;
    if (length == 0) {
        error_set(err, ERROR_INVALID, "the body is empty, expected a JSON object");
        return NULL;
    }
    json_t *root = parse_json(body, length, 0, OPENAI_MAX_TREE, &fault);
    if (!root && fault.kind == JSON_FAULT_MALFORMED) {
        size_t line, column;
        json_line_and_column(body, fault.position, &line, &column);
        error_set(err, ERROR_INVALID, "malformed JSON at byte %zu (line %zu, column %zu): %s",
                  fault.position, line, column, fault.reason);
    } else if (!root) {
        error_set(err, fault.kind == JSON_FAULT_NO_MEMORY ? ERROR_UNAVAILABLE : ERROR_TOO_LARGE,
                  "the body: %s", fault.reason);
    } else if (!json_is_object(root)) {
        error_set(err, ERROR_INVALID, "the body is %s, expected a JSON object", member_type(root));
        json_decref(root);
        root = NULL;
    }
    return root;
}

char *openai_model_of(const char *body, size_t length)
{
    struct error ignored = ERROR_INIT;
    json_t *root = openai_body(body, length, &ignored);
    const char *model = json_string_value(json_object_get(root, "model"));
    char *copy = model ? xstrdup(model) : NULL;
    json_decref(root);
    return copy;
}

/* ---- numbers ---- */

/* `what` is what the member is instead. */
static int refuse_number(const char *key, const char *what, double least, double most,
                         struct error *err)
{
    return error_set(err, ERROR_INVALID, "'%s' is %s, expected a number from %.10g to %.10g", key,
                     what, least, most);
}

int openai_number(const json_t *root, const char *key, double least, double most, double *value,
                  struct error *err)
{
    const json_t *member = json_object_get(root, key);
    if (!member || json_is_null(member))
        return 0;
    if (!json_is_number(member))
        return refuse_number(key, member_type(member), least, most, err);
    double number = json_number_value(member);
    if (!(number >= least && number <= most)) {
        char text[NUMBER_FORMAT_BYTES];
        text[number_format_double(text, number)] = '\0';
        return refuse_number(key, text, least, most, err);
    }
    *value = number;
    return 0;
}

int openai_whole(const json_t *root, const char *key, size_t least, size_t most, size_t *value,
                 struct error *err)
{
    double number = NAN;
    if (openai_number(root, key, (double)least, (double)most, &number, err) != 0)
        return -1;
    if (isnan(number))
        return 0;
    if (number != floor(number))
        return error_set(err, ERROR_INVALID, "'%s' is %.10g, expected a whole number", key, number);
    *value = (size_t)number;
    return 0;
}

int openai_priority(const json_t *root, int *priority, struct error *err)
{
    double number = 0;
    if (openai_number(root, "priority", INT32_MIN, INT32_MAX, &number, err) != 0)
        return -1;
    if (number != floor(number))
        return error_set(err, ERROR_INVALID, "'priority' is %.10g, expected a whole number",
                         number);
    *priority = (int)number;
    return 0;
}

/* ---- prompts ---- */

void openai_prompts_close(struct openai_prompts *prompts)
{
    free(prompts->items);
    free(prompts->ids);
    *prompts = (struct openai_prompts){0};
}

/* Of what the first item is, all items must be. */
enum prompt_form { PROMPT_TEXT, PROMPT_TEXTS, PROMPT_IDS, PROMPT_ID_LISTS };

static int refuse_prompt(const char *key, const json_t *value, struct error *err)
{
    return error_set(err, ERROR_INVALID,
                     "'%s' %s %s, expected a string, a list of strings, a list of token ids or a "
                     "list of lists of token ids",
                     key, json_is_array(value) ? "has" : "is", member_type(value));
}

static int form_of(const char *key, const json_t *value, enum prompt_form *form, struct error *err)
{
    const json_t *first = json_array_get(value, 0);
    if (json_is_array(value) && !first)
        return error_set(err, ERROR_INVALID, "'%s' is an empty list, expected at least one item",
                         key);
    if (json_is_string(value))
        *form = PROMPT_TEXT;
    else if (json_is_string(first))
        *form = PROMPT_TEXTS;
    else if (json_is_integer(first))
        *form = PROMPT_IDS;
    else if (json_is_array(first))
        *form = PROMPT_ID_LISTS;
    else if (first)
        return error_set(err, ERROR_INVALID,
                         "'%s' is a list of which [0] is %s, expected a string, a token id or a "
                         "list of token ids",
                         key, member_type(first));
    else
        return refuse_prompt(key, value, err);
    return 0;
}

static int count_ids(const char *key, const json_t *list, size_t *ids, struct error *err)
{
    size_t index;
    json_t *item;
    json_array_foreach((json_t *)list, index, item)
    {
        if (!json_is_array(item) || json_array_size(item) == 0)
            return error_set(err, ERROR_INVALID,
                             "'%s' is a list of which [%zu] is %s, expected a list of token ids "
                             "like [0]",
                             key, index, json_is_array(item) ? "empty" : member_type(item));
        *ids += json_array_size(item);
    }
    return 0;
}

static int copy_ids(const char *key, const json_t *list, int32_t *ids, struct openai_prompt *prompt,
                    struct error *err)
{
    size_t index;
    json_t *item;
    json_array_foreach((json_t *)list, index, item)
    {
        json_int_t id = json_integer_value(item);
        if (!json_is_integer(item))
            return error_set(err, ERROR_INVALID,
                             "'%s' has %s among token ids, at [%zu] of its list", key,
                             member_type(item), index);
        if (id < 0 || id > INT32_MAX)
            return error_set(err, ERROR_INVALID, "'%s' has %lld, which is no token id, at [%zu]",
                             key, (long long)id, index);
        ids[index] = (int32_t)id;
    }
    *prompt = (struct openai_prompt){.ids = ids, .count = json_array_size(list)};
    return 0;
}

static int take_texts(const char *key, const json_t *list, struct openai_prompts *prompts,
                      struct error *err)
{
    size_t index;
    json_t *item;
    json_array_foreach((json_t *)list, index, item)
    {
        if (!json_is_string(item))
            return error_set(err, ERROR_INVALID,
                             "'%s' is a list of which [%zu] is %s, expected a string like [0]", key,
                             index, member_type(item));
        prompts->items[index] = (struct openai_prompt){.text = json_string_value(item),
                                                       .length = json_string_length(item)};
    }
    return 0;
}

static int take_id_lists(const char *key, const json_t *list, struct openai_prompts *prompts,
                         struct error *err)
{
    size_t index, used = 0;
    json_t *item;
    json_array_foreach((json_t *)list, index, item)
    {
        if (copy_ids(key, item, prompts->ids + used, &prompts->items[index], err) != 0)
            return -1;
        used += json_array_size(item);
    }
    return 0;
}

static int fill(const char *key, const json_t *value, enum prompt_form form,
                struct openai_prompts *prompts, struct error *err)
{
    switch (form) {
    case PROMPT_TEXT:
        prompts->items[0] = (struct openai_prompt){.text = json_string_value(value),
                                                   .length = json_string_length(value)};
        return 0;
    case PROMPT_TEXTS:
        return take_texts(key, value, prompts, err);
    case PROMPT_IDS:
        return copy_ids(key, value, prompts->ids, &prompts->items[0], err);
    case PROMPT_ID_LISTS:
        break;
    }
    return take_id_lists(key, value, prompts, err);
}

int openai_prompts_read(const json_t *root, const char *key, struct openai_prompts *prompts,
                        struct error *err)
{
    const json_t *value = json_object_get(root, key);
    enum prompt_form form = PROMPT_TEXT;
    *prompts = (struct openai_prompts){0};
    if (!value || json_is_null(value))
        return error_set(err, ERROR_INVALID, "'%s' is missing, expected a text or token ids", key);
    if (form_of(key, value, &form, err) != 0)
        return -1;
    size_t ids = form == PROMPT_IDS ? json_array_size(value) : 0;
    size_t count = form == PROMPT_TEXT || form == PROMPT_IDS ? 1 : json_array_size(value);
    if (count > OPENAI_MAX_PROMPTS)
        return error_set(err, ERROR_TOO_LARGE, "'%s' has %zu items, the limit is %d", key, count,
                         OPENAI_MAX_PROMPTS);
    if (form == PROMPT_ID_LISTS && count_ids(key, value, &ids, err) != 0)
        return -1;
    prompts->count = count;
    prompts->items = xcalloc(count, sizeof *prompts->items);
    prompts->ids = calloc_checked(ids + 1, sizeof *prompts->ids, err);
    if (prompts->ids && fill(key, value, form, prompts, err) == 0)
        return 0;
    openai_prompts_close(prompts);
    return -1;
}

int openai_check_ids(const struct openai_prompts *prompts, const char *key, size_t vocabulary,
                     struct error *err)
{
    for (size_t i = 0; i < prompts->count; i++)
        for (size_t j = 0; j < prompts->items[i].count; j++)
            if ((size_t)prompts->items[i].ids[j] >= vocabulary)
                return error_set(
                    err, ERROR_INVALID,
                    "'%s' has the token %d, which is not in the model's vocabulary of %zu", key,
                    (int)prompts->items[i].ids[j], vocabulary);
    return 0;
}
