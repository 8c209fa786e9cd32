/* Log lines go into a ring of bytes, from which one thread writes to standard error.
 *
 * The lock is held while a line is copied, never during a write. Each write is whole lines of at
 * most PIPE_BUF bytes, which pipes do not mix with the writes of other processes. */
#include "server/log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum {
    /* Some 5,000 requests: how far a reader may fall behind before lines are lost. */
    BUFFER_BYTES = 1 << 20,
    /* The part of it that only errors may use: request lines must not crowd out the line that
     * explains a fault. */
    RESERVED_BYTES = 64 << 10,
    /* While the writer does not run: how long a line waits for a reader. */
    PATIENCE_MS = 1000,
    MESSAGE_BYTES = 1024,
};

/* Standard error is one per process, and so is this. */
static struct {
    atomic_int threshold, format;
    atomic_bool started, to_journal;
    atomic_uint_fast64_t dropped;
    uv_thread_t thread;
    uv_mutex_t mutex; /* guards all below */
    uv_cond_t wake;   /* there are lines, or the end has come */
    uv_cond_t ended;
    bool stopping, has_ended;
    bool broken;        /* the last write failed */
    uint64_t told;      /* dropped lines that the log has reported */
    size_t head, count; /* the waiting bytes begin at bytes[head] and wrap around */
    char bytes[BUFFER_BYTES];
} writer = {.threshold = LOG_INFO};

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&writer.threshold, (int)level, memory_order_relaxed);
}

enum log_level log_level(void)
{
    return (enum log_level)atomic_load_explicit(&writer.threshold, memory_order_relaxed);
}

void log_set_format(enum log_format format)
{
    atomic_store_explicit(&writer.format, (int)format, memory_order_relaxed);
}

void log_detect_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM"); /* its device and inode, by systemd */
    unsigned long long device, inode;
    struct stat status;
    const bool found = stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
                       fstat(STDERR_FILENO, &status) == 0 && status.st_dev == device &&
                       status.st_ino == inode;
    atomic_store(&writer.to_journal, found);
}

bool log_enabled(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&writer.threshold, memory_order_relaxed);
}

uint64_t log_dropped(void)
{
    return atomic_load_explicit(&writer.dropped, memory_order_relaxed);
}

static void count_dropped(uint64_t lines)
{
    atomic_fetch_add_explicit(&writer.dropped, lines, memory_order_relaxed);
}

/* What the journal takes for a line's priority, and does not show (sd-daemon(3)). */
static void mark(struct log_line *line, enum log_level level)
{
    static const char *const PRIORITIES[] = {"<3>", "<4>", "<6>", "<7>"};
    enum { MARK_BYTES = 3 };
    if (!atomic_load_explicit(&writer.to_journal, memory_order_relaxed))
        return;
    memmove(line->text + MARK_BYTES, line->text, line->length);
    memcpy(line->text, PRIORITIES[level], MARK_BYTES);
    line->length += MARK_BYTES;
}

/* ---- the ring ---- */

/* Appends the whole line; false if it does not fit. */
static bool put(const char *line, size_t count, size_t reserved)
{
    if (count + reserved > BUFFER_BYTES - writer.count)
        return false;
    size_t tail = (writer.head + writer.count) % BUFFER_BYTES;
    size_t first = count < BUFFER_BYTES - tail ? count : BUFFER_BYTES - tail;
    memcpy(writer.bytes + tail, line, first);
    memcpy(writer.bytes, line + first, count - first);
    writer.count += count;
    return true;
}

/* Takes as many whole lines as fit a piece. Every line fits one. */
static size_t take(char piece[PIPE_BUF])
{
    size_t count = writer.count < PIPE_BUF ? writer.count : PIPE_BUF;
    for (size_t i = 0; i < count; i++)
        piece[i] = writer.bytes[(writer.head + i) % BUFFER_BYTES];
    while (count > 0 && piece[count - 1] != '\n')
        count--;
    writer.head = (writer.head + count) % BUFFER_BYTES;
    writer.count -= count;
    return count;
}

/* Reports dropped lines once half of the buffer is free again: otherwise a reader that is slightly
 * too slow would read of little but dropped lines. */
static void tell_of_dropped(void)
{
    struct log_line line;
    uint64_t dropped = log_dropped();
    if (dropped == writer.told || writer.broken || writer.count > BUFFER_BYTES / 2)
        return;
    log_line_begin(&line, (enum log_format)atomic_load(&writer.format), LOG_WARNING, "log_dropped");
    log_number(&line, "lines", dropped - writer.told);
    log_number(&line, "total", dropped);
    log_line_end(&line);
    mark(&line, LOG_WARNING);
    put(line.text, line.length, 0);
    writer.told = dropped;
}

/* ---- writing ---- */

static bool can_write(int patience_ms)
{
    struct pollfd standard_error = {.fd = STDERR_FILENO, .events = POLLOUT};
    return poll(&standard_error, 1, patience_ms) != 0;
}

