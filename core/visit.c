/* Walks over the layers of a model in order of execution, for callers that show its
 * architecture. */
#include <string.h>

#include "core/model.h"

struct visit {
    const struct moed_model *model;
    void (*call)(const struct moed_layer_info *layer, void *context);
    void *context;
    size_t gates_seen;
};

static void visit_chain(struct visit *visit, const struct chain *chain, const char *role,
                        const char *part, int depth);

/* One of several gates is named by what follows the layer's name in its statistics. */
static void visit_children(struct visit *visit, const struct layer *layer,
                           const struct moed_gate_info *gates, size_t gate_count, int depth)
{
    const struct chain *child;
    const char *role;
    for (size_t i = 0; layer->op->child && (child = layer->op->child(layer, i, &role)); i++) {
        const char *part = "";
        if (i < gate_count && strlen(gates[i].name) > strlen(layer->name))
            part = gates[i].name + strlen(layer->name) + 1;
        visit_chain(visit, child, role, part, depth);
    }
}

static void visit_chain(struct visit *visit, const struct chain *chain, const char *role,
                        const char *part, int depth)
{
    for (size_t i = 0; i < chain->count; i++) {
        const struct layer *layer = &chain->layers[i];
        struct moed_layer_info info = {.depth = depth,
                                       .role = i == 0 ? role : "",
                                       .part = i == 0 ? part : "",
                                       .op = layer->op->name,
                                       .name = layer->name,
                                       .in = layer->in,
                                       .out = layer->out,
                                       .parameters = layer->cost.parameters};
        if (layer->op->gates) {
            info.gates = &visit->model->gates[visit->gates_seen];
            info.gate_count = layer->op->gates(layer);
            visit->gates_seen += info.gate_count;
        }
        visit->call(&info, visit->context);
        visit_children(visit, layer, info.gates, info.gate_count, depth + 1);
    }
}

void moed_model_visit(const struct moed_model *model,
                      void (*visit)(const struct moed_layer_info *layer, void *context),
                      void *context)
{
    struct visit walk = {.model = model, .call = visit, .context = context};
    for (size_t i = 0; i < model->input_count; i++)
        visit_chain(&walk, &model->inputs[i].chain, "input", model->input_info[i].name, 1);
    visit_chain(&walk, &model->chain, "", "", 0);
    for (size_t i = 0; i < model->output_count; i++)
        visit_chain(&walk, &model->outputs[i].chain, "output", model->output_info[i].name, 1);
}
