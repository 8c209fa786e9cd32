/* Which families are known, and what all translations begin and end with. */
#include "core/family/family.h"

#include <stdlib.h>
#include <string.h>

#include "core/family/families.h"
#include "core/memory.h"

bool family_is_published(struct config_node *published)
{
    const char *type = json_string_value(json_object_get(published->json, "model_type"));
    return type && strcmp(type, "moed") != 0;
}

static const struct {
    const char *model_type;
    json_t *(*translate)(struct translation *t);
} FAMILIES[] = {
    {"olmoe", llama_translate},
    {"qwen3_moe", llama_translate},
    {"qwen2_moe", llama_translate},
    {"mixtral", llama_translate},
    {"granitemoe", llama_translate},
    {"granitemoeshared", llama_translate},
    {"phimoe", llama_translate},
    {"ernie4_5_moe", llama_translate},
    {"glm4_moe", llama_translate},
    {"hunyuan_v1_moe", llama_translate},
    {"minimax_m2", llama_translate},
    {"qwen3", llama_translate},
    {"llama", llama_translate},
    {"granite", llama_translate},
    {"gpt_oss", gpt_oss_translate},
    {"nomic_bert", nomic_translate},
    {"deepseek_v2", deepseek_translate},
    {"deepseek_v3", deepseek_translate},
    {"glm4_moe_lite", deepseek_translate},
    {"lfm2_moe", llama_translate},
    {"qwen2", llama_translate},
    {"mistral", llama_translate},
};

static json_t *translate(struct translation *t, const char *type)
{
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++)
        if (strcmp(FAMILIES[i].model_type, type) == 0) {
            t->family->name = FAMILIES[i].model_type;
            return FAMILIES[i].translate(t);
        }
    config_error(t->config, NULL, t->err,
                 "model_type \"%.60s\" is not known; core/FAMILIES.md lists those that are", type);
    return NULL;
}

int family_translate(struct family *family, struct config_node *published,
                     struct safetensors *tensors, struct error *err)
{
    struct translation t = {.family = family, .config = published, .tensors = tensors, .err = err};
    const char *type;
    *family = (struct family){.views = views_new()};
    if (config_text(published, "model_type", NULL, &type, err) != 0)
        return -1;
    config_drop_nulls(published);
    family->moed = (struct config_node){.json = translate(&t, type), .index = CONFIG_NO_INDEX};
    if (translation_failed(&t))
        return -1;
    return views_sort(family->views, err);
}

void family_close_config(struct family *family)
{
    json_decref(family->moed.json);
    family->moed.json = NULL;
}

void family_close(struct family *family)
{
    family_close_config(family);
    views_free(family->views);
    for (size_t i = 0; i < family->ignored_count; i++)
        free(family->ignored[i]);
    free(family->ignored);
}
