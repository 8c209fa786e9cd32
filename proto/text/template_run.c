/* Statements, scopes, and the bounds of a rendering. */
#include "proto/text/template_run.h"

#include <string.h>

#include "core/text.h"
#include "proto/text/template.h"
#include "proto/text/template_names.h"

/* A long conversation with tools takes some ten thousand steps and a megabyte. */
enum { RUN_MAX_STEPS = 20 << 20, RUN_MAX_BYTES = 128 << 20 };

/* ---- scopes ---- */

struct scope *template_scope_enter(struct run *run, struct scope *parent)
{
    struct scope *before = run->scope, *scope = run_take(run, sizeof *scope);
    if (!scope)
        return NULL;
    scope->parent = parent;
    run->scope = scope;
    return before;
}

static struct binding *find_in(struct run *run, const struct scope *scope, struct text name)
{
    for (struct binding *binding = scope->first; binding; binding = binding->next)
        if (run_step(run, 1 + name.length / STEP_BYTES) && text_equal(binding->name, name))
            return binding;
    return NULL;
}

struct value scope_find(struct run *run, struct text name)
{
    for (const struct scope *scope = run->scope; scope; scope = scope->parent) {
        const struct binding *found = find_in(run, scope, name);
        if (found)
            return found->value;
    }
    int function = template_function(name);
    if (function >= 0)
        return (struct value){.kind = VALUE_FUNCTION, .integer = function};
    struct buffer buffer;
    run_buffer(run, &buffer);
    buffer_format(&buffer, "'%.*s' is undefined", (int)name.length, name.bytes);
    struct value undefined = value_of_buffer(run, &buffer);
    undefined.kind = VALUE_UNDEFINED;
    return undefined;
}

void scope_set(struct run *run, struct text name, struct value value)
{
    struct binding *binding = find_in(run, run->scope, name);
    if (!binding) {
        binding = run_take(run, sizeof *binding);
        if (!binding)
            return;
        *binding = (struct binding){name, value, run->scope->first};
        run->scope->first = binding;
    }
    binding->value = value;
}

/* ---- targets ---- */

static void set_attribute(struct run *run, const struct template_node *target, struct value value)
{
    struct value namespace = run_evaluate(run, target->a);
    if (run->failed)
        return;
    if (namespace.kind != VALUE_NAMESPACE)
        run_fail(run, "only a namespace has attributes that can be set; this is a %s",
                 value_type(&namespace));
    else
        dict_set(run, namespace.dict, target->text, value);
}

static void assign(struct run *run, const struct template_node *target, struct value value)
{
    if (run->failed)
        return;
    if (target->type == EXPRESSION_NAME)
        return scope_set(run, target->text, value);
    if (target->type == EXPRESSION_ATTRIBUTE)
        return set_attribute(run, target, value);
    struct value items = value_walk(run, &value);
    size_t place = 0;
    const struct template_node *name = target->body;
    for (; name && !run->failed && place < items.list->count; name = name->next)
        scope_set(run, name->text, items.list->items[place++]);
    if (!run->failed && (name || place < items.list->count))
        run_fail(run, "%zu value%s for other than %zu name%s", items.list->count,
                 text_s(items.list->count), place, text_s(place));
}

/* ---- statements ---- */

static void run_output(struct run *run, const struct template_node *node)
{
    struct value value = run_evaluate(run, node->a);
    if (!run->failed)
        value_print(run, run->out, &value);
}

/* The items for which the condition holds. */
static struct value loop_items(struct run *run, const struct template_node *node)
{
    struct value what = run_evaluate(run, node->b);
    run->position = node->position;
    struct value all = run->failed ? what : value_walk(run, &what);
    if (!node->c || run->failed)
        return all;
    struct value kept = value_list(run);
    for (size_t i = 0; i < all.list->count && !run->failed; i++) {
        struct scope *outer = template_scope_enter(run, run->scope);
        if (!outer)
            break;
        assign(run, node->a, all.list->items[i]);
        struct value holds = run_evaluate(run, node->c);
        run->scope = outer;
        if (value_is_true(&holds))
            list_add(run, kept, all.list->items[i]);
    }
    return kept;
}

/* Statements in a scope of their own. */
static void run_inside(struct run *run, const struct template_node *body)
{
    struct scope *outer = template_scope_enter(run, run->scope);
    if (!outer)
        return;
    run_statements(run, body);
    run->scope = outer;
}

