/* Adding a method that HTTP has is adding a row. */
#include "server/grpc/grpc_method.h"

#include <stdio.h>
#include <string.h>

#define SERVICE "/inference.GRPCInferenceService/"

static const struct grpc_method METHODS[] = {
    {SERVICE "ModelInfer", HTTP_POST, "/v2/models/", "/infer", NULL, &protocol_grpc, GRPC_TENSORS,
     GRPC_EMPTY},
    {SERVICE "ServerLive", HTTP_GET, NULL, NULL, "/v2/health/live", NULL, GRPC_NOTHING, GRPC_LIVE},
    {SERVICE "ServerReady", HTTP_GET, NULL, NULL, "/v2/health/ready", NULL, GRPC_NOTHING,
     GRPC_READY},
    {"/grpc.health.v1.Health/Check", HTTP_GET, NULL, NULL, "/v2/health/ready", NULL, GRPC_SERVICE,
     GRPC_SERVING},
    {SERVICE "ModelReady", HTTP_GET, "/v2/models/", "/ready", NULL, NULL, GRPC_MODEL, GRPC_READY},
    {SERVICE "ServerMetadata", HTTP_GET, NULL, NULL, "/v2", NULL, GRPC_NOTHING,
     GRPC_SERVER_METADATA},
    {SERVICE "ModelMetadata", HTTP_GET, "/v2/models/", "", NULL, NULL, GRPC_MODEL,
     GRPC_MODEL_METADATA},
    {SERVICE "ModelConfig", HTTP_GET, "/v2/models/", "/config", NULL, NULL, GRPC_MODEL,
     GRPC_MODEL_CONFIG},
    {SERVICE "ModelStatistics", HTTP_GET, "/v2/models/", "/stats", "/v2/models/stats", NULL,
     GRPC_MODEL, GRPC_STATISTICS},
    {SERVICE "RepositoryIndex", HTTP_POST, NULL, NULL, "/v2/repository/index", NULL, GRPC_INDEX,
     GRPC_INDEX_ENTRIES},
    {SERVICE "RepositoryModelLoad", HTTP_POST, "/v2/repository/models/", "/load", NULL, NULL,
     GRPC_CHANGE, GRPC_EMPTY},
    {SERVICE "RepositoryModelUnload", HTTP_POST, "/v2/repository/models/", "/unload", NULL, NULL,
     GRPC_CHANGE, GRPC_EMPTY},
};

const struct grpc_method *grpc_method_find(const char *path)
{
    for (size_t i = 0; i < sizeof METHODS / sizeof *METHODS; i++)
        if (strcmp(METHODS[i].path, path) == 0)
            return &METHODS[i];
    return NULL;
}

static char *append(char *to, const char *text)
{
    return strcpy(to, text) + strlen(text);
}

static char *append_encoded(char *to, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        bool plain = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                     c == '-' || c == '_' || c == '.';
        if (plain)
            *to++ = *text;
        else
            to += sprintf(to, "%%%02X", c);
    }
    *to = '\0';
    return to;
}

int grpc_method_path(const struct grpc_method *method, const char *name, const char *version,
                     char path[GRPC_PATH_BYTES], struct error *err)
{
    if (!method->before || (!*name && method->nameless)) {
        append(path, method->nameless);
        return 0;
    }
    if (!*name)
        return error_set(err, ERROR_INVALID, "the request names no model");
    /* not the path that is the statistics of all models: what asks for a model gets none else */
    char *to = append(path, method->before);
    to = strcmp(name, "stats") == 0 ? append(to, "%73tats") : append_encoded(to, name);
    if (*version)
        to = append_encoded(append(to, "/versions/"), version);
    append(to, method->behind);
    return 0;
}
