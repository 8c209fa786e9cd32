/* `moectl top`: one loop over keys, signals and snapshots. Signals come through a descriptor, so
 * that the terminal is always given back from here. */
#include "clients/c/moectl/top.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "clients/c/moectl/run.h"

/* ---- the terminal ---- */

static void put(const char *text)
{
    if (write(STDOUT_FILENO, text, strlen(text)) < 0)
        return; /* the terminal is gone: its hang-up ends us */
}

/* The other screen, no cursor, lines cut at the edge; keys one by one and unseen. Ctrl-C and Ctrl-Z
 * throw nothing away that is on its way to the terminal, where half a sequence would be left. */
static void enter_screen(const struct termios *usual)
{
    struct termios raw = *usual;
    raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
    raw.c_lflag |= NOFLSH;
    raw.c_cc[VMIN] = 0;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    put("\033[?1049h\033[?25l\033[?7l\033[2J");
}

static void leave_screen(const struct termios *usual)
{
    tcsetattr(STDIN_FILENO, TCSANOW, usual);
    put("\033[?7h\033[?25h\033[?1049l");
}

/* ---- models and windows ---- */

/* The model `step` places on in the list, round and round. */
static void turn_model(struct top *top, size_t step)
{
    json_t *names = top->now ? top->now->names : NULL, *name;
    size_t count = json_array_size(names), at = 0, i;
    if (count == 0)
        return;
    json_array_foreach(names, i, name)
    {
        if (top->now->model && strcmp(json_string_value(name), top->now->model) == 0)
            at = i;
    }
    name = json_array_get(names, (at + step) % count);
    top->scroll = 0;
    top->paused = false;
    source_ask(top->source, json_string_value(name), top->window);
}

static void turn_window(struct top *top)
{
    static const char *const WINDOWS[] = {NULL, "1m", "5m", "1h"};
    size_t at = 0;
    for (size_t i = 1; top->window && i < LENGTH(WINDOWS); i++)
        if (strcmp(top->window, WINDOWS[i]) == 0)
            at = i;
    top->window = WINDOWS[(at + 1) % LENGTH(WINDOWS)];
    top->paused = false;
    source_ask(top->source, top->now ? top->now->model : NULL, top->window);
}

/* A snapshot of another model or window has nothing before it. */
static void take_snapshot(struct top *top)
{
    struct snapshot *snapshot = source_take(top->source);
    if (!snapshot)
        return;
    if (top->paused) {
        snapshot_free(snapshot);
        return;
    }
    bool same = top->now && top->now->model && snapshot->model && top->now->document &&
                snapshot->document && strcmp(top->now->model, snapshot->model) == 0 &&
                strcmp(top->now->document->window, snapshot->document->window) == 0;
    snapshot_free(top->before);
    top->before = same ? top->now : NULL;
    if (!same)
        snapshot_free(top->now);
    top->now = snapshot;
}

/* ---- keys ---- */

static void scroll_by(struct top *top, int lines)
{
    size_t up = lines < 0 ? (size_t)-lines : 0;
    top->scroll = up > top->scroll ? 0 : top->scroll - up + (size_t)(lines > 0 ? lines : 0);
}

static void press_letter(struct top *top, char key)
{
    switch (key) {
    case 'q':
        top->leave = true;
        break;
    case 'n':
    case '\t':
        turn_model(top, 1);
        break;
    case 'p':
        turn_model(top, top->now ? json_array_size(top->now->names) - 1 : 0);
        break;
    case 'w':
        turn_window(top);
        break;
    case 's':
        top->ranked = !top->ranked;
        break;
    case ' ':
        top->paused = !top->paused;
        break;
    case 'r':
        source_ask(top->source, top->now ? top->now->model : NULL, top->window);
        break;
    case 'h':
    case '?':
        top->help = !top->help;
        break;
    default:
        break;
    }
}

/* What follows ESC [ or ESC O. Returns its length. */
static size_t press_sequence(struct top *top, const char *sequence)
{
    int page = top->terminal.lines > 4 ? top->terminal.lines - 4 : 1;
    switch (*sequence) {
    case 'A':
        scroll_by(top, -1);
        return 1;
    case 'B':
        scroll_by(top, 1);
        return 1;
    case 'H':
        top->scroll = 0;
        return 1;
    case '5':
        scroll_by(top, -page);
        return 2;
    case '6':
        scroll_by(top, page);
        return 2;
    default:
        return *sequence ? 1 : 0;
    }
}

