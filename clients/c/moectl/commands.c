/* The tables: every command and every option of moectl, with the words that teach them. Adding an
 * option is a field in settings.h and a row here. */
#include <stdlib.h>

#include "clients/c/moectl/run.h"
#include "clients/c/moectl/settings.h"

#define AT(field) offsetof(struct settings, field)

enum { FOR_DOCUMENTS = FOR_ROUTING | FOR_TOP | FOR_EXPORT };

const struct option_row OPTIONS[] = {
    {"url", OPTION_TEXT, AT(url), 0, 0, "http://127.0.0.1:8080", "URL", FOR_SERVER,
     "The server: http://HOST:PORT or https://HOST. MOED_URL sets it too."},
    {"token", OPTION_TEXT, AT(token), 0, 0, NULL, "TOKEN", FOR_SERVER,
     "Sent as Authorization: Bearer, for a server or a proxy that asks for one. MOED_TOKEN sets it "
     "too, unseen by other users of this machine."},
    {"timeout", OPTION_NUMBER, AT(timeout), 0.001, 86400, "60", "SECONDS", FOR_SERVER,
     "How long one request may take."},

    {"version", OPTION_TEXT, AT(version), 0, 0, NULL, "VERSION",
     FOR_PREDICT | FOR_DOCUMENTS | FOR_BENCH, "A version of the model. Without it the newest."},
    {"window", OPTION_CHOICE, AT(window), 0, 0, NULL, "1m|5m|1h|all", FOR_DOCUMENTS,
     "The time that figures cover, up to now. Without it everything since the model was loaded."},
    {"layer", OPTION_TEXT, AT(layer), 0, 0, NULL, "NAME", FOR_DOCUMENTS | FOR_REPORT,
     "One layer only."},
    {"tag", OPTION_TEXT, AT(tag), 0, 0, NULL, "TAG",
     FOR_ROUTING | FOR_EXPORT | FOR_PREDICT | FOR_BENCH,
     "Of routing and export: only what was sent under this tag. Of predict and bench: the tag to "
     "send under."},
    {"uncounted", OPTION_FLAG, AT(uncounted), 0, 0, NULL, NULL, FOR_PREDICT | FOR_BENCH,
     "Leaves these requests out of the server's statistics."},
    {"from", OPTION_TEXT, AT(from), 0, 0, NULL, "FILE", FOR_ROUTING | FOR_EXPORT,
     "Reads a routing document from a file, - from standard input, instead of asking a server."},

    {"json", OPTION_FLAG, AT(json), 0, 0, NULL, NULL,
     FOR_MODELS | FOR_PREDICT | FOR_ROUTING | FOR_REPORT | FOR_BENCH,
     "JSON instead of a table. Of routing: the server's document as it is."},
    {"csv", OPTION_FLAG, AT(csv), 0, 0, NULL, NULL, FOR_ROUTING,
     "Comma-separated values instead of a table: a line per layer and expert."},
    {"names", OPTION_FLAG, AT(names), 0, 0, NULL, NULL, FOR_MODELS, "Only the names, one a line."},
};

const size_t OPTION_ROWS = LENGTH(OPTIONS);

const struct command COMMANDS[] = {
    {"models",
     "",
     "list what is served",
     FOR_MODELS,
     0,
     0,
     "Lists the models of a server with their versions, inputs, outputs and MoE layers.",
     {{"moectl models", "A table of the models on this machine's server."},
      {"moectl models --url http://10.0.0.7:8080 --json", "The same of another server, as JSON."}},
     run_models},
    {"routing",
     "MODEL",
     "show who serves the traffic",
     FOR_ROUTING,
     0,
     1,
     "Shows for every MoE layer how the traffic spreads over its experts: how often each was "
     "chosen (share), how much of the answer it made (weight), how often it came first (top1), and "
     "what follows from it for the layer: balance, entropies, unused and dying experts, drift.\n"
     "With a gate that uses every expert for every row all shares are equal, and the weight tells "
     "them apart.",
     {{"moectl routing fashion-mnist", "A table and bars per layer."},
      {"moectl routing fashion-mnist --window 5m --layer moe", "One layer, the last five minutes."},
      {"moectl routing fashion-mnist --json > monday.json", "Keeps the document for report, merge "
                                                            "and export."},
      {"moectl routing --from monday.json --csv", "A kept document, for a spreadsheet."}},
     run_routing},
    {"help",
     "[COMMAND]",
     "explain a command",
     FOR_HELP,
     0,
     1,
     "Explains a command; without one, lists them.",
     {{"moectl help routing", "The same as moectl routing --help."}},
     run_help},
};

const size_t COMMAND_ROWS = LENGTH(COMMANDS);

int run_help(const struct settings *settings, struct moed_client_error *err)
{
    if (settings->operand_count == 0) {
        print_overview(stdout);
        return EXIT_SUCCESS;
    }
    const struct command *command = command_find(settings->operands[0]);
    if (!command) {
        fail_with(err, "there is no command '%.100s'", settings->operands[0]);
        return EXIT_USAGE;
    }
    print_help(stdout, command);
    return EXIT_SUCCESS;
}
