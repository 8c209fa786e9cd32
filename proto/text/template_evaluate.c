/* Expressions. */
#include <math.h>
#include <string.h>

#include "proto/text/template_call.h"
#include "proto/text/template_names.h"
#include "proto/text/template_run.h"
#include "proto/text/unicode.h"

/* ---- operators ---- */

static struct value whole_arithmetic(struct run *run, enum operation operation, int64_t a,
                                     int64_t b)
{
    int64_t result = 0;
    bool divides = operation == OPERATION_FLOOR_DIVIDE || operation == OPERATION_MODULO;
    if (divides && b == 0)
        return run_fail(run, "division by zero");
    if (operation == OPERATION_MODULO && b == -1)
        return value_integer(0); /* what processors do not compute of the least number */
    bool overflow = operation == OPERATION_ADD        ? __builtin_add_overflow(a, b, &result)
                    : operation == OPERATION_SUBTRACT ? __builtin_sub_overflow(a, b, &result)
                    : operation == OPERATION_MULTIPLY ? __builtin_mul_overflow(a, b, &result)
                                                      : divides && b == -1 && a == INT64_MIN;
    if (overflow)
        return run_fail(run, "a number is too large");
    if (!divides)
        return value_integer(result);
    bool down = a % b != 0 && (a < 0) != (b < 0); /* to minus infinity, as in Python */
    return value_integer(operation == OPERATION_MODULO ? a % b + (down ? b : 0) : a / b - down);
}

static struct value real_arithmetic(struct run *run, enum operation operation, double a, double b)
{
    double result = a + b;
    if (operation >= OPERATION_DIVIDE && b == 0)
        return run_fail(run, "division by zero");
    if (operation == OPERATION_SUBTRACT)
        result = a - b;
    if (operation == OPERATION_MULTIPLY)
        result = a * b;
    if (operation == OPERATION_DIVIDE)
        result = a / b;
    if (operation == OPERATION_FLOOR_DIVIDE)
        result = floor(a / b);
    if (operation == OPERATION_MODULO)
        result = a - floor(a / b) * b;
    return (struct value){.kind = VALUE_FLOAT, .number = result};
}

/* Of two texts, one of them markup, the other is escaped. */
static struct value joined_texts(struct run *run, const struct value *a, const struct value *b)
{
    bool markup = a->markup || b->markup;
    const struct value *sides[] = {a, b};
    struct buffer buffer;
    run_buffer(run, &buffer);
    for (size_t i = 0; i < 2; i++) {
        if (markup && !sides[i]->markup)
            print_escaped(&buffer, sides[i]->text);
        else
            buffer_append(&buffer, sides[i]->text.bytes, sides[i]->text.length);
    }
    struct value both = value_of_buffer(run, &buffer);
    both.markup = markup;
    return both;
}

static struct value joined_lists(struct run *run, const struct value *a, const struct value *b)
{
    struct value made = value_walk(run, a), more = value_walk(run, b);
    for (size_t i = 0; !run->failed && i < more.list->count; i++)
        list_add(run, made, more.list->items[i]);
    return made;
}

static struct value repeated(struct run *run, const struct value *text, const struct value *times)
{
    struct buffer buffer;
    const struct text one = text->text;
    const int64_t count = one.length > 0 && value_whole(times) > 0 ? value_whole(times) : 0;
    run_buffer(run, &buffer);
    if (count > 0 && (uint64_t)count > buffer.limit / one.length)
        buffer.failed = true; /* before much of it is written */
    for (int64_t i = 0; i < count && !buffer.failed && run_step(run, 1); i++)
        buffer_append(&buffer, one.bytes, one.length);
    return value_of_buffer(run, &buffer);
}

