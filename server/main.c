/* moed: the command line. Exit status: 0 done, 1 failed, 2 wrong usage. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/memory.h"
#include "core/moed.h"
#include "server/access/tokens.h"
#include "server/http/http_tls.h"
#include "server/inspect.h"
#include "server/log.h"
#include "server/options/options.h"
#include "server/probe.h"
#include "server/server.h"
#include "server/statistics/state_directory.h"

enum { EXIT_USAGE = 2 };

struct command {
    const char *name, *arguments, *summary;
    int (*run)(int argc, char *argv[]);
    void (*help)(FILE *out);
};

static int fail(const struct error *err)
{
    fprintf(stderr, "moed: %s\n", err->text);
    return EXIT_FAILURE;
}

static int usage(const struct error *err, const char *command)
{
    fprintf(stderr, "moed: %s\nTry 'moed help %s'.\n", err->text, command);
    return EXIT_USAGE;
}

static int run_serve(int argc, char *argv[])
{
    struct error err = ERROR_INIT;
    struct options options;
    if (moed_kernel_check(&err) != 0 || options_init(&options, argc, argv, &err) != 0)
        return usage(&err, "serve");
    log_set_level(log_level_from_name(options.log_level));
    log_set_format(strcmp(options.log_format, "json") == 0 ? LOG_JSON : LOG_LOGFMT);
    log_detect_journal();
    int status = server_run(&options, &err);
    options_close(&options);
    if (status >= 0)
        return status;
    log_message(LOG_ERROR, "fatal", "%s", err.text);
    return EXIT_FAILURE;
}

static void help_serve(FILE *out)
{
    fputs("Loads every model below the model repository, then answers predictions and routing\n"
          "statistics over HTTP until SIGTERM or SIGINT. The line 'listening on http://HOST:PORT'\n"
          "goes to standard error once every model has been looked at.\n\n"
          "  moed serve --models deploy/models\n"
          "  curl http://127.0.0.1:8080/v1/models\n\n",
          out);
    options_help(out);
}

/* A word of inspect's own. False: it is something else. */
static bool read_inspect_flag(struct inspect_options *wanted, const char *argument)
{
    bool *flag = strcmp(argument, "--json") == 0    ? &wanted->json
                 : strcmp(argument, "--check") == 0 ? &wanted->check
                                                    : NULL;
    if (flag)
        *flag = true;
    return flag;
}

/* Options of the server follow the directory, which takes the place of its --models: `server` is
 * for argc + 1 arguments. Returns how many they are; 0 with an error. */
static int read_inspect(struct inspect_options *wanted, int argc, char *argv[],
                        const char *server[], struct error *err)
{
    int count = 0;
    for (int i = 0; i < argc; i++) {
        if (read_inspect_flag(wanted, argv[i]))
            continue;
        if (count == 0 && argv[i][0] == '-') {
            error_set(err, ERROR_INVALID, "inspect: unexpected argument '%s'", argv[i]);
            return 0;
        }
        if (count == 0)
            server[count++] = "--models";
        server[count++] = argv[i];
    }
    if (count == 0)
        error_set(err, ERROR_INVALID,
                  "inspect: expected the directory of a checkpoint or of a repository");
    return count;
}

static int run_inspect(int argc, char *argv[])
{
    struct error err = ERROR_INIT;
    struct options options;
    struct inspect_options wanted = {.server = &options};
    const char **server = xcalloc((size_t)argc + 1, sizeof *server);
    int count = read_inspect(&wanted, argc, argv, server, &err);
    bool refused = count == 0 || moed_kernel_check(&err) != 0 ||
                   options_init(&options, count, (char *const *)server, &err) != 0;
    free(server);
    if (refused)
        return usage(&err, "inspect");
    int result = inspect(options.models, &wanted, stdout, &err);
    options_close(&options);
    return result == 0 ? EXIT_SUCCESS : fail(&err);
}

static void help_inspect(FILE *out)
{
    fputs(
        "Reads the headers of a checkpoint, published or moed's own, and prints its architecture,\n"
        "experts, parameters (in all, and active for one row) and what memory it takes when it is\n"
        "served: weights in each form, scratch, keys and values. Nothing large is read: that "
        "takes\n"
        "a moment, and little memory. Options of 'moed serve' may follow, by which the server "
        "would\n"
        "differ; its environment variables and --config count, too.\n\n"
        "  --json     print one JSON object\n"
        "  --check    load the weights, too, exactly as the server does\n\n"
        "Of a model repository every model is inspected in turn, with --json one line for each.\n"
        "Models that cannot be served are told on standard error, and the exit status is 1.\n\n"
        "  moed inspect deploy/models/fashion-mnist\n"
        "  moed inspect deploy/models/tiny-lm --weights int8 --kv-cache-mb 64\n"
        "  moed inspect --check deploy/models\n",
        out);
}

