/* Standard descriptors are never closed: asking one costs a call, and needs no handler of ours. */
#include "server/terminal.h"

#include <poll.h>
#include <unistd.h>

int terminal_of_start(void)
{
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