static struct value arithmetic(struct run *run, enum operation operation, const struct value *a,
                               const struct value *b)
{
    if (a->kind == VALUE_UNDEFINED || b->kind == VALUE_UNDEFINED)
        return refuse_undefined(run, a->kind == VALUE_UNDEFINED ? a : b);
    if (value_is_number(a) && value_is_number(b)) {
        bool real = a->kind == VALUE_FLOAT || b->kind == VALUE_FLOAT;
        if (real || operation == OPERATION_DIVIDE)
            return real_arithmetic(run, operation, value_number(a), value_number(b));
        return whole_arithmetic(run, operation, value_whole(a), value_whole(b));
    }
    if (operation == OPERATION_ADD && a->kind == VALUE_TEXT && b->kind == VALUE_TEXT)
        return joined_texts(run, a, b);
    if (operation == OPERATION_ADD && a->kind == VALUE_LIST && b->kind == VALUE_LIST &&
        a->list->tuple == b->list->tuple && !a->list->generator && !b->list->generator)
        return joined_lists(run, a, b);
    if (operation == OPERATION_MULTIPLY && a->kind == VALUE_TEXT && b->kind == VALUE_INTEGER)
        return repeated(run, a, b);
    if (operation == OPERATION_MULTIPLY && b->kind == VALUE_TEXT && a->kind == VALUE_INTEGER)
        return repeated(run, b, a);
    return run_fail(run, "a %s and a %s cannot be added or multiplied so", value_type(a),
                    value_type(b));
}

static bool compares(struct run *run, enum operation operation, const struct value *a,
                     const struct value *b)
{
    switch (operation) {
    case OPERATION_EQUAL:
        return value_equal(run, a, b);
    case OPERATION_UNEQUAL:
        return !value_equal(run, a, b);
    case OPERATION_IN:
        return value_contains(run, b, a);
    case OPERATION_NOT_IN:
        return !value_contains(run, b, a);
    default:
        break;
    }
    if (a->kind == VALUE_UNDEFINED || b->kind == VALUE_UNDEFINED) {
        refuse_undefined(run, a->kind == VALUE_UNDEFINED ? a : b);
        return false;
    }
    int order = value_compare(run, a, b);
    return operation == OPERATION_LESS         ? order < 0
           : operation == OPERATION_LESS_EQUAL ? order <= 0
           : operation == OPERATION_GREATER    ? order > 0
                                               : order >= 0;
}

static struct value comparison(struct run *run, const struct template_node *node)
{
    struct value left = run_evaluate(run, node->a);
    bool holds = true;
    for (const struct template_node *operand = node->body; operand && holds && !run->failed;
         operand = operand->next) {
        struct value right = run_evaluate(run, operand->a);
        run->position = node->position;
        holds = !run->failed && compares(run, operand->operation, &left, &right);
        left = right;
    }
    return value_bool(holds);
}

static struct value negated(struct run *run, const struct template_node *node)
{
    struct value value = run_evaluate(run, node->a), zero = value_integer(0);
    if (!run->failed && !value_is_number(&value))
        return run_fail(run, "the sign of a %s", value_type(&value));
    if (value.kind == VALUE_FLOAT && node->type == EXPRESSION_NEGATE)
        value.number = -value.number;
    if (value.kind == VALUE_FLOAT || run->failed)
        return value;
    return arithmetic(run, node->type == EXPRESSION_NEGATE ? OPERATION_SUBTRACT : OPERATION_ADD,
                      &zero, &value);
}

static struct value concatenated(struct run *run, const struct template_node *node)
{
    struct value a = run_evaluate(run, node->a), b = run_evaluate(run, node->b);
    if (run->failed)
        return a;
    struct value left = value_text(value_str(run, &a)); /* ~ knows no markup */
    struct value right = value_text(value_str(run, &b));
    return joined_texts(run, &left, &right);
}

/* ---- calls ---- */

static void evaluate_arguments(struct run *run, const struct template_node *node,
                               struct arguments *arguments)
{
    arguments->count = 0;
    for (; node && !run->failed; node = node->next) {
        if (arguments->count == CALL_MAX_ARGUMENTS) {
            run_fail(run, "more than %d arguments", CALL_MAX_ARGUMENTS);
            return;
        }
        arguments->names[arguments->count] = node->text;
        arguments->items[arguments->count++] = run_evaluate(run, node->a);
    }
}

