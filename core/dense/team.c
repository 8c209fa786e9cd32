/* Fork and join on pthreads, where the caller works first and helpers join if they wake in time.
 *
 * One mutex guards the fork (a new generation) and the join (the count of helpers at work); tasks
 * are claimed from an atomic counter. Helpers sleep between forks, because spinning would waste a
 * server's CPU. Waking often takes longer than a fork has work for, so the caller begins alone and
 * waits only for helpers that joined before it ran out of tasks. */
#include "core/dense/team.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/memory.h"
#include "core/moed.h"

/* About 60 us of one thread. On a virtual machine, where waking another thread takes about 100 us,
 * forking for half of this made small experts 50 % slower. */
static const uint64_t MIN_FORK_MACS = 3 * 1000 * 1000;

struct moed_team {
    uint64_t fork_from; /* multiply-accumulates */
    pthread_mutex_t mutex;
    pthread_cond_t forked, joined;
    unsigned long generation; /* of the current fork */
    bool open;                /* helpers may still join it */
    unsigned busy;            /* helpers that joined and have not finished */
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

static void take_tasks(struct moed_team *team, unsigned worker)
{
    for (;;) {
        size_t index = atomic_fetch_add_explicit(&team->next, 1, memory_order_relaxed);
        if (index >= team->count)
            return;
        team->task(team->context, index, worker);
    }
}

static void *helper_main(void *argument)
{
    struct helper *helper = argument;
    struct moed_team *team = helper->team;
    unsigned long seen = 0;
    pthread_mutex_lock(&team->mutex);
    for (;;) {
        while (!(team->open && team->generation != seen) && !team->stopping)
            pthread_cond_wait(&team->forked, &team->mutex);
        if (team->stopping)
            break;
        seen = team->generation;
        team->busy++;
        pthread_mutex_unlock(&team->mutex);
        take_tasks(team, helper->worker);
        pthread_mutex_lock(&team->mutex);
        if (--team->busy == 0)
            pthread_cond_signal(&team->joined);
    }
    pthread_mutex_unlock(&team->mutex);
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
    for (size_t i = 1; i < count && i <= team->helper_count; i++)
        pthread_cond_signal(&team->forked);
    pthread_mutex_unlock(&team->mutex);

    take_tasks(team, 0);

    pthread_mutex_lock(&team->mutex);
    team->open = false;
    while (team->busy > 0)
        pthread_cond_wait(&team->joined, &team->mutex);
    pthread_mutex_unlock(&team->mutex);
}
