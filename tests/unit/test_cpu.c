/* CPU counting, in a directory that stands for / and has the files that a container sees. */
#include <check.h>
#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "server/cpu.h"

static char root[64];
static unsigned affinity;

static void root_begin(void)
{
    strcpy(root, "/tmp/moed-test-cpu-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(root));
    affinity = cpu_count(root); /* nothing there: the affinity alone */
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where)
{
    (void)status, (void)type, (void)where;
    return remove(path);
}

static void root_end(void)
{
    nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *name, const char *content)
{
    char path[512];
    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *slash = path + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fputs(content, file);
    fclose(file);
}

static unsigned at_most(unsigned cpus)
{
    return cpus < affinity ? cpus : affinity;
}

START_TEST(the_affinity_counts_without_cgroups)
{
    cpu_set_t before, one;
    ck_assert_int_eq(0, sched_getaffinity(0, sizeof before, &before));
    ck_assert_uint_eq((unsigned)CPU_COUNT(&before), affinity);
    CPU_ZERO(&one);
    for (size_t cpu = 0; CPU_COUNT(&one) == 0; cpu++) {
        if (CPU_ISSET(cpu, &before))
            CPU_SET(cpu, &one);
    }
    ck_assert_int_eq(0, sched_setaffinity(0, sizeof one, &one));
    unsigned cpus = cpu_count(root);
    sched_setaffinity(0, sizeof before, &before);
    ck_assert_uint_eq(1, cpus);
}
END_TEST

/* Each quota below asks for one CPU, so that the tests can fail on any machine with two. */

START_TEST(v2_quota_of_the_own_group)
{
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "50000 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
    ck_assert_uint_eq(1, cpu_count(root));
}
END_TEST

START_TEST(v2_quota_of_an_ancestor)
{
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/cpu.max", "100000 100000\n");
    ck_assert_uint_eq(1, cpu_count(root));
}
END_TEST

START_TEST(v2_path_from_outside_the_container)
{
    put("/proc/self/cgroup", "0::/kubepods/pod7/container\n");
    put("/sys/fs/cgroup/cpu.max", "10000 100000\n");
    ck_assert_uint_eq(1, cpu_count(root));
}
END_TEST

START_TEST(v2_hybrid_mount)
{
    put("/proc/self/cgroup", "4:memory:/x\n0::/a\n");
    put("/sys/fs/cgroup/unified/a/cpu.max", "100000 100000\n");
    ck_assert_uint_eq(1, cpu_count(root));
}
END_TEST

START_TEST(v1_quota)
{
    put("/proc/self/cgroup", "7:cpuset:/other\n4:cpu,cpuacct:/a/b\n1:name=systemd:/a\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us", "50000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us", "100000\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/a/b/cpu.cfs_period_us", "100000\n");
    ck_assert_uint_eq(1, cpu_count(root));
}
END_TEST

START_TEST(v1_cpuset_is_not_cpu)
{
    put("/proc/self/cgroup", "7:cpuset,cpuacct:/a\n");
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "1000\n");
    put("/sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    ck_assert_uint_eq(affinity, cpu_count(root));
}
END_TEST

START_TEST(a_fraction_rounds_up)
{
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "100001 100000\n");
    ck_assert_uint_eq(at_most(2), cpu_count(root));
}
END_TEST

START_TEST(no_quota_or_nonsense_is_no_limit)
{
    static const char *const contents[] = {"max 100000\n",
                                           "",
                                           "\n",
                                           "0 100000\n",
                                           "-5 100000\n",
                                           "100000\n",
                                           "5 0\n",
                                           "99999999999999999999 1\n",
                                           "9223372036854775807 1\n",
                                           "garbage\n"};
    put("/proc/self/cgroup", "0::/\n::\nno colons\n4:cpu\n");
    put("/sys/fs/cgroup/cpu.max", contents[_i]);
    ck_assert_uint_eq(affinity, cpu_count(root));
}
END_TEST

START_TEST(an_endless_path_is_survived)
{
    static char line[20000] = "0::";
    for (size_t i = 3; i < sizeof line - 2; i++)
        line[i] = i % 2 ? '/' : 'a';
    put("/proc/self/cgroup", line);
    ck_assert_uint_eq(affinity, cpu_count(root));
}
END_TEST

START_TEST(the_real_root_gives_at_least_one)
{
    unsigned cpus = cpu_count("");
    ck_assert_uint_ge(cpus, 1);
    ck_assert_uint_le(cpus, affinity);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("cpu");
    tcase_add_checked_fixture(tests, root_begin, root_end);
    tcase_add_test(tests, the_affinity_counts_without_cgroups);
    tcase_add_test(tests, v2_quota_of_the_own_group);
    tcase_add_test(tests, v2_quota_of_an_ancestor);
    tcase_add_test(tests, v2_path_from_outside_the_container);
    tcase_add_test(tests, v2_hybrid_mount);
    tcase_add_test(tests, v1_quota);
    tcase_add_test(tests, v1_cpuset_is_not_cpu);
    tcase_add_test(tests, a_fraction_rounds_up);
    tcase_add_loop_test(tests, no_quota_or_nonsense_is_no_limit, 0, 10);
    tcase_add_test(tests, an_endless_path_is_survived);
    tcase_add_test(tests, the_real_root_gives_at_least_one);
    Suite *suite = suite_create("cpu");
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
