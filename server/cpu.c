/* The smallest of affinity and cgroup quotas.
 *
 * In a container the machine's CPU count is the wrong answer: threads beyond the cgroup's quota get
 * all threads throttled for the rest of each period. The quota of every ancestor group binds as
 * well, so the walk goes up to the root. Inside a container the path in /proc/self/cgroup may name
 * a directory that is not mounted there; the walk then finds nothing until it reaches the mount's
 * root, which is the container's own group. */
#include "server/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CGROUP_PATH_BYTES = 4096 };

static const unsigned NO_LIMIT = ~0u;

static unsigned smaller(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

/* CPUs in the scheduling affinity. The kernel refuses a mask smaller than its own with EINVAL, so
 * the mask grows until a machine of any size fits. */
static unsigned affinity_cpus(void)
{
    for (size_t cpus = CPU_SETSIZE; cpus <= CPU_SETSIZE * 64; cpus *= 2) {
        cpu_set_t *mask = CPU_ALLOC(cpus);
        if (!mask)
            break;
        size_t bytes = CPU_ALLOC_SIZE(cpus);
        int failed = sched_getaffinity(0, bytes, mask);
        int count = failed ? 0 : CPU_COUNT_S(bytes, mask);
        CPU_FREE(mask);
        if (count > 0)
            return (unsigned)count;
    }
    return 1;
}

/* Reads the first line of a file; -1 when there is none. */
static int read_line(const char *path, char *line, int bytes)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return -1;
    char *read = fgets(line, bytes, file);
    fclose(file);
    return read ? 0 : -1;
}

/* quota / period in whole CPUs, rounded up; NO_LIMIT if there is no (sane) quota. */
static unsigned quota_cpus(long long quota, long long period)
{
    if (quota <= 0 || period <= 0)
        return NO_LIMIT;
    long long cpus = quota / period + (quota % period != 0);
    return cpus > 1 << 20 ? NO_LIMIT : (unsigned)cpus;
}

static unsigned cpus_of_group_v2(const char *directory)
{
    char path[CGROUP_PATH_BYTES + 32], line[128];
    long long quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", directory);
    if (read_line(path, line, sizeof line) != 0 || sscanf(line, "%lld %lld", &quota, &period) != 2)
        return NO_LIMIT; /* "max 100000" reads no number: no quota */
    return quota_cpus(quota, period);
}

static unsigned cpus_of_group_v1(const char *directory)
{
    char path[CGROUP_PATH_BYTES + 32], line[64];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", directory);
    if (read_line(path, line, sizeof line) != 0)
        return NO_LIMIT;
    long long quota = strtoll(line, NULL, 10);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", directory);
    if (read_line(path, line, sizeof line) != 0)
        return NO_LIMIT;
    return quota_cpus(quota, strtoll(line, NULL, 10));
}

/* The smallest quota of the group `root``mount``group` and of every ancestor up to `root``mount`.
 */
static unsigned cpus_of_ancestors(const char *root, const char *mount, const char *group,
                                  unsigned (*cpus_of_group)(const char *directory))
{
    char directory[CGROUP_PATH_BYTES];
    int length = snprintf(directory, sizeof directory, "%s%s", root, mount);
    if (length < 0 || (size_t)length + strlen(group) >= sizeof directory)
        return NO_LIMIT;
    strcpy(directory + length, group);
    unsigned cpus = NO_LIMIT;
    for (;;) {
        cpus = smaller(cpus, cpus_of_group(directory));
        char *slash = strrchr(directory + length, '/');
        if (!slash)
            return cpus;
        *slash = '\0';
    }
}

/* Whether the comma-separated list of v1 controllers has "cpu" (and not merely "cpuset"). */
static int has_cpu_controller(const char *controllers)
{
    for (const char *at = controllers; (at = strstr(at, "cpu")); at += 3) {
        int starts = at == controllers || at[-1] == ',';
        if (starts && (at[3] == '\0' || at[3] == ','))
            return 1;
    }
    return 0;
}

/* One line of /proc/self/cgroup: "0::/group" (v2) or "4:cpu,cpuacct:/group" (v1). Both are looked
 * at: a hybrid system mounts both, and only one of them carries the cpu controller. */
static unsigned cpus_of_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return NO_LIMIT;
    controllers++;
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    if (!*controllers)
        return smaller(cpus_of_ancestors(root, "/sys/fs/cgroup", group, cpus_of_group_v2),
                       cpus_of_ancestors(root, "/sys/fs/cgroup/unified", group, cpus_of_group_v2));
    if (has_cpu_controller(controllers))
        return smaller(
            cpus_of_ancestors(root, "/sys/fs/cgroup/cpu", group, cpus_of_group_v1),
            cpus_of_ancestors(root, "/sys/fs/cgroup/cpu,cpuacct", group, cpus_of_group_v1));
    return NO_LIMIT;
}

static unsigned cgroup_cpus(const char *root)
{
    char line[CGROUP_PATH_BYTES];
    snprintf(line, sizeof line, "%s/proc/self/cgroup", root);
    FILE *file = fopen(line, "re");
    if (!file)
        return NO_LIMIT;
    unsigned cpus = NO_LIMIT;
    while (fgets(line, sizeof line, file))
        cpus = smaller(cpus, cpus_of_line(root, line));
    fclose(file);
    return cpus;
}

unsigned cpu_count(const char *root)
{
    return smaller(affinity_cpus(), cgroup_cpus(root));
}
