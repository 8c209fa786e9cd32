/* Preloaded into a server by faults.py: the wall clock jumps, and an allocation fails, when a page
 * shared with the test says so. Its file is named by FAULTS_PAGE. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct page {
    _Atomic long clock_offset_s;
    _Atomic long fails_in;  /* the n-th allocation from now on fails; 0: none does */
    _Atomic long allocated; /* allocations so far */
};

static struct page *page;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULTS_PAGE");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    void *mapped =
        fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (mapped != MAP_FAILED)
        page = mapped;
}

/* ---- memory ---- */

static int fails(void)
{
    if (!page)
        return 0;
    atomic_fetch_add(&page->allocated, 1);
    if (atomic_load(&page->fails_in) <= 0 || atomic_fetch_sub(&page->fails_in, 1) != 1)
        return 0;
    errno = ENOMEM;
    return 1;
}

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);

/* Those of AddressSanitizer, in a process that has it. */
#define OF_SANITIZER __attribute__((weak))
OF_SANITIZER void *__interceptor_malloc(size_t bytes);
OF_SANITIZER void *__interceptor_calloc(size_t count, size_t bytes);
OF_SANITIZER void *__interceptor_realloc(void *memory, size_t bytes);
OF_SANITIZER void *__interceptor_aligned_alloc(size_t alignment, size_t bytes);

void *malloc(size_t bytes)
{
    if (fails())
        return NULL;
    return __interceptor_malloc ? __interceptor_malloc(bytes) : __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    if (fails())
        return NULL;
    return __interceptor_calloc ? __interceptor_calloc(count, bytes) : __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    if (fails())
        return NULL;
    return __interceptor_realloc ? __interceptor_realloc(memory, bytes)
                                 : __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    if (fails())
        return NULL;
    return __interceptor_aligned_alloc ? __interceptor_aligned_alloc(alignment, bytes)
                                       : __libc_memalign(alignment, bytes);
}

/* ---- time ---- */

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (page && clock == CLOCK_REALTIME)
        now->tv_sec += atomic_load(&page->clock_offset_s);
    return result;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict where, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *where = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}
