/* Seccomp lists what is forbidden and not what is allowed: which harmless calls the C library makes
 * changes with its version, while ways out of a process are few and known.
 *
 * Sanitizers start a symbolizer and trace the process to look for leaks, so builds with them keep
 * those calls. */
#include "server/access/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- files ---- */

/* Rights of later kernels than the headers may know. */
#define RIGHT_REFER    (UINT64_C(1) << 13)
#define RIGHT_TRUNCATE (UINT64_C(1) << 14)

#define RIGHTS_SOCKET (LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE)
/* Directories, too: what stands in a file's place is set aside. */
#define RIGHTS_STATE                                                                               \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |                              \
     LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_REMOVE_DIR)
#define RIGHTS_NEVER                                                                               \
    (LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_FIFO | LANDLOCK_ACCESS_FS_MAKE_BLOCK | \
     LANDLOCK_ACCESS_FS_MAKE_SYM)

/* What a kernel with this version of Landlock can be asked to watch over. */
static uint64_t watched(long version)
{
    uint64_t rights = RIGHTS_STATE | RIGHTS_SOCKET | RIGHTS_NEVER;
#ifndef MOED_SANITIZED
    rights |= LANDLOCK_ACCESS_FS_EXECUTE;
#endif
    return rights | (version >= 2 ? RIGHT_REFER : 0) | (version >= 3 ? RIGHT_TRUNCATE : 0);
}

/* A directory that cannot be opened gets no rights; who uses it says what is wrong with it. */
static void allow(int rules, const char *directory, uint64_t rights)
{
    int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct landlock_path_beneath_attr beneath = {.allowed_access = rights, .parent_fd = fd};
    if (fd < 0)
        return;
    (void)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0);
    close(fd);
}

static void allow_beside(int rules, const char *socket)
{
    char directory[sizeof "/" + 128]; /* longer than the path of a socket can be */
    const char *slash = strrchr(socket, '/');
    int length = slash ? (int)(slash - socket) : 0;
    snprintf(directory, sizeof directory, "%.*s/", length, socket);
    allow(rules, directory, RIGHTS_SOCKET);
}

bool sandbox_restrict_files(const char *state, const char *socket)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 1)
        return false;
    struct landlock_ruleset_attr attributes = {.handled_access_fs = watched(version)};
    int rules = (int)syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0);
    if (rules < 0)
        return false;
    if (state) {
        (void)mkdir(state, 0750);
        allow(rules, state, (RIGHTS_STATE | RIGHT_TRUNCATE) & watched(version));
    }
    if (socket)
        allow_beside(rules, socket);
    bool restricted = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                      syscall(SYS_landlock_restrict_self, rules, 0) == 0;
    close(rules);
    return restricted;
}

/* ---- system calls ---- */

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

static const int FORBIDDEN[] = {
#ifndef MOED_SANITIZED
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_kill,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
#endif
    /* sockets: a server has all that it needs */
    SYS_bind,
    SYS_listen,
    /* other processes */
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_kcmp,
    SYS_pidfd_open,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_shmget,
    SYS_shmat,
    SYS_msgget,
    SYS_semget,
    SYS_mq_open,
    SYS_perf_event_open,
    SYS_personality,
    /* what files and users are */
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_unshare,
    SYS_setns,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_open_by_handle_at,
    SYS_mknodat,
    SYS_memfd_create,
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setgroups,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_capset,
    /* parts of the kernel in which faults are found most often */
    SYS_bpf,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_keyctl,
    SYS_add_key,
    SYS_request_key,
    /* the machine */
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_kexec_file_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    SYS_syslog,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_vhangup,
    SYS_lookup_dcookie,
#if defined(__x86_64__)
    SYS_mknod,
    SYS_modify_ldt,
    SYS_iopl,
    SYS_ioperm,
#ifndef MOED_SANITIZED
    SYS_fork,
    SYS_vfork,
#endif
#endif
};

/* To reach others. */
static const int CALLING_OUT[] = {SYS_socket, SYS_connect};

