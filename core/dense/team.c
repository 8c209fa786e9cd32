/* Fork and join on pthreads, where the caller works first and helpers join if they wake in time.
 *
 * One mutex guards the fork (a new generation) and the join (the count of helpers at work); tasks
 * are claimed from an atomic counter. Waking often takes longer than a fork has work for, so the
 * caller begins alone and waits only for helpers that joined before it ran out of tasks. A layer's
 * forks follow each other within a tenth of a millisecond, so helpers look for the next one for a
 * moment before they sleep, as the caller does for the last helper. */
#include "core/dense/team.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "core/memory.h"
#include "core/moed.h"

/* About 60 us of one thread. On a virtual machine, where waking another thread takes about 100 us,
 * forking for half of this made small experts 50 % slower. */
static const uint64_t MIN_FORK_MACS = 3 * 1000 * 1000;

struct moed_team {
    uint64_t fork_from; /* multiply-accumulates */
    pthread_mutex_t mutex;
    pthread_cond_t forked, joined;
    atomic_uint generation; /* of the current fork */
    bool open;              /* helpers may still join it */
    atomic_uint busy;       /* helpers that joined and have not finished */
    unsigned asleep;        /* helpers that wait for `forked` */
    bool stopping;

    void (*task)(void *context, size_t index, unsigned worker);
    void *context;
    size_t count;
    atomic_size_t next;

    unsigned helper_count;
    struct helper {
        struct moed_team *team;
        unsigned worker;
        pthread_t thread;
    } * helpers;
};

/* Waking takes about 30 us, or 100 on some virtual machines; between the forks of a decoder's layer
 * lie 50 to 130. */
static const uint64_t LOOK_NS = 150 * 1000;

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* A part of a microsecond, unless another thread needs the processor. */
static void give_way(void)
{
    for (int i = 0; i < 16; i++)
        pause_briefly();
    sched_yield();
}

/* Whether a number becomes `value`, or another one if not `equal`, before it takes too long. */
static bool look_until(const atomic_uint *number, bool equal, unsigned value)
{
    for (const uint64_t end = now_ns() + LOOK_NS; now_ns() < end; give_way())
        if ((atomic_load_explicit(number, memory_order_relaxed) == value) == equal)
            return true;
    return false;
}

static void take_tasks(struct moed_team *team, unsigned worker)
{
    for (;;) {
        size_t index = atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed);
        if (index >= team->count)
            return;
        team->task(team->context, index, worker);
    }
}

/* Joins the next fork. False: the team is stopping. */
static bool wait_for_fork(struct moed_team *team, unsigned *seen)
{
    bool looked = false;
    pthread_mutex_lock(&team->mutex);
    while (!(team->open && team->generation != *seen) && !team->stopping) {
        *seen = team->generation; /* one that is over */
        if (looked) {
            team->asleep++;
            pthread_cond_wait(&team->forked, &team->mutex);
            team->asleep--;
            continue;
        }
        pthread_mutex_unlock(&team->mutex);
        looked = !look_until(&team->generation, false, *seen);
        pthread_mutex_lock(&team->mutex);
    }
    *seen = team->generation;
    team->busy++;
    const bool stopping = team->stopping;
    pthread_mutex_unlock(&team->mutex);
    return !stopping;
}

static void *helper_main(void *argument)
{
    struct helper *helper = argument;
    struct moed_team *team = helper->team;
    unsigned seen = 0;
    while (wait_for_fork(team, &seen)) {
        take_tasks(team, helper->worker);
        pthread_mutex_lock(&team->mutex);
        if (--team->busy == 0)
            pthread_cond_signal(&team->joined);
        pthread_mutex_unlock(&team->mutex);
    }
    return NULL;
}

struct moed_team *moed_team_new(unsigned threads)
{
    struct moed_team *team = xcalloc(1, sizeof *team);
    team->fork_from = MIN_FORK_MACS;
    pthread_mutex_init(&team->mutex, NULL);
    pthread_cond_init(&team->forked, NULL);
    pthread_cond_init(&team->joined, NULL);
    team->helpers = xcalloc(threads, sizeof *team->helpers);
    for (unsigned worker = 1; worker < threads; worker++) {
        struct helper *helper = &team->helpers[team->helper_count];
        *helper = (struct helper){.team = team, .worker = worker};
        /* If threads are scarce the team is smaller, not broken: the caller always works. */
        if (pthread_create(&helper->thread, NULL, helper_main, helper) != 0)
            break;
        team->helper_count++;
    }
    return team;
}

void moed_team_free(struct moed_team *team)
{
    if (!team)
        return;
    pthread_mutex_lock(&team->mutex);
    team->stopping = true;
    pthread_cond_broadcast(&team->forked);
    pthread_mutex_unlock(&team->mutex);
    for (unsigned i = 0; i < team->helper_count; i++)
        pthread_join(team->helpers[i].thread, NULL);
    pthread_cond_destroy(&team->joined);
    pthread_cond_destroy(&team->forked);
    pthread_mutex_destroy(&team->mutex);
    free(team->helpers);
    free(team);
}

struct moed_team *team_for(struct moed_team *team, uint64_t macs)
{
    return team && macs >= team->fork_from ? team : NULL;
}

void team_fork_from(struct moed_team *team, uint64_t macs)
{
    team->fork_from = macs;
}

unsigned team_size(const struct moed_team *team)
{
    return team ? team->helper_count + 1 : 1;
}

void team_run(struct moed_team *team, size_t count,
              void (*task)(void *context, size_t index, unsigned worker), void *context)
{
    if (!team || team->helper_count == 0 || count < 2) {
        for (size_t index = 0; index < count; index++)
            task(context, index, 0);
        return;
    }
    pthread_mutex_lock(&team->mutex);
    team->task = task;
    team->context = context;
    team->count = count;
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    team->open = true;
    team->generation++;
    for (size_t i = 1; i < count && i <= team->asleep; i++)
        pthread_cond_signal(&team->forked);
    pthread_mutex_unlock(&team->mutex);

    take_tasks(team, 0);

    pthread_mutex_lock(&team->mutex);
    team->open = false;
    pthread_mutex_unlock(&team->mutex);
    look_until(&team->busy, true, 0);
    pthread_mutex_lock(&team->mutex);
    while (team->busy > 0)
        pthread_cond_wait(&team->joined, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}