/* The argument for a macro's parameter; NULL: none. */
static const struct value *macro_argument(const struct arguments *arguments, size_t place,
                                          struct text name)
{
    for (size_t i = 0; i < arguments->count; i++) {
        bool named = arguments->names[i].bytes != NULL;
        if (named ? text_equal(arguments->names[i], name) : i == place)
            return &arguments->items[i];
    }
    return NULL;
}

static void bind_parameters(struct run *run, const struct template_node *macro,
                            const struct arguments *arguments)
{
    size_t place = 0, used = 0;
    for (const struct template_node *parameter = macro->a; parameter && !run->failed;
         parameter = parameter->next, place++) {
        const struct value *given = macro_argument(arguments, place, parameter->text);
        struct value value = given          ? *given
                             : parameter->a ? run_evaluate(run, parameter->a)
                                            : undefined_because(run, NULL, NULL, parameter->text);
        used += given != NULL;
        scope_set(run, parameter->text, value);
    }
    if (used < arguments->count)
        run_fail(run, "the macro '%.*s' has no such argument", (int)macro->text.length,
                 macro->text.bytes);
}

/* A macro sees what is at the top of the template, and gives its text. */
static struct value call_macro(struct run *run, const struct template_node *macro,
                               const struct arguments *arguments)
{
    struct buffer buffer, *out = run->out;
    struct scope *caller = template_scope_enter(run, run->root);
    if (!caller)
        return (struct value){.kind = VALUE_UNDEFINED};
    run_buffer(run, &buffer);
    bind_parameters(run, macro, arguments);
    run->out = &buffer;
    run_statements(run, macro->body);
    run->out = out;
    run->scope = caller;
    return value_of_buffer(run, &buffer);
}

static struct value call_node(struct run *run, const struct template_node *node)
{
    struct arguments arguments;
    struct value callee = {.kind = VALUE_UNDEFINED};
    if (node->a->type == EXPRESSION_ATTRIBUTE || node->index < 0)
        callee = run_evaluate(run, node->a);
    else
        callee = scope_find(run, node->a->text);
    evaluate_arguments(run, node->body, &arguments);
    run->position = node->position;
    if (run->failed)
        return callee;
    struct value none = {.kind = VALUE_NONE};
    if (callee.kind == VALUE_MACRO)
        return call_macro(run, callee.macro, &arguments);
    if (callee.kind == VALUE_METHOD)
        return call_bound(run, &TEMPLATE_METHODS[callee.method->index], callee.method->self,
                          &arguments);
    if (callee.kind == VALUE_FUNCTION)
        return call_bound(run, &TEMPLATE_FUNCTIONS[callee.integer], none, &arguments);
    if (callee.kind == VALUE_UNDEFINED)
        return refuse_undefined(run, &callee);
    return run_fail(run, "a %s cannot be called", value_type(&callee));
}

static struct value call_named(struct run *run, const struct template_node *node,
                               const struct callable *table)
{
    struct arguments arguments;
    struct value self = run_evaluate(run, node->a);
    evaluate_arguments(run, node->body, &arguments);
    run->position = node->position;
    if (run->failed)
        return self;
    struct value result = call_bound(run, &table[node->index], self, &arguments);
    if (node->type == EXPRESSION_TEST && !run->failed)
        return value_bool(value_is_true(&result) != node->flag);
    return result;
}

/* ---- all of them ---- */

static struct value list_node(struct run *run, const struct template_node *node)
{
    struct value list = value_list(run);
    for (const struct template_node *item = node->body; item && !run->failed; item = item->next)
        list_add(run, list, run_evaluate(run, item));
    if (!run->failed)
        list.list->tuple = node->flag;
    return list;
}