/* What a process may do to itself, and not to others of its user: an argument has one value. */
struct own {
    int call;
    unsigned argument, value;
};

enum {
    FORBIDDEN_COUNT = sizeof FORBIDDEN / sizeof *FORBIDDEN,
    CALLING_OUT_COUNT = sizeof CALLING_OUT / sizeof *CALLING_OUT,
    OWN_COUNT = 4,
    FRAME_COUNT = 16,
    MOST_LINES = FRAME_COUNT + 2 * (FORBIDDEN_COUNT + CALLING_OUT_COUNT) + 5 * OWN_COUNT
};
_Static_assert((int)MOST_LINES <= (int)SANDBOX_MOST_LINES, "a filter does not fit");

#define AT(field)     offsetof(struct seccomp_data, field)
#define LOAD(field)   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, AT(field))
#define FAIL(reason)  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (reason))
#define UNLESS(value) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 1, 0)
#define ONLY(value)   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, 1)

#ifdef ARCHITECTURE
/* Threads may be made, processes may not. The flags of clone3() are out of a filter's sight;
 * without it the C library uses clone(). */
static size_t forbid_processes(struct sock_filter *code)
{
#ifdef MOED_SANITIZED
    (void)code;
    return 0;
#else
    const struct sock_filter lines[] = {
        ONLY(SYS_clone3),
        FAIL(ENOSYS),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_clone, 0, 4),
        LOAD(args[0]),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0),
        FAIL(EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    memcpy(code, lines, sizeof lines);
    return sizeof lines / sizeof *lines;
#endif
}

static size_t forbid(struct sock_filter *code, const int *calls, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        code[2 * i] = (struct sock_filter)ONLY((unsigned)calls[i]);
        code[2 * i + 1] = (struct sock_filter)FAIL(EPERM);
    }
    return 2 * count;
}

/* Of an argument its lower half, which is all that the kernel reads of these. */
static size_t allow_own(struct sock_filter *code)
{
    const struct own rules[OWN_COUNT] = {
        {SYS_prlimit64, 0, 0},
        {SYS_setpriority, 0, PRIO_PROCESS},
        {SYS_setpriority, 1, 0},
#ifndef MOED_SANITIZED
        {SYS_tgkill, 0, (unsigned)getpid()}, /* raise() and abort() */
#endif
    };
    size_t count = 0;
    for (size_t i = 0; i < OWN_COUNT && rules[i].call; i++) {
        const struct sock_filter lines[] = {
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)rules[i].call, 0, 4),
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                     AT(args) + (unsigned)sizeof(uint64_t) * rules[i].argument),
            UNLESS(rules[i].value),
            FAIL(EPERM),
            LOAD(nr),
        };
        memcpy(code + count, lines, sizeof lines);
        count += sizeof lines / sizeof *lines;
    }
    return count;
}

size_t sandbox_filter(struct sock_filter code[SANDBOX_MOST_LINES], bool calls_out)
{
    const struct sock_filter frame[] = {
        LOAD(arch),  UNLESS(ARCHITECTURE),
        FAIL(EPERM), /* the numbers below mean other calls there */
        LOAD(nr),    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1), /* and in x32 */
        FAIL(EPERM),
    };
    size_t count = sizeof frame / sizeof *frame;
    memcpy(code, frame, sizeof frame);
    count += forbid(code + count, FORBIDDEN, FORBIDDEN_COUNT);
    if (!calls_out)
        count += forbid(code + count, CALLING_OUT, CALLING_OUT_COUNT);
    count += allow_own(code + count);
    count += forbid_processes(code + count);
    code[count++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    return count;
}
#else
size_t sandbox_filter(struct sock_filter code[SANDBOX_MOST_LINES], bool calls_out)
{
    (void)code, (void)calls_out;
    return 0;
}
#endif

bool sandbox_restrict_calls(bool calls_out)
{
    struct sock_filter code[SANDBOX_MOST_LINES];
    const size_t count = sandbox_filter(code, calls_out);
    const struct sock_fprog program = {(unsigned short)count, code};
    return count > 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program) == 0;
}
