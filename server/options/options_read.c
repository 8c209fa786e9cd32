/* Reads the options of `moed serve` from their four sources. The options are in options_table.c;
 * this file knows none of them by name, except in check_together(). */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/text.h"
#include "server/access/cors.h"
#include "server/http/listen_address.h"
#include "server/options/options.h"
#include "server/options/options_file.h"
#include "server/options/options_value.h"
#include "server/trace.h"

#define ENVIRONMENT_PREFIX "MOED_"

/* ---- the environment ---- */

/* Kubernetes puts MOED_PORT=tcp://10.0.0.7:8080 into every pod of a namespace that has a service
 * named moed. That is a link to the service and not a setting of ours: it must not keep the pod
 * from starting. */
static bool is_service_link(const char *value)
{
    return !strncmp(value, "tcp://", 6) || !strncmp(value, "udp://", 6) ||
           !strncmp(value, "sctp://", 7);
}

/* Other variables of such a link: MOED_SERVICE_HOST, MOED_SERVICE_PORT_HTTP,
 * MOED_PORT_8080_TCP_ADDR, and MOED_CANARY_SERVICE_HOST of a service named moed-canary. */
static bool is_service_variable(const char *name)
{
    const char *port = strstr(name, "_PORT_");
    return strstr(name, "_SERVICE_HOST") || strstr(name, "_SERVICE_PORT") ||
           (port && isdigit((unsigned char)port[strlen("_PORT_")]));
}

/* "MOED_MAX_ROWS" -> "max_rows", cut to fit. */
static void option_name_of(const char *variable, size_t length, char name[OPTION_NAME_BYTES])
{
    size_t prefix = strlen(ENVIRONMENT_PREFIX);
    snprintf(name, OPTION_NAME_BYTES, "%.*s", (int)(length - prefix), variable + prefix);
    for (char *at = name; *at; at++)
        *at = *at >= 'A' && *at <= 'Z' ? (char)(*at - 'A' + 'a') : *at;
}

/* The kernel is the engine's to read; moectl reads the server's URL, a token and a CA; the Python
 * package where this program is. */
static bool is_of_others(const char *name)
{
    static const char *const OTHERS[] = {"kernel", "url", "token", "ca", "binary"};
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        if (strcmp(name, OTHERS[i]) == 0)
            return true;
    return false;
}

/* One variable, "NAME=value", that begins with MOED_. */
static int read_variable(struct options *options, const char *variable, struct error *err)
{
    char name[OPTION_NAME_BYTES];
    size_t length = strcspn(variable, "=");
    const char *value = variable + length + (variable[length] == '=');
    option_name_of(variable, length, name);
    const struct option_row *row = option_find(name, false);
    if (is_service_link(value) || is_service_variable(variable) || (!row && is_of_others(name)))
        return 0;
    int result = row ? option_set(options, row, value, err) : option_unknown(name, false, err);
    if (result != 0)
        error_prefix(err, "%.*s", (int)length, variable);
    return result;
}

/* A misspelt variable is refused like a misspelt flag: an option that silently keeps its default
 * would be noticed in production only. */
static int read_environment(struct options *options, struct error *err)
{
    for (char **variable = environ; *variable; variable++)
        if (strncmp(*variable, ENVIRONMENT_PREFIX, strlen(ENVIRONMENT_PREFIX)) == 0 &&
            read_variable(options, *variable, err) != 0)
            return -1;
    return 0;
}

/* ---- flags ---- */

/* `--name value` or `--name=value`; a switch is true without one. Takes what belongs to the flag at
 * *index and moves it on. */
static int next_flag(int argc, char *const argv[], int *index, char name[OPTION_NAME_BYTES],
                     const char **value, struct error *err)
{
    const char *argument = argv[(*index)++];
    if (strncmp(argument, "--", 2) != 0 || !argument[2])
        return error_set(err, ERROR_INVALID,
                         "unexpected argument \"%.100s\"; options begin with --", argument);
    const char *equals = strchr(argument, '=');
    size_t length = equals ? (size_t)(equals - argument) - 2 : strlen(argument) - 2;
    snprintf(name, OPTION_NAME_BYTES, "%.*s",
             (int)(length < OPTION_NAME_BYTES ? length : OPTION_NAME_BYTES), argument + 2);
    *value = equals ? equals + 1 : NULL;
    const struct option_row *row = option_find(name, true);
    if (strcmp(name, "config") != 0 && !row)
        return option_unknown(name, true, err);
    if (!*value && row && row->type == OPTION_SWITCH &&
        (*index == argc || !option_is_truth(argv[*index])))
        *value = "true";
    if (!*value && *index == argc)
        return error_set(err, ERROR_INVALID, "--%s: the value is missing", name);
    if (!*value)
        *value = argv[(*index)++];
    return 0;
}

/* A flag that is given twice is refused: one of its two values would silently not count. */
static int check_once(const char *name, bool seen[], struct error *err)
{
    const struct option_row *row = option_find(name, true);
    bool *again = &seen[row ? (size_t)(row - OPTIONS) : OPTION_ROWS]; /* the last: --config */
    if (*again)
        return error_set(err, ERROR_INVALID, "--%s is given a second time", name);
    *again = true;
    return 0;
}

/* Checks the names of all flags and finds the configuration file (NULL: none), which has to be read
 * before the flags that override it. */
