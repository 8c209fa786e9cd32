/* What a process that serves can no longer do, and what it still can. Each case is a process of its
 * own, as nothing of this can be taken back. */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "server/access/sandbox.h"
#include "support.h"

static char path[PATH_MAX];

static const char *in(const char *directory, const char *name)
{
    ck_assert_int_lt(snprintf(path, sizeof path, "%s/%s", directory, name), PATH_MAX);
    return path;
}

static int create(const char *directory, const char *name)
{
    int fd = open(in(directory, name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static void *do_nothing(void *argument)
{
    return argument;
}

static void make_a_thread(void)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, do_nothing, NULL), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}

#define FORBIDDEN(call)                                                                            \
    do {                                                                                           \
        errno = 0;                                                                                 \
        ck_assert_int_eq((int)(call), -1);                                                         \
        ck_assert_int_eq(errno, EPERM);                                                            \
    } while (0)

static void check_calls(int had)
{
    struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = htons(9)};
    FORBIDDEN(socket(AF_INET, SOCK_STREAM, 0));
    FORBIDDEN(socket(AF_UNIX, SOCK_STREAM, 0));
    FORBIDDEN(connect(had, (struct sockaddr *)&nobody, sizeof nobody));
    FORBIDDEN(syscall(SYS_unshare, 0));
    FORBIDDEN(syscall(SYS_memfd_create, "x", 0));
    FORBIDDEN(syscall(SYS_bpf, 0, 0, 0));
    FORBIDDEN(syscall(SYS_io_uring_setup, 1, 0));
    FORBIDDEN(syscall(SYS_process_vm_readv, getppid(), 0, 0, 0, 0, 0));
    FORBIDDEN(syscall(SYS_setresuid, getuid(), getuid(), getuid()));
#ifndef MOED_SANITIZED
    char *arguments[] = {(char[]){"/bin/true"}, NULL};
    FORBIDDEN(execv("/bin/true", arguments));
    FORBIDDEN(fork());
    FORBIDDEN(vfork());
    FORBIDDEN(ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    FORBIDDEN(kill(getppid(), 0));
    FORBIDDEN(syscall(SYS_tkill, getppid(), 0));
    FORBIDDEN(syscall(SYS_tgkill, getppid(), getppid(), 0));
    FORBIDDEN(sigqueue(getppid(), 0, (union sigval){0}));
#endif
    struct rlimit limit;
    FORBIDDEN(prlimit(getppid(), RLIMIT_CPU, NULL, &limit));
    FORBIDDEN(setpriority(PRIO_PROCESS, (id_t)getppid(), 19));
    FORBIDDEN(setpriority(PRIO_PGRP, 0, 19));
    FORBIDDEN(shmget(IPC_PRIVATE, 1, 0600));
    ck_assert_int_eq(getrlimit(RLIMIT_CPU, &limit), 0);
    ck_assert_int_eq(setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0)), 0);
}

