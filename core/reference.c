/* Lists of one number per expert, as a config has them. */
#include "core/reference.h"

#include <stdlib.h>
#include <string.h>

#include "core/memory.h"
#include "core/moed.h"
#include "core/text.h"

/* One number per expert, none negative and not all 0. */
static int read_list(struct config_node *node, const char *key, size_t experts, double **values,
                     struct error *err)
{
    size_t count;
    double sum = 0;
    if (config_reals(node, key, values, &count, err) != 0)
        return -1;
    if (count != experts)
        return config_error(node, key, err, "%zu share%s for %zu expert%s", count, text_s(count),
                            experts, text_s(experts));
    for (size_t i = 0; i < count; i++) {
        if ((*values)[i] < 0)
            return config_error(node, key, err, "entry %zu is negative", i);
        sum += (*values)[i];
    }
    return sum > 0 ? 0 : config_error(node, key, err, "all are 0");
}

static int read_optional(struct config_node *node, const char *key, size_t experts, double **values,
                         struct error *err)
{
    return config_has(node, key) ? read_list(node, key, experts, values, err) : 0;
}

static int read_reference(struct config_node *references, struct moed_gate_info *gate,
                          struct error *err)
{
    struct config_node node;
    int64_t rows;
    struct moed_routing_reference *reference = xcalloc(1, sizeof *reference);
    gate->reference = reference; /* freed with the gate, whatever follows */
    if (config_object(references, gate->name, &node, err) != 0 ||
        config_integer(&node, "rows", CONFIG_REQUIRED, within(1, INT64_MAX), &rows, err) != 0 ||
        read_list(&node, "share", gate->experts, &reference->share, err) != 0 ||
        read_optional(&node, "weight", gate->experts, &reference->weight, err) != 0 ||
        read_optional(&node, "probability", gate->experts, &reference->probability, err) != 0)
        return -1;
    reference->rows = (uint64_t)rows;
    return config_done(&node, err);
}

static struct moed_gate_info *find_gate(struct moed_gate_info *gates, size_t count,
                                        const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(gates[i].name, name) == 0)
            return &gates[i];
    return NULL;
}

int references_read(struct moed_gate_info *gates, size_t gate_count, struct config_node *root,
                    struct error *err)
{
    struct config_node node;
    if (!config_has(root, "routing_reference"))
        return 0;
    if (config_object(root, "routing_reference", &node, err) != 0)
        return -1;
    for (const char *name = NULL; (name = config_next_key(&node, name));) {
        struct moed_gate_info *gate = find_gate(gates, gate_count, name);
        if (!gate)
            return config_error(&node, NULL, err, "no MoE layer is called '%.60s'", name);
        if (read_reference(&node, gate, err) != 0)
            return -1;
    }
    return 0;
}

void reference_free(struct moed_routing_reference *reference)
{
    if (!reference)
        return;
    free(reference->share);
    free(reference->weight);
    free(reference->probability);
    free(reference);
}
