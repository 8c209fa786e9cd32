/* Standard descriptors are never closed: asking one costs a call, and needs no handler of ours. */
#include "server/terminal.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

/* As nohup and trap '' HUP leave it, for what shall outlive the terminal. */
static bool hangups_are_ignored(void)
{
    struct sigaction inherited;
    return sigaction(SIGHUP, NULL, &inherited) == 0 && inherited.sa_handler == SIG_IGN;
}

int terminal_of_start(void)
{
    if (hangups_are_ignored())
        return -1;
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (isatty(fd) && tcgetpgrp(fd) == getpgrp())
            return fd;
    return -1;
}

bool terminal_is_gone(int terminal)
{
    struct pollfd ask = {.fd = terminal};
    return terminal >= 0 && poll(&ask, 1, 0) == 1 && (ask.revents & POLLHUP);
}
