/* What the process gives up when it serves: it only reads models, answers on sockets that it has,
 * and writes its log and its state. Whoever takes it over can do no more than that.
 *
 * Both parts are best effort: kernels and containers without them serve all the same. */
#ifndef SERVER_SANDBOX_H
#define SERVER_SANDBOX_H

#include <linux/filter.h>
#include <stdbool.h>
#include <stddef.h>

/* Landlock: from now on this thread, and those that it starts, change no file but below `state`,
 * make a socket only beside `socket` (either may be NULL), and execute nothing. Reading stays free:
 * models may be links to anywhere. Makes `state` if it is not there, as nothing could later. False
 * if the kernel does not have it. */
bool sandbox_restrict_files(const char *state, const char *socket);

/* Seccomp: from now on no thread starts a process, makes or connects a socket (unless it
 * `calls_out`), traces or signals another process, shares memory with one or changes its limits or
 * priority, or uses a part of the kernel that a server does not need. These fail with EPERM. False
 * if the kernel does not allow it. */
bool sandbox_restrict_calls(bool calls_out);

/* The filter that this takes, for this processor. Its length; 0: there is none. */
enum { SANDBOX_MOST_LINES = 256 };
size_t sandbox_filter(struct sock_filter code[SANDBOX_MOST_LINES], bool calls_out);

#endif
