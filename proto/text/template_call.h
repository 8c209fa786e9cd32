/* Filters, tests, functions and methods: tables of names, parameters and what they do. */
#ifndef PROTO_TEXT_TEMPLATE_CALL_H
#define PROTO_TEXT_TEMPLATE_CALL_H

#include "proto/text/template_value.h"

enum { CALL_MAX_ARGUMENTS = 16, CALL_MAX_PARAMETERS = 5 };

/* What a call is given, as written. */
struct arguments {
    struct value items[CALL_MAX_ARGUMENTS];
    struct text names[CALL_MAX_ARGUMENTS]; /* without bytes: by place */
    size_t count;
};

/* The same by parameter. */
struct call {
    struct run *run;
    struct value self; /* what is filtered, tested, or has the method */
    const struct value *given[CALL_MAX_PARAMETERS]; /* NULL: not given */
    const struct arguments *all;
};

struct callable {
    const char *name;
    const char *parameters; /* separated by blanks; "*": whatever is given */
    struct value (*call)(struct call *call);
};

extern const struct callable TEMPLATE_FILTERS[], TEMPLATE_TESTS[], TEMPLATE_FUNCTIONS[],
    TEMPLATE_METHODS[];

/* Calls it with the arguments in their places; one too many, or one of another name, fails. */
struct value call_bound(struct run *run, const struct callable *callable, struct value self,
                        const struct arguments *arguments);

/* ---- parameters ---- */

/* A text, or `otherwise` where it was not given or is None; fails for anything else. */
struct text given_text(const struct call *call, size_t place, const char *otherwise);
int64_t given_integer(const struct call *call, size_t place, int64_t otherwise);
bool given_bool(const struct call *call, size_t place, bool otherwise);

/* The text that has the method; fails for anything else. Reading it once is paid for. */
struct text self_text(const struct call *call);

/* ---- what methods and filters share ---- */

struct value text_upper(struct run *run, struct text text);
struct value text_lower(struct run *run, struct text text);
struct value text_capitalize(struct run *run, struct text text);
/* `chars` without bytes: white space. */
struct text text_strip(struct run *run, struct text text, struct text chars, bool left, bool right);
/* `most` < 0: all. */
struct value text_replace(struct run *run, struct text text, struct text from, struct text to,
                          int64_t most);
struct value text_join(struct run *run, struct text separator, struct value list);

/* value.name or value["name"]: `attribute` says which is tried first. */
struct value value_member(struct run *run, const struct value *value, struct text name,
                          bool attribute);

/* value[key] */
struct value value_item(struct run *run, const struct value *value, const struct value *key);

/* Undefined, with the reason for whoever uses it: `format` has the type (NULL: the name alone) and
 * the name. */
struct value undefined_because(struct run *run, const char *format, const char *type,
                               struct text name);
/* Fails with that reason. */
struct value refuse_undefined(struct run *run, const struct value *value);

/* An item's attribute for a filter; the path may have dots. `otherwise` (NULL: none) stands in for
 * what is missing. */
struct value attribute_or(struct run *run, const struct value *item, struct text path,
                          const struct value *otherwise);

/* A list that is empty once it was walked through. */
struct value value_generator(struct run *run);

/* Filters that put items in order (template_order.c). */
struct value filter_items(struct call *call);
struct value filter_sort(struct call *call);
struct value filter_dictsort(struct call *call);
struct value filter_unique(struct call *call);
struct value filter_sum(struct call *call);
struct value filter_max(struct call *call);
struct value filter_min(struct call *call);

#endif