static int find_config(int argc, char *const argv[], const char **config, struct error *err)
{
    bool seen[OPTION_ROWS + 1] = {false};
    *config = NULL;
    for (int index = 0; index < argc;) {
        char name[OPTION_NAME_BYTES];
        const char *value;
        if (next_flag(argc, argv, &index, name, &value, err) != 0 ||
            check_once(name, seen, err) != 0)
            return -1;
        if (!strcmp(name, "config"))
            *config = value;
    }
    return 0;
}

static int read_flags(struct options *options, int argc, char *const argv[], struct error *err)
{
    for (int index = 0; index < argc;) {
        char name[OPTION_NAME_BYTES];
        const char *value;
        if (next_flag(argc, argv, &index, name, &value, err) != 0)
            return -1;
        const struct option_row *row = option_find(name, true);
        if (row && option_set(options, row, value, err) != 0) {
            error_prefix(err, "--%s", name);
            return -1;
        }
    }
    return 0;
}

/* ---- all of them ---- */

static int read_defaults(struct options *options, struct error *err)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (OPTIONS[i].value && *OPTIONS[i].value &&
            option_set(options, &OPTIONS[i], OPTIONS[i].value, err) != 0)
            return -1;
    }
    return 0;
}

static int check_required(struct options *options, struct error *err)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (!OPTIONS[i].value && !*option_string(options, &OPTIONS[i]))
            return error_set(err, ERROR_INVALID,
                             "--%s %s is required, here or as '%s' in the configuration file",
                             OPTIONS[i].name, OPTIONS[i].operand, OPTIONS[i].name);
    }
    return 0;
}

/* Two listeners at one address: the second could not be bound. */
static int check_listeners(const struct options *options, struct error *err)
{
    struct listen_address admin = {0};
    if (options->admin_listen && listen_address_read(&admin, options->admin_listen, err) != 0) {
        error_prefix(err, "admin_listen");
        return -1;
    }
    uint64_t grpc = options->grpc_port ? options_grpc_port(options) : 0;
    if (grpc > UINT16_MAX)
        return error_set(err, ERROR_INVALID,
                         "grpc_port is \"%.32s\", expected a number from 0 to 65535",
                         options->grpc_port);
    if (grpc > 0 && grpc == options->port)
        return error_set(err, ERROR_INVALID,
                         "port and grpc_port are both %u, expected a port for each",
                         (unsigned)grpc);
    if (admin.port > 0 && strcmp(admin.host, options->host) == 0 &&
        (admin.port == options->port || admin.port == grpc))
        return error_set(err, ERROR_INVALID,
                         "admin_listen is \"%.200s\", which %s has already, expected a port for "
                         "each",
                         options->admin_listen, admin.port == grpc ? "grpc_port" : "port");
    return 0;
}

/* What no single option's range can say. */
static int check_together(const struct options *options, struct error *err)
{
    if (options->max_request_rows > options->max_queue_rows)
        return error_set(err, ERROR_INVALID,
                         "max_request_rows (%llu) exceeds max_queue_rows (%llu): such a request "
                         "could never be queued",
                         (unsigned long long)options->max_request_rows,
                         (unsigned long long)options->max_queue_rows);
    if (options->step_tokens <= options->max_sequences)
        return error_set(err, ERROR_INVALID,
                         "step_tokens (%llu) must be more than max_sequences (%llu): a step has a "
                         "token of each, and some of a prompt",
                         (unsigned long long)options->step_tokens,
                         (unsigned long long)options->max_sequences);
    if (options->load_model && strcmp(options->model_control, "explicit") != 0)
        return error_set(err, ERROR_INVALID,
                         "load_model is for model_control explicit; with %s every model is loaded",
                         options->model_control);
    struct trace_collector collector;
    if (check_listeners(options, err) != 0 || cors_check(options->cors_origin, err) != 0 ||
        (options->trace_endpoint &&
         trace_collector_read(&collector, options->trace_endpoint, err) != 0))
        return -1;
    if (!options->tls_cert != !options->tls_key || (options->tls_client_ca && !options->tls_cert))
        return error_set(err, ERROR_INVALID,
                         "tls_cert and tls_key belong together, and tls_client_ca needs both");
    if (options->max_body_bytes > options->max_total_body_bytes)
        return error_set(err, ERROR_INVALID,
                         "max_body_bytes (%llu) exceeds max_total_body_bytes (%llu): such a body "
                         "could never be received",
                         (unsigned long long)options->max_body_bytes,
                         (unsigned long long)options->max_total_body_bytes);
    return 0;
}

int options_init(struct options *options, int argc, char *const argv[], struct error *err)
{
    const char *config;
    *options = (struct options){0};
    if (find_config(argc, argv, &config, err) != 0 || read_defaults(options, err) != 0 ||
        (config && options_read_file(options, config, err) != 0) ||
        read_environment(options, err) != 0 || read_flags(options, argc, argv, err) != 0 ||
        check_required(options, err) != 0 || check_together(options, err) != 0) {
        options_close(options);
        return -1;
    }
    return 0;
}

uint64_t options_grpc_port(const struct options *options)
{
    uint64_t port;
    const char *end = text_whole_number(options->grpc_port, &port);
    return end && *end == '\0' ? port : UINT64_MAX;
}

void options_close(struct options *options)
{
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (option_is_text(&OPTIONS[i]))
            free(*option_string(options, &OPTIONS[i]));
    }
    *options = (struct options){0};
}
