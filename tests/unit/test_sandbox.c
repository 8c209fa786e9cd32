/* What a process that serves can no longer do, and what it still can. Each case is a process of its
 * own, as nothing of this can be taken back. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ptrace.h>
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
#endif
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

TEST_MAIN("sandbox", calls_that_a_server_does_not_need, threads_that_are_there_are_bound_too,
          files_stay_as_they_are, state_can_be_written)
