/* The signal handler may do little: it looks for the map in a list that only ever grows, puts zeros
 * in its place, and returns to the instruction that has failed. */
#include "core/load/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/memory.h"
#include "core/text.h"

/* ---- what the handler knows ---- */

struct map_slot {
    _Atomic uintptr_t base; /* 0: free */
    _Atomic size_t bytes;
    atomic_bool damaged;
    _Atomic(struct map_slot *) next;
};

/* A handler has no other way to its data than static memory. Slots are used again, never freed. */
static _Atomic(struct map_slot *) slots;
static pthread_mutex_t slots_mutex = PTHREAD_MUTEX_INITIALIZER; /* of who adds and removes */

static struct map_slot *add_slot(void *base, size_t bytes)
{
    pthread_mutex_lock(&slots_mutex);
    struct map_slot *slot = atomic_load(&slots);
    while (slot && atomic_load(&slot->base) != 0)
        slot = atomic_load(&slot->next);
    const bool is_new = !slot;
    if (is_new)
        slot = xcalloc(1, sizeof *slot);
    atomic_store(&slot->damaged, false);
    atomic_store(&slot->bytes, bytes);
    atomic_store(&slot->base, (uintptr_t)base);
    if (is_new) {
        atomic_store(&slot->next, atomic_load(&slots));
        atomic_store(&slots, slot);
    }
    pthread_mutex_unlock(&slots_mutex);
    return slot;
}

static void remove_slot(struct map_slot *slot)
{
    pthread_mutex_lock(&slots_mutex);
    atomic_store(&slot->base, 0);
    pthread_mutex_unlock(&slots_mutex);
}

static struct map_slot *find_slot(uintptr_t address)
{
    struct map_slot *slot = atomic_load(&slots);
    for (; slot; slot = atomic_load(&slot->next)) {
        const uintptr_t base = atomic_load(&slot->base);
        if (base != 0 && address >= base && address - base < atomic_load(&slot->bytes))
            return slot;
    }
    return NULL;
}

/* Two threads may come here for one map at a time: both do the same. */
static void on_bus_error(int number, siginfo_t *info, void *context)
{
    (void)context;
    const int before = errno;
    struct map_slot *slot = find_slot((uintptr_t)info->si_addr);
    if (slot) {
        atomic_store(&slot->damaged, true);
        void *zeros = mmap((void *)atomic_load(&slot->base), atomic_load(&slot->bytes), PROT_READ,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
        if (zeros != MAP_FAILED) {
            errno = before;
            return;
        }
    }
    signal(number, SIG_DFL); /* the instruction fails again, and ends the process */
}

int file_map_survive(struct error *err)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    if (sigaction(SIGBUS, &action, NULL) == 0)
        return 0;
    return error_set(err, ERROR_INTERNAL, "cannot catch SIGBUS: %s", strerror(errno));
}

/* ---- maps ---- */

/* Anonymous pages, which can be given back one by one like those of a file. */
static int fill(struct file_map *map, int fd, const char *path, bool copy, struct error *err)
{
    map->base = mmap(NULL, map->bytes, copy ? PROT_READ | PROT_WRITE : PROT_READ,
                     copy ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE, copy ? -1 : fd, 0);
    if (map->base == MAP_FAILED) {
        map->base = NULL;
        return error_set(err, error_of_errno(errno), "%s: cannot %s: %s", path,
                         copy ? "copy" : "map", strerror(errno));
    }
    if (!copy)
        map->slot = add_slot(map->base, map->bytes);
    if (!copy || file_read_bytes(fd, map->base, map->bytes) == 0)
        return 0;
    error_set(err, error_of_errno(errno), "%s: cannot read: %s", path, strerror(errno));
    file_map_close(map);
    return -1;
}

int file_map_init(struct file_map *map, const char *path, size_t least, bool copy,
                  struct error *err)
{
    struct stat status;
    int result = -1;
    *map = (struct file_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* do not wait for a pipe's writer */
    if (fd < 0)
        return error_set(err, error_of_errno(errno), "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        error_set(err, ERROR_INVALID, "%s: not a regular file", path);
    } else if ((size_t)status.st_size < least) {
        error_set(err, ERROR_INVALID, "%s: %lld byte%s, too short for a safetensors file", path,
                  (long long)status.st_size, text_s((uint64_t)status.st_size));
    } else {
        map->bytes = (size_t)status.st_size;
        result = fill(map, fd, path, copy, err);
    }
    close(fd);
    return result;
}

void file_map_close(struct file_map *map)
{
    if (!map->base)
        return;
    if (map->slot)
        remove_slot(map->slot);
    munmap(map->base, map->bytes);
    *map = (struct file_map){0};
}

bool file_map_is_damaged(const struct file_map *map)
{
    return map->slot && atomic_load_explicit(&map->slot->damaged, memory_order_acquire);
}