/* Writes all of it, however long that takes: this may be a terminal that somebody has paused, or a
 * pipe that another process has made non-blocking. False if it cannot be written. */
static bool write_all(const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t written = write(STDERR_FILENO, bytes, count);
        if (written >= 0) {
            bytes += written;
            count -= (size_t)written;
        } else if (errno == EAGAIN) {
            can_write(-1);
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

static uint64_t count_lines(const char *bytes, size_t count)
{
    uint64_t lines = 0;
    for (size_t i = 0; i < count; i++)
        lines += bytes[i] == '\n';
    return lines;
}

static void write_lines(void *argument)
{
    char piece[PIPE_BUF];
    (void)argument;
    uv_mutex_lock(&writer.mutex);
    for (;;) {
        tell_of_dropped();
        while (writer.count == 0 && !writer.stopping)
            uv_cond_wait(&writer.wake, &writer.mutex);
        size_t count = take(piece);
        if (count == 0)
            break;
        uv_mutex_unlock(&writer.mutex);
        bool written = write_all(piece, count);
        if (!written)
            count_dropped(count_lines(piece, count));
        uv_mutex_lock(&writer.mutex);
        writer.broken = !written;
    }
    writer.has_ended = true;
    uv_cond_signal(&writer.ended);
    uv_mutex_unlock(&writer.mutex);
}

/* Writes by the caller itself. A pipe that polls writable takes a line without blocking. */
static void write_now(const char *line, size_t count)
{
    if (!can_write(PATIENCE_MS) || !write_all(line, count))
        count_dropped(1);
}

static void write_line(const char *line, size_t count, enum log_level level)
{
    if (!atomic_load(&writer.started)) {
        write_now(line, count);
        return;
    }
    uv_mutex_lock(&writer.mutex);
    bool was_idle = writer.count == 0;
    if (!put(line, count, level == LOG_ERROR ? 0 : RESERVED_BYTES))
        count_dropped(1);
    else if (was_idle)
        uv_cond_signal(&writer.wake);
    uv_mutex_unlock(&writer.mutex);
}

int log_start(struct error *err)
{
    if (uv_mutex_init(&writer.mutex) != 0 || uv_cond_init(&writer.wake) != 0 ||
        uv_cond_init(&writer.ended) != 0)
        return error_set(err, ERROR_INTERNAL, "cannot start the log: no memory for its lock");
    writer.stopping = writer.has_ended = writer.broken = false;
    writer.head = writer.count = 0;
    int status = uv_thread_create(&writer.thread, write_lines, NULL);
    if (status != 0)
        return error_set(err, ERROR_INTERNAL, "cannot start the thread that writes the log: %s",
                         uv_strerror(status));
    atomic_store(&writer.started, true);
    return 0;
}

/* A writer that still waits for a reader is left running, and the lock is kept: the process is
 * about to end, and other threads may still log. */
void log_stop(uint64_t patience_ms)
{
    if (!atomic_exchange(&writer.started, false))
        return;
    uint64_t deadline = uv_hrtime() + patience_ms * 1000000;
    uv_mutex_lock(&writer.mutex);
    writer.stopping = true;
    uv_cond_signal(&writer.wake);
    for (uint64_t now; !writer.has_ended && (now = uv_hrtime()) < deadline;)
        uv_cond_timedwait(&writer.ended, &writer.mutex, deadline - now);
    bool has_ended = writer.has_ended;
    uv_mutex_unlock(&writer.mutex);
    if (has_ended)
        uv_thread_join(&writer.thread);
}

/* ---- lines ---- */

void log_begin(struct log_line *line, enum log_level level, const char *event)
{
    line->length = 0;
    if (log_enabled(level))
        log_line_begin(line,
                       (enum log_format)atomic_load_explicit(&writer.format, memory_order_relaxed),
                       level, event);
}

void log_end(struct log_line *line)
{
    if (line->length == 0)
        return;
    log_line_end(line);
    mark(line, line->level);
    write_line(line->text, line->length, line->level);
    line->length = 0;
}

void log_message(enum log_level level, const char *event, const char *format, ...)
{
    if (!log_enabled(level))
        return;
    char message[MESSAGE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    struct log_line line;
    log_begin(&line, level, event);
    log_text(&line, "message", message);
    log_end(&line);
}

void log_listening(const char *url)
{
    struct log_line line;
    if (atomic_load(&writer.format) == LOG_JSON) {
        log_line_begin(&line, LOG_JSON, LOG_INFO, "listening");
        log_text(&line, "url", url);
        log_line_end(&line);
    } else {
        line.length = (size_t)snprintf(line.text, sizeof line.text, "listening on %.1000s\n", url);
    }
    mark(&line, LOG_INFO);
    write_line(line.text, line.length, LOG_ERROR);
}
