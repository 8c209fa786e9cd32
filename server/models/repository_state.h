/* What a repository knows: private to server/models/repository*.c, and to who owns one. */
#ifndef SERVER_REPOSITORY_STATE_H
#define SERVER_REPOSITORY_STATE_H

#include "proto/serving.h"
#include "server/models/catalog.h"
#include "server/models/model_name.h"

/* One version, known because it is on the disk, or because it is or was served. */
struct repository_version {
    char text[24]; /* its number */
    uint64_t number;
    char *path;         /* where it was found last */
    uint64_t found;     /* fingerprint of its files and limits now; 0: not there, or not complete */
    uint64_t attempted; /* the same, when it was last loaded or that failed */
    uint64_t seen;      /* the same, at the look before */
    bool settled;       /* found is what was seen */
    bool selected;      /* it should be served */
    bool failed;        /* it should be served as it is on the disk, and cannot be */
    enum error_code cause; /* of that */
    uint64_t patience_ns;  /* how long until it is tried again; 0: until somebody asks */
    uint64_t again_ns;     /* and when that will be */
    struct model *model;   /* held while it is served; NULL else */
    struct model *leaving; /* held: served no more, and maybe still used by requests */
    enum model_state state;
    char *reason; /* never NULL */
    uint64_t failures;
};

struct repository_model {
    char *name;
    bool found;  /* there is a directory */
    bool wanted; /* by name */
    char *fault; /* of the model as a whole: nothing of it is loaded or unloaded; NULL: none */
    enum error_code fault_code;
    char *told;        /* the fault at the look before */
    uint64_t failures; /* times that a fault was found */
    bool changed;      /* since on_change() was called last */
    struct serving serving;
    struct repository_version **versions; /* [count] lowest first */
    size_t count;
};

struct state;

struct repository_options {
    const char *directory;
    struct model_options models;
    struct state *state;         /* where statistics are kept; NULL: nowhere */
    bool by_name;                /* only models that are asked for are loaded */
    bool want_all;               /* by_name: all that are there at the start are asked for */
    bool may_be_empty;           /* at the start */
    const atomic_bool *stopping; /* ends loading between two models */
    /* What a catalog shows has changed. */
    void (*on_change)(void *context);
    void *context;
};

struct repository {
    struct repository_options options;
    struct repository_model **models; /* [count] by name */
    size_t count;
    bool complete;           /* it was looked through once */
    struct model **replaced; /* [replaced_count] held: by newer ones, and maybe still used */
    size_t replaced_count;
};

static inline bool repository_knows(const struct repository_version *version)
{
    return version->found || version->selected || version->model || version->leaving;
}

/* Whether a fault of it is one of the server's: nobody has asked for the others. */
static inline bool repository_wants(const struct repository *repository,
                                    const struct repository_model *model)
{
    return !repository->options.by_name || model->wanted;
}

#endif
