/* moectl: the command line. Exit status: 0 done, 1 failed, 2 wrong usage. */
#include <jansson.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/run.h"
#include "clients/c/moectl/settings.h"

static int usage(const char *command, const struct moed_client_error *err)
{
    fprintf(stderr, "moectl: %s\nTry 'moectl %s --help'.\n", err->text, command);
    return EXIT_USAGE;
}

static int unknown_command(const char *name)
{
    fprintf(stderr, "moectl: there is no command '%.100s'%s\n\n", name,
            *name == '-' ? "; options come behind the command" : "");
    print_overview(stderr);
    return EXIT_USAGE;
}

static bool asks_for_help(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0;
}

/* Options in front of any command. Returns whether it was one. */
static bool about_itself(const char *argument)
{
    if (strcmp(argument, "--version") == 0)
        puts("moectl " MOED_VERSION);
    else if (strcmp(argument, "--man") == 0)
        print_manual(stdout);
    else if (strcmp(argument, "--completion") == 0)
        print_completion(stdout);
    else if (asks_for_help(argument))
        print_overview(stdout);
    else
        return false;
    return true;
}

static int run(const struct command *command, char *arguments[], size_t count)
{
    struct moed_client_error err = {0};
    struct settings settings;
    if (settings_read(&settings, command, arguments, count, &err) != 0)
        return usage(command->name, &err);
    int result = command->run(&settings, &err);
    if (result == 0 && finish_output(stdout, "standard output", &err) != 0)
        result = -1;
    if (result == 0)
        return EXIT_SUCCESS;
    if (result == EXIT_USAGE)
        return usage(command->name, &err);
    char *text = printable(err.text);
    fprintf(stderr, "moectl: %s\n", text);
    free(text);
    return EXIT_FAILURE;
}

int main(int argc, char *argv[])
{
    /* The character set only: numbers keep their point. */
    setlocale(LC_CTYPE, "");
    /* Hash seeds must be set before threads exist. */
    json_object_seed(0);
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        print_overview(stderr);
        return EXIT_USAGE;
    }
    if (about_itself(argv[1]))
        return EXIT_SUCCESS;
    const struct command *command = command_find(argv[1]);
    if (!command)
        return unknown_command(argv[1]);
    for (int i = 2; i < argc; i++) {
        if (asks_for_help(argv[i])) {
            print_help(stdout, command);
            return EXIT_SUCCESS;
        }
    }
    return run(command, argv + 2, (size_t)argc - 2);
}