static int run_probe(int argc, char *argv[])
{
    struct error err = ERROR_INIT;
    struct probe probe;
    if (probe_arguments(&probe, argc, argv, &err) != 0)
        return usage(&err, "probe");
    if (probe_ask(&probe, &err) != 0)
        return fail(&err);
    puts("ok");
    return EXIT_SUCCESS;
}

static void help_probe(FILE *out)
{
    fputs(
        "Asks a running server whether it is ready, prints 'ok' and exits with 0 when it is; else\n"
        "says why not and exits with 1. For the health checks of containers, and for scripts.\n\n"
        "  --live             ask whether it is alive, ready or not\n"
        "  --tls              ask by TLS, without checking who it is (default: if MOED_TLS_CERT is "
        "set)\n"
        "  --host ADDRESS     where it is (default MOED_HOST, else 127.0.0.1)\n"
        "  --port N           (default MOED_PORT, else 8080)\n"
        "  --timeout-ms N     how long it may take to answer (default 2000)\n\n"
        "  moed probe --port 8080 && echo 'send it traffic'\n",
        out);
}

/* What the server could not start without. */
static int check_files(const struct options *options, struct error *err)
{
    const char *const files[][2] = {{"models", options->models},
                                    {"tokens", options->tokens},
                                    {"tls_cert", options->tls_cert},
                                    {"tls_key", options->tls_key},
                                    {"tls_client_ca", options->tls_client_ca}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (files[i][1] && access(files[i][1], R_OK) != 0)
            return error_set(err, ERROR_INVALID, "%s: cannot read %s: %s", files[i][0], files[i][1],
                             strerror(errno));
    return 0;
}

/* What the server would read at its start, and refuse as it would. */
static int check_contents(const struct options *options, struct error *err)
{
    const struct tls_options files = {options->tls_cert, options->tls_key, options->tls_client_ca};
    struct tokens *tokens = options->tokens ? tokens_read(options->tokens, err) : NULL;
    error_prefix(err, "tokens");
    if (options->tokens && !tokens)
        return -1;
    free(tokens);
    if (options->tokens && tokens_are_open(options->tokens))
        fprintf(stderr, "moed: warning: " TOKENS_OPEN "\n", options->tokens);
    struct tls *tls = options->tls_cert ? tls_new(&files, err) : NULL;
    if (options->tls_cert && !tls)
        return -1;
    tls_free(tls);
    return 0;
}

static int run_check(int argc, char *argv[])
{
    struct error err = ERROR_INIT;
    struct options options;
    if (moed_kernel_check(&err) != 0 || options_init(&options, argc, argv, &err) != 0)
        return usage(&err, "check-config");
    int result = check_files(&options, &err);
    if (result == 0)
        result = check_contents(&options, &err);
    if (result == 0 && options.state && state_directory_check(options.state, &err) != 0) {
        error_prefix(&err, "state");
        result = -1;
    }
    options_close(&options);
    if (result != 0)
        return usage(&err, "check-config");
    puts("moed: the options are right");
    return EXIT_SUCCESS;
}

static void help_check(FILE *out)
{
    fputs("Reads the options as 'serve' would, from the same sources, and says what is wrong with\n"
          "them, whether the models' directory can be read, whether the files of tokens and TLS "
          "hold\n"
          "what they should, and whether the directory of `state` can be written. Exit status: 0 "
          "right,\n"
          "2 wrong. It starts no server; 'moed inspect --check DIR' checks models.\n\n"
          "  moed check-config --config moed.conf\n",
          out);
}

static int run_sample(int argc, char *argv[])
{
    struct error err = ERROR_INIT;
    if (argc > 0) {
        error_set(&err, ERROR_INVALID, "sample-config: unexpected argument '%s'", argv[0]);
        return usage(&err, "sample-config");
    }
    options_sample(stdout);
    return EXIT_SUCCESS;
}

static void help_sample(FILE *out)
{
    fputs("Prints a configuration file with every option at its default, explained and commented\n"
          "out. Set what should differ, 'models' at least.\n\n"
          "  moed sample-config > moed.conf\n"
          "  moed serve --config moed.conf --models deploy/models\n",
          out);
}

/* The value of --NAME VALUE or --NAME=VALUE at *at, which it moves on; NULL: another argument. */
static const char *value_of(const char *flag, int argc, char *argv[], int *at)
{
    size_t length = strlen(flag);
    const char *argument = argv[*at];
    if (strncmp(argument, flag, length) == 0 && argument[length] == '=')
        return argument + length + 1;
    return strcmp(argument, flag) == 0 && *at + 1 < argc ? argv[++*at] : NULL;
}

static int run_token(int argc, char *argv[])
{
    struct error err = ERROR_INIT;
    const char *roles = "predict", *name = NULL, *value;
    char text[TOKEN_TEXT_BYTES], line[TOKEN_LINE_BYTES], made[TOKEN_NAME_BYTES];
    for (int i = 0; i < argc; i++) {
        if ((value = value_of("--role", argc, argv, &i)))
            roles = value;
        else if ((value = value_of("--name", argc, argv, &i)))
            name = value;
        else
            error_set(&err, ERROR_INVALID, "token: expected --role ROLE and --name NAME, got '%s'",
                      argv[i]);
    }
    snprintf(made, sizeof made, "%.20s-%lx", roles, (unsigned long)time(NULL));
    for (char *at = made; !name && *at; at++)
        *at = *at == ',' ? '-' : *at;
    if (err.code == ERROR_NONE && token_make(roles, name ? name : made, text, line, &err) != 0)
        error_prefix(&err, "token");
    if (err.code != ERROR_NONE)
        return usage(&err, "token");
    fputs("The token, for the client (it is stored nowhere), and its line for the file of "
          "--tokens:\n",
          stderr);
    printf("%s\n%s\n", text, line);
    return EXIT_SUCCESS;
}

static void help_token(FILE *out)
{
    fputs(
        "Makes a bearer token of 256 random bits. Prints the token, which is stored nowhere, and "
        "then\n"
        "the line that lets the server know it: its SHA-256, its roles and its name. 'moed serve\n"
        "--tokens FILE' reads such lines; clients send 'Authorization: Bearer TOKEN'.\n\n"
        "  --role ROLES   what it may do, with commas between (default predict):\n"
        "                 predict   ask models, and what they are\n"
        "                 metrics   read /metrics, statistics and the state of models\n"
        "                 admin     change the server; all of the above too\n"
        "  --name NAME    what the log calls it (default: of the roles and the time)\n\n"
        "  moed token --role predict --name shop\n",
        out);
}

static int run_help(int argc, char *argv[]);

static void help_help(FILE *out)
{
    fputs("Explains a command.\n", out);
}

static const struct command COMMANDS[] = {
    {"serve", "--models DIR [OPTION...]", "serve the models of a directory", run_serve, help_serve},
    {"inspect", "[--json] DIR [OPTION...]", "describe checkpoints and their memory", run_inspect,
     help_inspect},
    {"probe", "[OPTION...]", "ask a running server whether it is ready", run_probe, help_probe},
    {"check-config", "[OPTION...]", "check options without starting", run_check, help_check},
    {"sample-config", "", "print a commented configuration file", run_sample, help_sample},
    {"token", "[OPTION...]", "make a bearer token", run_token, help_token},
    {"help", "[COMMAND]", "explain a command", run_help, help_help},
};

enum { COMMAND_COUNT = sizeof COMMANDS / sizeof *COMMANDS };

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(COMMANDS[i].name, name) == 0)
            return &COMMANDS[i];
    return NULL;
}

