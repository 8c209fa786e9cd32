/* Values while a template is rendered. All of them live in the arena of the run, so none is freed
 * and copies share what they point to, as in Python. */
#ifndef PROTO_TEXT_TEMPLATE_VALUE_H
#define PROTO_TEXT_TEMPLATE_VALUE_H

#include <jansson.h>
#include <time.h>

#include "proto/buffer.h"
#include "proto/text/template_node.h"

enum value_kind {
    VALUE_UNDEFINED, /* text: why, for the message of whoever uses it */
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_INTEGER,
    VALUE_FLOAT,
    VALUE_TEXT,
    VALUE_LIST,
    VALUE_DICT,
    VALUE_NAMESPACE, /* a dict whose entries may be set */
    VALUE_LOOP,
    VALUE_MACRO,
    VALUE_METHOD,
    VALUE_FUNCTION,
};

struct value {
    enum value_kind kind;
    bool markup; /* of a text: from | safe or | escape; text that is joined to it is escaped */
    union {
        bool truth;
        int64_t integer; /* also a function's index */
        double number;
        struct text text;
        struct list *list;
        struct dict *dict;
        struct loop *loop;
        const struct template_node *macro;
        struct method *method;
    };
};

struct list {
    struct value *items;
    size_t count, capacity;
    bool tuple;
    bool generator; /* true whatever it holds, without a length, empty once it was walked through */
};

struct entry {
    struct text key;
    struct value value;
};

/* In the order in which keys came; looked through from the start. */
struct dict {
    struct entry *entries;
    size_t count, capacity;
};

struct loop {
    const struct list *items;
    size_t index;
};

struct method {
    struct value self;
    int index;
};

struct binding {
    struct text name;
    struct value value;
    struct binding *next;
};

struct scope {
    struct scope *parent;
    struct binding *first;
};

enum jump { JUMP_NONE, JUMP_BREAK, JUMP_CONTINUE };

/* One rendering. */
struct run {
    const struct chat_template *chat_template;
    struct arena arena;
    struct scope *scope, *root;
    struct buffer *out;
    struct value placeholder; /* of the set block at hand */
    uint64_t steps_left;
    int depth;
    uint32_t position; /* of what is evaluated, for messages */
    time_t now;
    enum jump jump;
    bool failed;
    struct error *err;
};

/* ---- failing ---- */

/* Records the first error, with line and column; what is returned is undefined. */
struct value run_fail(struct run *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Counts steps; false, and failed, when there are too many. Reading text is a step for so many
 * bytes, wherever nothing that is made of it takes memory instead; a node takes as long as several.
 */
enum { STEP_BYTES = 16, NODE_STEPS = 4 };
bool run_step(struct run *run, size_t steps);

/* One level deeper into values or nodes; false, and failed, at the limit. */
bool run_enter(struct run *run);
static inline void run_leave(struct run *run)
{
    run->depth--;
}

/* Arena memory; NULL, and failed, at the limit. */
void *run_take(struct run *run, size_t bytes);

/* ---- making ---- */

struct value value_bool(bool truth);
struct value value_integer(int64_t integer);
struct value value_text(struct text text);
struct value value_words(const char *text); /* not copied */
/* What the buffer holds, copied; closes the buffer. */
struct value value_of_buffer(struct run *run, struct buffer *buffer);
struct value value_of_json(struct run *run, const json_t *json, int depth);
struct value value_list(struct run *run);
struct value value_dict(struct run *run);
void list_add(struct run *run, struct value list, struct value item);
void dict_set(struct run *run, struct dict *dict, struct text key, struct value value);

/* A buffer for text that will become a value. */
void run_buffer(struct run *run, struct buffer *buffer);

/* ---- asking ---- */

bool text_equal(struct text a, struct text b);
struct value *dict_find(struct run *run, const struct dict *dict, struct text key);
bool value_is_true(const struct value *value);
bool value_equal(struct run *run, const struct value *a, const struct value *b);
bool value_is_number(const struct value *value); /* also true and false */
double value_number(const struct value *value);
int64_t value_whole(const struct value *value);
/* Below 0, 0 or above; fails for what has no order. */
int value_compare(struct run *run, const struct value *a, const struct value *b);
bool value_contains(struct run *run, const struct value *whole, const struct value *part);
/* Characters, items or keys; fails for what has none. */
int64_t value_length(struct run *run, const struct value *value);
/* Appends the text with &, <, >, ' and " escaped for HTML. */
void print_escaped(struct buffer *to, struct text text);
/* For messages: "str", "list", ... */
const char *value_type(const struct value *value);

/* A new list of its items, characters or keys; fails for what cannot be walked through. */
struct value value_walk(struct run *run, const struct value *value);

/* ---- text ---- */

/* Appends what str() gives. */
void value_print(struct run *run, struct buffer *to, const struct value *value);
/* The text itself, or what str() gives. */
struct text value_str(struct run *run, const struct value *value);
/* Appends JSON as json.dumps() writes it. */
struct json_style {
    bool ascii, sort;
    bool indented;
    struct text indent, comma, colon;
};
void value_print_json(struct run *run, struct buffer *to, const struct value *value,
                      const struct json_style *style);

#endif