static void run_for(struct run *run, const struct template_node *node)
{
    struct value items = loop_items(run, node);
    struct loop *loop = run_take(run, sizeof *loop);
    if (!loop)
        return;
    loop->items = items.list;
    for (; loop->index < items.list->count && run_step(run, NODE_STEPS); loop->index++) {
        struct scope *outer = template_scope_enter(run, run->scope);
        if (!outer)
            return;
        scope_set(run, (struct text){"loop", 4}, (struct value){.kind = VALUE_LOOP, .loop = loop});
        assign(run, node->a, items.list->items[loop->index]);
        run_statements(run, node->body);
        run->scope = outer;
        bool leaves = run->jump == JUMP_BREAK;
        run->jump = JUMP_NONE;
        if (leaves)
            return;
    }
    if (items.list->count == 0)
        run_inside(run, node->otherwise);
}

static void run_set_block(struct run *run, const struct template_node *node)
{
    struct buffer buffer, *out = run->out;
    run_buffer(run, &buffer);
    run->out = &buffer;
    run_inside(run, node->body);
    run->out = out;
    struct value outer = run->placeholder;
    run->placeholder = value_of_buffer(run, &buffer);
    struct value value = run_evaluate(run, node->b);
    run->placeholder = outer;
    assign(run, node->a, value);
}

static void run_if(struct run *run, const struct template_node *node)
{
    while (node && node->type == STATEMENT_IF && !run->failed) {
        struct value condition = run_evaluate(run, node->a);
        if (run->failed || value_is_true(&condition))
            return run_statements(run, node->body);
        if (!node->otherwise || !node->otherwise->flag)
            return run_statements(run, node->otherwise);
        node = node->otherwise; /* an elif */
    }
}

static void run_statement(struct run *run, const struct template_node *node)
{
    switch (node->type) {
    case STATEMENT_TEXT:
        run_step(run, node->text.length / STEP_BYTES);
        return buffer_append(run->out, node->text.bytes, node->text.length);
    case STATEMENT_OUTPUT:
        return run_output(run, node);
    case STATEMENT_IF:
        return run_if(run, node);
    case STATEMENT_FOR:
        return run_for(run, node);
    case STATEMENT_SET:
        return assign(run, node->a, run_evaluate(run, node->b));
    case STATEMENT_SET_BLOCK:
        return run_set_block(run, node);
    case STATEMENT_MACRO:
        return scope_set(run, node->text, (struct value){.kind = VALUE_MACRO, .macro = node});
    case STATEMENT_SCOPE:
        return run_inside(run, node->body);
    default:
        run->jump = node->type == STATEMENT_BREAK ? JUMP_BREAK : JUMP_CONTINUE;
    }
}

void run_statements(struct run *run, const struct template_node *node)
{
    if (!run_enter(run))
        return;
    for (; node && !run->failed && run->jump == JUMP_NONE; node = node->next) {
        run->position = node->position;
        if (run_step(run, NODE_STEPS))
            run_statement(run, node);
        if (run->out->failed && !run->out->no_memory)
            run_fail(run, "the text is too long");
        run->failed = run->failed || run->out->failed; /* the caller looks at the buffer */
    }
    run_leave(run);
}

/* ---- the whole ---- */

static void set_variables(struct run *run, const json_t *variables)
{
    const char *key;
    json_t *value;
    json_object_foreach ((json_t *)variables, key, value) {
        if (run->failed)
            return;
        scope_set(run, (struct text){key, strlen(key)}, value_of_json(run, value, 0));
    }
}

int chat_template_render(const struct chat_template *chat_template, const json_t *variables,
                         time_t now, struct buffer *text, struct error *err)
{
    struct run run = {.chat_template = chat_template,
                      .steps_left = RUN_MAX_STEPS,
                      .now = now,
                      .out = text,
                      .err = err};
    arena_init(&run.arena, RUN_MAX_BYTES);
    template_scope_enter(&run, NULL);
    run.root = run.scope;
    if (run.root)
        set_variables(&run, chat_template->specials);
    if (run.root)
        set_variables(&run, variables);
    if (!run.failed)
        run_statements(&run, chat_template->body);
    arena_close(&run.arena);
    return run.failed ? -1 : 0;
}
