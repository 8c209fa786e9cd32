/* Whole HTTP requests through the real edge: a loop of the server with models, in this process, on
 * a loopback socket. Whatever is sent, each answer is HTTP and none blames the server, and nothing
 * of the connection is left. The first byte says where the rest is cut in two. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/memory.h"
#include "libfuzzer.h"
#include "server/http/http_limits.h"
#include "server/log.h"
#include "server/loop.h"
#include "server/statistics/state.h"

enum { ANSWER_BYTES = 1 << 20, SILENT_TURNS = 200 };

static struct loop loop;
static struct loader loader;
static struct options options;
static uint16_t port;
static char answer[ANSWER_BYTES];

static void on_published(void *context)
{
    (void)context;
    uv_async_send(&loop.published);
}

static void on_started(const struct error *err, void *context)
{
    (void)context;
    if (err)
        abort();
}

static void on_look(void *context)
{
    (void)context;
}

static void read_options(void)
{
    struct error err = ERROR_INIT;
    static char models[] = MOED_TEST_DATA "/../deploy/models";
    char *argv[] = {"--models",        models,     "--port",       "0",
                    "--admin",         "true",     "--threads",    "1",
                    "--loops",         "1",        "--log-level",  "error",
                    "--model-control", "explicit", "--load-model", "clusters,tiny-lm"};
    if (options_init(&options, sizeof argv / sizeof *argv, argv, &err) != 0)
        abort();
}

static void init_loader(void)
{
    const struct loader_options loading = {
        .repository = {.directory = options.models,
                       .by_name = true,
                       .models = {.loops = 1, .max_batch_rows = 8, .threads = 1}},
        .wanted = options.load_model,
        .loops = 1,
        .on_published = on_published,
        .on_started = on_started,
        .on_look = on_look};
    loader_init(&loader, &loading);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static struct access access;
    static struct state state;
    static struct trace trace;
    static atomic_bool stopping;
    static struct loop_shared shared;
    struct error err = ERROR_INIT;
    (void)argc, (void)argv;
    signal(SIGPIPE, SIG_IGN);
    log_set_level((enum log_level) - 1);
    read_options();
    init_loader();
    if (access_init(&access, &options, &err) != 0)
        abort();
    shared = (struct loop_shared){.options = &options,
                                  .limits = http_limits_new(100, 0, 1 << 24, &err),
                                  .access = &access,
                                  .loader = &loader,
                                  .totals = totals_new(1),
                                  .state = &state,
                                  .trace = &trace,
                                  .stopping = &stopping};
    const struct loop_ports ports = {0};
    if (!shared.limits || loop_start(&loop, &shared, 0, &ports, &err) != 0 ||
        loader_start(&loader, &err) != 0)
        abort();
    port = http_port(loop.main.http);
    while (loop.lanes.catalog->count < 2)
        uv_run(&loop.uv, UV_RUN_ONCE);
    return 0;
}

static int open_connection(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(port),
                                  .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        abort();
    fcntl(fd, F_SETFL, O_NONBLOCK);
    return fd;
}

static void send_part(int fd, const uint8_t *bytes, size_t count)
{
    (void)!write(fd, bytes, count); /* the server may have closed it already */
    for (int i = 0; i < 3; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
}

/* Until the end of the answers, or until nothing more comes: a live view has no end. */
static size_t receive(int fd)
{
    size_t length = 0;
    for (int silent = 0; silent < SILENT_TURNS && length < sizeof answer - 1; silent++) {
        ssize_t got = read(fd, answer + length, sizeof answer - 1 - length);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            break;
        if (got > 0) {
            length += (size_t)got;
            silent = 0;
        }
        if (silent > SILENT_TURNS / 2)
            usleep(100); /* a model is at work on its thread */
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    }
    answer[length] = '\0';
    return length;
}

static void fail(const char *why)
{
    fprintf(stderr, "%s: %s\n", why, answer);
    abort();
}

/* An answer that is not there in time may be cut anywhere. */
static void check(size_t length)
{
    static const char version[] = "HTTP/1.1 ", blame[] = "HTTP/1.1 500";
    if (memcmp(answer, version, length < strlen(version) ? length : strlen(version)) != 0)
        fail("no HTTP");
    if (strncmp(answer, blame, strlen(blame)) == 0)
        fail("the server is to blame");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const uint8_t *bytes = data + 1;
    size_t count = size - 1, first = count * data[0] / 256;
    int fd = open_connection();
    send_part(fd, bytes, first);
    send_part(fd, bytes + first, count - first);
    shutdown(fd, SHUT_WR);
    check(receive(fd));
    close(fd);
    for (int i = 0; i < 1000000 && http_connections(loop.main.http) > 0; i++)
        uv_run(&loop.uv, UV_RUN_NOWAIT);
    if (http_connections(loop.main.http) > 0)
        abort();
    return 0;
}