START_TEST(calls_that_a_server_does_not_need)
{
    int had = socket(AF_INET, SOCK_STREAM, 0), pair[2];
    ck_assert_int_ge(had, 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    if (!sandbox_restrict_calls(false))
        return; /* qemu-user has no seccomp */
    check_calls(had);
    make_a_thread();
    ck_assert_int_eq(raise(0), 0);
    ck_assert_int_eq(send(pair[0], "x", 1, 0), 1);
    ck_assert_int_eq(recv(pair[1], path, 1, 0), 1);
    ck_assert_int_eq(create(support_root, "x"), 0);
}
END_TEST

static void *check_from_a_thread(void *ready)
{
    while (!*(volatile bool *)ready)
        usleep(100);
    errno = 0;
    return socket(AF_INET, SOCK_STREAM, 0) == -1 && errno == EPERM ? ready : NULL;
}

START_TEST(threads_that_are_there_are_bound_too)
{
    pthread_t thread;
    bool ready = false;
    void *result;
    pthread_create(&thread, NULL, check_from_a_thread, &ready);
    bool restricted = sandbox_restrict_calls(false);
    *(volatile bool *)&ready = true;
    pthread_join(thread, &result);
    ck_assert(!restricted || result);
}
END_TEST

START_TEST(files_stay_as_they_are)
{
    char *other = new_directory(), *state = new_directory(), *beside = new_directory();
    write_file(other, "file", "x", 1);
    if (!sandbox_restrict_files(state, in(beside, "socket")))
        return; /* an old kernel */
    ck_assert_int_eq(create(other, "new"), EACCES);
    ck_assert_int_eq(create(other, "file"), EACCES);
    ck_assert_int_eq(unlink(in(other, "file")), -1);
    ck_assert_int_eq(mkdir(in(other, "d"), 0700), -1);
    ck_assert_int_eq(symlink("x", in(other, "l")), -1);
    int fd = open(in(other, "file"), O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(close(fd), 0);
    ck_assert_int_eq(create(beside, "file"), EACCES);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    ck_assert_uint_lt(strlen(in(beside, "socket")), sizeof address.sun_path);
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    ck_assert_int_eq(unlink(address.sun_path), 0);
    close(fd);
    free(other);
    free(state);
    free(beside);
}
END_TEST

START_TEST(state_can_be_written)
{
    char *outside = new_directory(), *state = xstrdup(in(outside, "new"));
    if (!sandbox_restrict_files(state, NULL))
        return;
    ck_assert_int_eq(create(state, "a"), 0);
    ck_assert_int_eq(create(state, "a"), 0);
    char *before = xstrdup(in(state, "a"));
    ck_assert_int_eq(rename(before, in(state, "b")), 0);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(create(outside, "c"), EACCES);
    make_a_thread();
    free(before);
    free(state);
    free(outside);
}
END_TEST

/* ---- the filter where no kernel takes it, as under QEMU ---- */

#if defined(__x86_64__)
#define HERE      AUDIT_ARCH_X86_64
#define ELSEWHERE AUDIT_ARCH_I386
#elif defined(__aarch64__)
#define HERE      AUDIT_ARCH_AARCH64
#define ELSEWHERE AUDIT_ARCH_ARM
#endif

#ifdef HERE
enum { ALLOWED = SECCOMP_RET_ALLOW, REFUSED = SECCOMP_RET_ERRNO | EPERM };

/* What a kernel would do. */
static unsigned run(const struct sock_filter *code, size_t count, const struct seccomp_data *data)
{
    unsigned value = 0;
    for (size_t at = 0; at < count; at++) {
        const struct sock_filter *line = &code[at];
        bool holds = false;
        switch (line->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            ck_assert_uint_le(line->k + sizeof value, sizeof *data);
            memcpy(&value, (const char *)data + line->k, sizeof value);
            continue;
        case BPF_RET | BPF_K:
            return line->k;
        case BPF_JMP | BPF_JEQ | BPF_K:
            holds = value == line->k;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            holds = value >= line->k;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            holds = value & line->k;
            break;
        default:
            ck_abort_msg("instruction %x", line->code);
        }
        at += holds ? line->jt : line->jf;
    }
    ck_abort_msg("it goes behind its end");
}

static void expect_calls(bool calls_out, unsigned arch, unsigned expected, const int *calls,
                         size_t count)
{
    struct sock_filter code[SANDBOX_MOST_LINES];
    const size_t lines = sandbox_filter(code, calls_out);
    for (size_t i = 0; i < count; i++) {
        struct seccomp_data data = {.nr = calls[i], .arch = arch};
        ck_assert_msg(run(code, lines, &data) == expected, "call %d", calls[i]);
    }
}

static void expect_call(unsigned expected, int call, unsigned first, unsigned second)
{
    struct sock_filter code[SANDBOX_MOST_LINES];
    const size_t lines = sandbox_filter(code, false);
    struct seccomp_data data = {.nr = call, .arch = HERE, .args = {first, second}};
    ck_assert_msg(run(code, lines, &data) == expected, "call %d (%u, %u)", call, first, second);
}

START_TEST(the_filter_is_right_for_this_processor)
{
    static const int needed[] = {
        SYS_read,        SYS_write,    SYS_openat,     SYS_close,          SYS_newfstatat,
        SYS_mmap,        SYS_munmap,   SYS_madvise,    SYS_futex,          SYS_ppoll,
        SYS_epoll_pwait, SYS_accept4,  SYS_recvmsg,    SYS_sendmsg,        SYS_shutdown,
        SYS_renameat,    SYS_unlinkat, SYS_fsync,      SYS_getrandom,      SYS_rt_sigreturn,
        SYS_exit_group,  SYS_mprotect, SYS_getdents64, SYS_clock_nanosleep};
    static const int never[] = {SYS_bind,  SYS_bpf,       SYS_unshare, SYS_memfd_create,
                                SYS_mount, SYS_setresuid, SYS_keyctl,  SYS_io_uring_setup};
    static const int out[] = {SYS_socket, SYS_connect};
    const unsigned self = (unsigned)getpid();
    expect_calls(false, HERE, ALLOWED, needed, sizeof needed / sizeof *needed);
    expect_calls(false, ELSEWHERE, REFUSED, needed, sizeof needed / sizeof *needed);
    expect_calls(false, HERE, REFUSED, never, sizeof never / sizeof *never);
    expect_calls(true, HERE, REFUSED, never, sizeof never / sizeof *never);
    expect_calls(false, HERE, REFUSED, out, sizeof out / sizeof *out);
    expect_calls(true, HERE, ALLOWED, out, sizeof out / sizeof *out);
    expect_call(ALLOWED, SYS_prlimit64, 0, 0);
    expect_call(REFUSED, SYS_prlimit64, self, 0);
    expect_call(ALLOWED, SYS_setpriority, PRIO_PROCESS, 0);
    expect_call(REFUSED, SYS_setpriority, PRIO_PROCESS, self);
    expect_call(REFUSED, SYS_setpriority, PRIO_USER, 0);
    expect_call(ALLOWED, SYS_tgkill, self, 1);
#ifndef MOED_SANITIZED
    static const int processes[] = {SYS_execve, SYS_execveat, SYS_ptrace, SYS_kill, SYS_tkill};
    expect_calls(false, HERE, REFUSED, processes, sizeof processes / sizeof *processes);
    expect_call(REFUSED, SYS_tgkill, self + 1, 1);
    expect_call(ALLOWED, SYS_clone, CLONE_VM | CLONE_THREAD, 0);
    expect_call(REFUSED, SYS_clone, CLONE_VM, 0);
    expect_call(SECCOMP_RET_ERRNO | ENOSYS, SYS_clone3, 0, 0);
#endif
}
END_TEST
#else
START_TEST(the_filter_is_right_for_this_processor)
{
    struct sock_filter code[SANDBOX_MOST_LINES];
    ck_assert_uint_eq(sandbox_filter(code, false), 0);
}
END_TEST
#endif

TEST_MAIN("sandbox", the_filter_is_right_for_this_processor, calls_that_a_server_does_not_need,
          threads_that_are_there_are_bound_too, files_stay_as_they_are, state_can_be_written)
