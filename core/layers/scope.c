/* A scope is a value: whoever enters one owns it, and may change it for its part alone. */
#include "core/layers/scope.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int scope_enter(struct scope *scope, const struct scope *outer, struct config_node *node,
                struct error *err, const char *format, ...)
{
    char part[MAX_TENSOR_NAME];
    va_list arguments;
    *scope = *outer;
    va_start(arguments, format);
    int length = vsnprintf(part, sizeof part, format, arguments);
    va_end(arguments);
    scope->outer_bytes = strlen(outer->prefix);
    if (length < 0 || length >= (int)sizeof part ||
        snprintf(scope->prefix, sizeof scope->prefix, "%s%s.", outer->prefix, part) >=
            (int)sizeof scope->prefix)
        return config_error(node, NULL, err, "tensor names would be too long");
    return 0;
}

struct scope scope_around(const struct scope *scope)
{
    struct scope outer = *scope;
    outer.prefix[outer.outer_bytes] = '\0';
    return outer;
}

bool scope_takes(const struct scope *scope, size_t count, size_t bytes)
{
    size_t wanted;
    if (__builtin_mul_overflow(count, bytes, &wanted) || wanted > scope->loading->bytes_left)
        return false;
    scope->loading->bytes_left -= wanted;
    return true;
}

int scope_take(const struct scope *scope, const struct config_node *node, const char *what,
               size_t count, size_t bytes, struct error *err)
{
    if (scope_takes(scope, count, bytes))
        return 0;
    return config_error(node, NULL, err,
                        "%s: %zu of %zu bytes; a model may take %d MiB that its files do not hold, "
                        "of which %zu bytes are left",
                        what, count, bytes, MAX_UNSTORED_BYTES >> 20, scope->loading->bytes_left);
}

int scope_check_sequence(const struct scope *scope, struct config_node *node, struct error *err)
{
    const char *key = config_has(node, "over") ? "over" : NULL;
    if (scope->no_moe)
        return config_error(node, key, err,
                            "%s over a sequence stands among the model's layers or in a residual "
                            "of them",
                            scope->op);
    if (scope->loading->context == 0)
        return config_error(node, key, err, "a model of sequences needs a \"context\"");
    return 0;
}