static void print_commands(FILE *out)
{
    fputs("moed serves Mixture-of-Experts models and reports which expert served what.\n\n", out);
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        fprintf(out, "  moed %-14s %-26s %s\n", COMMANDS[i].name, COMMANDS[i].arguments,
                COMMANDS[i].summary);
    fputs("  moed --version\n", out);
}

static int unknown_command(const char *name)
{
    fprintf(stderr, "moed: unknown command '%s'\n\n", name);
    print_commands(stderr);
    return EXIT_USAGE;
}

static int run_help(int argc, char *argv[])
{
    if (argc == 0) {
        print_commands(stdout);
        return EXIT_SUCCESS;
    }
    const struct command *command = find_command(argv[0]);
    if (!command)
        return unknown_command(argv[0]);
    printf("Usage: moed %s%s%s\n\n", command->name, *command->arguments ? " " : "",
           command->arguments);
    command->help(stdout);
    return EXIT_SUCCESS;
}

static int print_version(int argc, char *argv[])
{
    if (argc > 0) {
        fprintf(stderr, "moed: --version: unexpected argument '%s'\n", argv[0]);
        return EXIT_USAGE;
    }
    puts("moed " MOED_VERSION);
    return EXIT_SUCCESS;
}

static bool asks_for_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

/* Started without one of these, the process would give its number to a socket or an epoll set, and
 * then write its log there. */
static void open_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            _exit(EXIT_FAILURE); /* and nowhere to say why */
}

int main(int argc, char *argv[])
{
    open_standard_descriptors();
    /* Hash seeds must be set before threads exist. */
    json_object_seed(0);
    if (argc < 2) {
        print_commands(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--version") == 0)
        return print_version(argc - 2, argv + 2);
    if (asks_for_help(argv[1]))
        return run_help(0, NULL);
    const struct command *command = find_command(argv[1]);
    if (!command)
        return unknown_command(argv[1]);
    for (int i = 2; i < argc; i++)
        if (asks_for_help(argv[i]))
            return run_help(1, argv + 1);
    int status = command->run(argc - 2, argv + 2);
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    fputs("moed: cannot write to standard output\n", stderr);
    return EXIT_FAILURE;
}
