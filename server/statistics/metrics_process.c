/* What Linux says of this process, under the names that every Prometheus client library uses. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "server/statistics/metrics_page.h"

static void one(struct metrics *all, const char *name, const char *type, const char *help,
                double value)
{
    prometheus_family(&all->page, name, type, help);
    prometheus_sample(&all->page, name, NULL, 0, value);
}

/* Seconds since 1970 at which the system started; 0: unknown. */
static double boot_time(void)
{
    char line[256];
    double seconds = 0;
    FILE *file = fopen("/proc/stat", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "btime %lf", &seconds) == 1)
            break;
    if (file)
        fclose(file);
    return seconds;
}

/* Field 22 of /proc/self/stat, in ticks since the system started. The second is the program's name
 * in parentheses, which may hold anything. */
static double start_ticks(void)
{
    char text[1024] = "";
    double ticks = 0;
    FILE *file = fopen("/proc/self/stat", "re");
    if (!file)
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    const char *field = strrchr(text, ')');
    for (int number = 2; field && number < 22; number++)
        field = strchr(field + 1, ' ');
    if (field && sscanf(field, "%lf", &ticks) != 1)
        ticks = 0;
    return ticks;
}

static void times(struct metrics *all)
{
    struct rusage usage;
    double boot = boot_time(), start = start_ticks();
    if (boot > 0 && start > 0)
        one(all, "process_start_time_seconds", "gauge", "When the process started, since 1970.",
            boot + start / (double)sysconf(_SC_CLK_TCK));
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return;
    double seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                     (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    one(all, "process_cpu_seconds_total", "counter", "CPU time of the process.", seconds);
}

static void memory(struct metrics *all)
{
    double pages, resident;
    FILE *file = fopen("/proc/self/statm", "re");
    int read = file ? fscanf(file, "%lf %lf", &pages, &resident) : 0;
    double page = (double)sysconf(_SC_PAGESIZE);
    if (file)
        fclose(file);
    if (read != 2)
        return;
    one(all, "process_virtual_memory_bytes", "gauge", "Address space of the process.",
        pages * page);
    one(all, "process_resident_memory_bytes", "gauge",
        "Memory of the process that is in RAM, mapped weights included.", resident * page);
}

static void descriptors(struct metrics *all)
{
    struct rlimit limit;
    double open = 0;
    DIR *directory = opendir("/proc/self/fd");
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        open += entry->d_name[0] != '.';
    if (directory) {
        closedir(directory);
        one(all, "process_open_fds", "gauge", "Open file descriptors.", open - 1); /* but ours */
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        one(all, "process_max_fds", "gauge", "The most file descriptors that may be open.",
            (double)limit.rlim_cur);
}

void metrics_process(struct metrics *all)
{
    times(all);
    memory(all);
    descriptors(all);
}
