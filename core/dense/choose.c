/* Kernels, of which one is chosen for the process: its products of floats and those of integers. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "core/dense/bfloats.h"
#include "core/dense/integers.h"
#include "core/dense/kernel.h"
#include "core/moed.h"

struct choice {
    const char *name;
    const struct kernel *floats;
    const struct integer_kernel *integers;
    const struct bfloat_kernel *bfloats; /* where the machine has it; NULL: there is none */
};

/* The best first. */
static const struct choice KERNELS[] = {
#ifdef MOED_X86_NEWER
    {"avx512vnni", &kernel_avx512, &integers_avx512vnni, &bfloats_avx512},
    {"avx512", &kernel_avx512, &integers_avx2, &bfloats_avx512},
    {"avxvnni", &kernel_avx2, &integers_avxvnni, NULL},
#endif
#ifdef MOED_X86
    {"avx2", &kernel_avx2, &integers_avx2, NULL},
#endif
#ifdef MOED_NEON
    {"dotprod", &kernel_neon, &integers_dotprod, NULL},
    {"neon", &kernel_neon, &integers_generic, NULL},
#endif
    {"generic", &kernel_generic, &integers_generic, NULL},
    {"openblas", &kernel_openblas, &integers_generic, NULL},
};

enum { KERNEL_COUNT = sizeof KERNELS / sizeof *KERNELS, GENERIC = KERNEL_COUNT - 2 };

static const struct choice *chosen;

static bool is_usable(const struct choice *choice)
{
    return choice->floats->usable() && choice->integers->usable();
}

static void choose(void)
{
    const char *name = getenv("MOED_KERNEL");
    for (size_t i = 0; i < KERNEL_COUNT && !chosen; i++)
        if ((!name || strcmp(name, KERNELS[i].name) == 0) && is_usable(&KERNELS[i]))
            chosen = &KERNELS[i];
    if (!chosen)
        chosen = &KERNELS[GENERIC];
}

static const struct choice *get(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return chosen;
}

const struct kernel *kernel_get(void)
{
    return get()->floats;
}

const struct integer_kernel *integer_kernel_get(void)
{
    return get()->integers;
}

const struct bfloat_kernel *bfloat_kernel_get(void)
{
    const struct bfloat_kernel *kernel = get()->bfloats;
    return kernel && kernel->usable() ? kernel : NULL;
}

bool moed_multiplies_bf16(void)
{
    return bfloat_kernel_get() != NULL;
}

const char *moed_kernel_name(void)
{
    return get()->name;
}

int moed_kernel_check(struct error *err)
{
    char choices[128] = "";
    const char *name = getenv("MOED_KERNEL");
    if (!name || strcmp(moed_kernel_name(), name) == 0)
        return 0;
    for (size_t i = 0; i < KERNEL_COUNT; i++) {
        if (!is_usable(&KERNELS[i]))
            continue;
        strcat(choices, *choices ? ", " : "");
        strcat(choices, KERNELS[i].name);
    }
    return error_set(err, ERROR_INVALID, "MOED_KERNEL: this machine can run %s, but not \"%.40s\"",
                     choices, name);
}