static struct value dict_node(struct run *run, const struct template_node *node)
{
    struct value made = value_dict(run);
    for (const struct template_node *key = node->body; key && !run->failed; key = key->next->next) {
        struct value name = run_evaluate(run, key), value = run_evaluate(run, key->next);
        if (!run->failed && name.kind != VALUE_TEXT)
            return run_fail(run, "a key that is a %s is not supported", value_type(&name));
        if (!run->failed)
            dict_set(run, made.dict, name.text, value);
    }
    return made;
}

static struct value choice(struct run *run, const struct template_node *node)
{
    struct value condition = run_evaluate(run, node->a);
    if (node->type == EXPRESSION_AND || node->type == EXPRESSION_OR) {
        bool decided = value_is_true(&condition) == (node->type == EXPRESSION_OR);
        return decided || run->failed ? condition : run_evaluate(run, node->b);
    }
    const struct template_node *chosen = value_is_true(&condition) ? node->b : node->c;
    return chosen ? run_evaluate(run, chosen)
                  : (struct value){.kind = VALUE_UNDEFINED, .text = {"", 0}};
}

/* What is written out, or stands in a scope. */
static struct value constant(struct run *run, const struct template_node *node)
{
    switch (node->type) {
    case EXPRESSION_TEXT:
        return value_text(node->text);
    case EXPRESSION_INTEGER:
        return value_integer(node->integer);
    case EXPRESSION_FLOAT:
        return (struct value){.kind = VALUE_FLOAT, .number = node->number};
    case EXPRESSION_BOOL:
        return value_bool(node->flag);
    case EXPRESSION_NAME:
        return scope_find(run, node->text);
    case EXPRESSION_PLACEHOLDER:
        return run->placeholder;
    default:
        return (struct value){.kind = VALUE_NONE};
    }
}

/* Of one or two values, both evaluated. */
static struct value operation(struct run *run, const struct template_node *node)
{
    struct value a = run_evaluate(run, node->a), b = {.kind = VALUE_UNDEFINED};
    if (node->b)
        b = run_evaluate(run, node->b);
    run->position = node->position;
    if (run->failed)
        return a;
    if (node->type == EXPRESSION_NOT)
        return value_bool(!value_is_true(&a));
    if (node->type == EXPRESSION_ATTRIBUTE)
        return value_member(run, &a, node->text, true);
    return node->type == EXPRESSION_ITEM ? value_item(run, &a, &b)
                                         : arithmetic(run, node->operation, &a, &b);
}

static struct value evaluate(struct run *run, const struct template_node *node)
{
    switch (node->type) {
    case EXPRESSION_LIST:
        return list_node(run, node);
    case EXPRESSION_DICT:
        return dict_node(run, node);
    case EXPRESSION_SLICE:
        return run_slice(run, node);
    case EXPRESSION_CALL:
        return call_node(run, node);
    case EXPRESSION_FILTER:
        return call_named(run, node, TEMPLATE_FILTERS);
    case EXPRESSION_TEST:
        return call_named(run, node, TEMPLATE_TESTS);
    case EXPRESSION_COMPARE:
        return comparison(run, node);
    case EXPRESSION_NEGATE:
    case EXPRESSION_PLUS:
        return negated(run, node);
    case EXPRESSION_CONCAT:
        return concatenated(run, node);
    case EXPRESSION_AND:
    case EXPRESSION_OR:
    case EXPRESSION_CHOICE:
        return choice(run, node);
    case EXPRESSION_NOT:
    case EXPRESSION_ATTRIBUTE:
    case EXPRESSION_ITEM:
    case EXPRESSION_ARITHMETIC:
        return operation(run, node);
    default:
        return constant(run, node);
    }
}

struct value run_evaluate(struct run *run, const struct template_node *node)
{
    struct value value = {.kind = VALUE_UNDEFINED};
    if (!run_step(run, NODE_STEPS) || !run_enter(run))
        return value;
    run->position = node->position;
    value = evaluate(run, node);
    run_leave(run);
    return value;
}