/* False: the terminal is gone. */
static bool read_keys(struct top *top)
{
    char keys[64];
    ssize_t length = read(STDIN_FILENO, keys, sizeof keys - 3);
    if (length <= 0)
        return length < 0 && (errno == EINTR || errno == EAGAIN);
    memset(keys + length, 0, 3); /* a sequence that is cut ends here */
    for (ssize_t i = 0; i < length; i++) {
        if (keys[i] == '\033' && (keys[i + 1] == '[' || keys[i + 1] == 'O'))
            i += 1 + (ssize_t)press_sequence(top, keys + i + 2);
        else
            press_letter(top, keys[i]);
    }
    return true;
}

/* ---- signals ---- */

static void take_signal(struct top *top, int signals, const struct termios *usual)
{
    struct signalfd_siginfo info;
    if (read(signals, &info, sizeof info) != (ssize_t)sizeof info)
        return;
    switch (info.ssi_signo) {
    case SIGWINCH:
        terminal_measure(&top->terminal);
        break;
    case SIGTSTP: /* as the shell expects it: stopped, and again in its place when continued */
        leave_screen(usual);
        raise(SIGSTOP);
        enter_screen(usual);
        terminal_measure(&top->terminal);
        break;
    default:
        top->leave = true;
    }
}

static int open_signals(sigset_t *mask)
{
    static const int TAKEN[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};
    sigemptyset(mask);
    for (size_t i = 0; i < LENGTH(TAKEN); i++)
        sigaddset(mask, TAKEN[i]);
    pthread_sigmask(SIG_BLOCK, mask, NULL);
    return signalfd(-1, mask, SFD_CLOEXEC);
}

/* ---- the loops ---- */

static void show(struct top *top, int signals, const struct termios *usual)
{
    struct pollfd polled[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                              {.fd = signals, .events = POLLIN},
                              {.fd = source_fd(top->source), .events = POLLIN}};
    while (!top->leave) {
        top_draw(top);
        if (poll(polled, LENGTH(polled), -1) < 0)
            continue;
        if (polled[0].revents && !read_keys(top))
            return;
        if (polled[1].revents)
            take_signal(top, signals, usual);
        if (polled[2].revents)
            take_snapshot(top);
    }
}

static int show_on_terminal(struct top *top, int signals, struct moed_client_error *err)
{
    struct termios usual;
    if (tcgetattr(STDIN_FILENO, &usual) != 0)
        return fail_with(err, "standard input is no terminal to read keys from");
    enter_screen(&usual);
    show(top, signals, &usual);
    leave_screen(&usual);
    return 0;
}

/* The first snapshot must be one; later failures are told, and things may get better. */
static int print_snapshot(struct top *top, struct moed_client_error *err)
{
    take_snapshot(top);
    if (top->now->document) {
        top_print_lines(top, stdout);
        return finish_output(stdout, "standard output", err);
    }
    *err = top->now->err;
    return -1;
}

static int print_lines(struct top *top, int signals, struct moed_client_error *err)
{
    struct pollfd polled[] = {{.fd = signals, .events = POLLIN},
                              {.fd = source_fd(top->source), .events = POLLIN}};
    for (uint64_t printed = 0; top->settings->count == 0 || printed < top->settings->count;) {
        struct moed_client_error failure = {0};
        if (poll(polled, LENGTH(polled), -1) < 0)
            continue;
        if (polled[0].revents)
            return 0;
        int result = print_snapshot(top, &failure);
        if (result != 0 && (printed == 0 || ferror(stdout))) {
            *err = failure;
            return -1;
        }
        if (result != 0) {
            char *text = printable(failure.text);
            fprintf(stderr, "moectl: %s\n", text);
            free(text);
        }
        printed++;
    }
    return 0;
}

int run_top(const struct settings *settings, struct moed_client_error *err)
{
    sigset_t mask;
    int signals = open_signals(&mask); /* before there is a thread that could get one */
    if (signals < 0)
        return fail_with(err, "signalfd: %s", strerror(errno));
    struct top top = {.settings = settings,
                      .terminal = terminal_of_output(),
                      .window = settings->window,
                      .source = source_new(settings, err)};
    int result = -1;
    if (top.source)
        result = isatty(STDOUT_FILENO) ? show_on_terminal(&top, signals, err)
                                       : print_lines(&top, signals, err);
    source_free(top.source);
    snapshot_free(top.now);
    snapshot_free(top.before);
    close(signals);
    pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
    return result;
}
