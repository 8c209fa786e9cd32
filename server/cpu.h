/* How many CPUs this process may really use. */
#ifndef SERVER_CPU_H
#define SERVER_CPU_H

/* The smallest of the scheduling affinity and the cgroup CPU quota (v2 cpu.max, v1 cfs_quota_us, of
 * this process's group and every ancestor), rounded up; at least 1. `root` is "" (tests: a
 * directory that stands for /). */
unsigned cpu_count(const char *root);

#endif
