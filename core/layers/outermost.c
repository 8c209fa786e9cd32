#include "core/layers/outermost.h"

#include <string.h>

#include "core/layers/ops.h"
#include "core/memory.h"

int residuals_count(struct config_node *list, const char *key, size_t layers, size_t *count,
                    struct error *err)
{
    struct config_node node;
    const char *op;
    *count = 0;
    for (size_t i = 0; i < layers; i++) {
        if (config_item(list, key, i, &node, err) != 0 ||
            config_text(&node, "op", NULL, &op, err) != 0)
            return -1;
        *count += strcmp(op, op_residual.name) == 0;
    }
    return 0;
}

bool residuals_are_outermost(size_t before, size_t residuals)
{
    size_t few = 2 * max_size(residuals / 16, 1);
    return residuals && (before < few || before + few >= residuals);
}
