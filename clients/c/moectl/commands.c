/* The tables: every command and every option of moectl, with the words that teach them. Adding an
 * option is a field in settings.h and a row here. */
#include <stdlib.h>

#include "clients/c/moectl/run.h"
#include "clients/c/moectl/settings.h"

#define AT(field) offsetof(struct settings, field)

enum { FOR_DOCUMENTS = FOR_ROUTING | FOR_TOP | FOR_EXPORT };

const struct option_row OPTIONS[] = {
    {"url", OPTION_TEXT, AT(url), 0, 0, "http://127.0.0.1:8080", "URL", FOR_SERVER,
     "The server: http://HOST:PORT, https://HOST, or unix:PATH of a Unix socket, as --admin-listen "
     "makes one. MOED_URL sets it too."},
    {"ca", OPTION_TEXT, AT(ca), 0, 0, NULL, "FILE", FOR_SERVER,
     "PEM with the CAs of which one has signed the certificate of an https server, or that "
     "certificate itself. Without it the system's. MOED_CA sets it too."},
    {"token", OPTION_TEXT, AT(token), 0, 0, NULL, "TOKEN", FOR_SERVER,
     "Sent as Authorization: Bearer, for a server or a proxy that asks for one. MOED_TOKEN sets it "
     "too, unseen by other users of this machine."},
    {"timeout", OPTION_NUMBER, AT(timeout), 0.001, 86400, "60", "SECONDS", FOR_SERVER,
     "How long one request may take. Of a stream: how long it may be silent."},
    {"max-answer-mb", OPTION_COUNT, AT(max_answer_mb), 1, 1048576, "256", "N", FOR_SERVER,
     "Megabytes that one answer, of a stream one event, may have: a confused server must not fill "
     "this machine's memory."},

    {"version", OPTION_TEXT, AT(version), 0, 0, NULL, "VERSION",
     FOR_PREDICT | FOR_DOCUMENTS | FOR_BENCH | FOR_ABLATE,
     "A version of the model. Without it the newest."},
    {"window", OPTION_CHOICE, AT(window), 0, 0, NULL, "1m|5m|1h|all", FOR_DOCUMENTS,
     "The time that figures cover, up to now. Without it everything since the model was loaded."},
    {"layer", OPTION_TEXT, AT(layer), 0, 0, NULL, "NAME",
     FOR_DOCUMENTS | FOR_REPORT | FOR_ABLATE | FOR_GENERATE, "One layer only."},
    {"tag", OPTION_TEXT, AT(tag), 0, 0, NULL, "TAG",
     FOR_ROUTING | FOR_EXPORT | FOR_PREDICT | FOR_BENCH | FOR_GENERATE,
     "Of routing and export: only what was sent under this tag. Of the others: the tag to send "
     "under."},
    {"uncounted", OPTION_FLAG, AT(uncounted), 0, 0, NULL, NULL,
     FOR_PREDICT | FOR_BENCH | FOR_GENERATE,
     "Leaves these requests out of the server's statistics."},
    {"include", OPTION_TEXT, AT(include), 0, 0, NULL, "LIST", FOR_ROUTING,
     "Further parts of the document, with --json: "
     "ranks,pairs,lifts,classes,margins,entropies,coverage,"
     "batches,cache,phases,exact or some of them, as far as the server has them."},
    {"from", OPTION_TEXT, AT(from), 0, 0, NULL, "FILE", FOR_ROUTING | FOR_EXPORT,
     "Reads a routing document from a file, - from standard input, instead of asking a server."},

    {"json", OPTION_FLAG, AT(json), 0, 0, NULL, NULL,
     FOR_MODELS | FOR_PREDICT | FOR_ROUTING | FOR_REPORT | FOR_BENCH | FOR_ABLATE | FOR_GENERATE,
     "JSON instead of a table. Of routing: the server's document as it is. Of generate: its "
     "events, "
     "one a line, as they come."},
    {"csv", OPTION_FLAG, AT(csv), 0, 0, NULL, NULL, FOR_ROUTING,
     "Comma-separated values instead of a table: a line per layer and expert."},
    {"format", OPTION_CHOICE, AT(format), 0, 0, NULL,
     "csv|npy|sglang|lmdeploy|tensorrt-llm|eplb|ranked-jsonl", FOR_EXPORT,
     "csv: a line per layer and expert. npy: NumPy, [layers, experts]. sglang: {\"logical_count\": "
     "...} for --init-expert-location. lmdeploy: a list of lists for "
     "LMDEPLOY_EPLB_EXPERTS_STATISTIC_FILE. tensorrt-llm: a directory as EXPERT_STATISTIC_PATH, "
     "for "
     "generate_eplb_config.py. eplb: a line of numbers per layer, the weight of DeepSeek's "
     "rebalance_experts() once numpy.loadtxt has read it. ranked-jsonl: a line per layer with its "
     "experts, the most used first."},
    {"value", OPTION_CHOICE, AT(value), 0, 0, "selected", "selected|top1|weight|probability",
     FOR_EXPORT, "Which figure of each expert. csv has them all, ranked-jsonl goes by share."},
    {"output", OPTION_TEXT, AT(output), 0, 0, NULL, "FILE", FOR_EXPORT | FOR_MERGE,
     "Where to write, -o for short. Without it standard output."},
    {"cache", OPTION_COUNT, AT(cache), 1, 1048576, NULL, "N", FOR_REPORT,
     "Says what a cache of N experts would do, besides those of 1, 2, 4, ..."},
    {"rows", OPTION_COUNT, AT(rows), 1, 1000000, NULL, "N", FOR_PREDICT | FOR_BENCH | FOR_ABLATE,
     "Rows in one request. Without it 64 for predict and ablate, and 1 for bench."},
    {"top", OPTION_COUNT, AT(top), 1, 1000, "3", "N", FOR_PREDICT,
     "How many classes of each output the table shows, the largest first."},
    {"interval", OPTION_NUMBER, AT(interval), 0.05, 86400, "2", "SECONDS", FOR_TOP,
     "How often to ask the server."},
    {"count", OPTION_COUNT, AT(count), 1, 1e15, NULL, "N", FOR_TOP,
     "Without a terminal: ends after so many times."},
    {"rate", OPTION_NUMBER, AT(rate), 0.001, 1e6, NULL, "R", FOR_BENCH,
     "Sends R requests per second, on time whatever the answers do. Latency counts from when a "
     "request was due, service time from when it was sent. Without it every connection sends when "
     "it has its answer."},
    {"concurrency", OPTION_COUNT, AT(concurrency), 1, 4096, NULL, "N", FOR_BENCH,
     "Connections. Without it 1; with --rate at most 64. If all are waiting for an answer, a "
     "request "
     "that is due waits too, and its latency shows it."},
    {"duration", OPTION_NUMBER, AT(duration), 0.001, 1e6, NULL, "SECONDS", FOR_BENCH,
     "For how long. Without it and --requests 10 seconds."},
    {"requests", OPTION_COUNT, AT(requests), 1, 1e15, NULL, "N", FOR_BENCH,
     "How many in all. With --duration what comes first ends it."},
    {"input", OPTION_TEXT, AT(input), 0, 0, NULL, "FILE", FOR_BENCH,
     "Rows to send in turn, in the formats of predict. Without it numbers from 0 to 1 in the "
     "model's shape, and any category. Of a language model prompts: one a line, or a JSON list of "
     "texts and lists of token ids."},
    {"chat", OPTION_FLAG, AT(chat), 0, 0, NULL, NULL, FOR_GENERATE,
     "The prompt is a message of a chat, and the model's chat template makes the text."},
    {"experts", OPTION_FLAG, AT(experts), 0, 0, NULL, NULL, FOR_GENERATE,
     "A line for each token: which experts made it, with their weights, in every layer."},
    {"max-tokens", OPTION_COUNT, AT(max_tokens), 1, 16777216, NULL, "N", FOR_GENERATE | FOR_BENCH,
     "Tokens of an answer at most. Without it as many as the model's context has room for, and of "
     "bench 128."},
    {"prompt-tokens", OPTION_COUNT, AT(prompt_tokens), 1, 16777216, NULL, "N", FOR_BENCH,
     "Of a language model: token ids in a prompt, which are made up. Without it 256."},
    {"temperature", OPTION_PASSED, AT(temperature), 0, 2, NULL, "T", FOR_GENERATE,
     "0: the likeliest token always. Without it, as without the next two, what the model "
     "recommends."},
    {"top-p", OPTION_PASSED, AT(top_p), 0, 1, NULL, "P", FOR_GENERATE,
     "Only of the likeliest tokens that together have this probability."},
    {"top-k", OPTION_PASSED_WHOLE, AT(top_k), 0, 1e9, NULL, "K", FOR_GENERATE,
     "Only of the K likeliest tokens; 0: of all."},
    {"seed", OPTION_PASSED_WHOLE, AT(seed), 0, 9007199254740991, NULL, "N",
     FOR_GENERATE | FOR_BENCH,
     "The same seed says the same. Of bench: the same seed makes up the same prompts; without it "
     "each run has others, and --json tells it."},
    {"stop", OPTION_TEXTS, AT(stop), 0, 0, NULL, "TEXT", FOR_GENERATE,
     "The answer ends before this text; of several, each with a --stop of its own, before the one "
     "that comes first."},
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
    {"predict",
     "MODEL [FILE]",
     "answer rows, and say which experts did",
     FOR_PREDICT,
     1,
     2,
     "Sends the rows of a file to a model, in binary, and shows the answers with the experts that "
     "gave them and their weights. FILE is NumPy's .npy; .npz with an array for each input; or "
     "JSON: a list of rows, {\"instances\": rows}, {\"input\": rows, ...}, or a whole request of "
     "KServe V1 or the Open Inference Protocol. Without FILE, or with -, standard input.\n"
     "Rows may be flat, in the model's shape, or objects of its inputs.",
     {{"moectl predict fashion-mnist deploy/example.json",
       "One image, three classes, two experts."},
      {"moectl predict adult-mmoe deploy/example-adult.json --top 1",
       "A model of several inputs and "
       "outputs."},
      {"moectl predict mnist images.npy --json > answers.json", "All numbers, nested by their "
                                                                "shape."}},
     run_predict},
    {"generate",
     "MODEL [PROMPT...]",
     "let a language model speak",
     FOR_GENERATE,
     1,
     ANY_OPERANDS,
     "Streams what a language model says after the prompt to standard output, as it comes. Without "
     "PROMPT, or with -, the prompt is standard input, without the line break at its end. Ctrl-C "
     "ends the answer.\n"
     "What a terminal would obey is shown as ?. With --json every event of the server is a line as "
     "OpenAI's API has it, with the text as it is: in choices[0].text, with --chat in "
     "choices[0].delta.content; of the last one, usage. The exit status is 1 if the answer broke "
     "off.",
     {{"moectl generate tiny-lm Emma was", "What follows these words."},
      {"moectl generate tiny-lm --experts --max-tokens 20 --seed 1 Emma was",
       "A line for each token, with the experts that made it."},
      {"moectl generate tiny-lm --chat 'What is a hacker?'", "An answer."},
      {"moectl generate tiny-lm --json <prompt.txt | jq -j '.choices[0].text // \"\"'",
       "The text alone, byte by byte."}},
     run_generate},
    {"ablate",
     "MODEL FILE",
     "measure what each expert is worth",
     FOR_ABLATE,
     2,
     2,
     "Sends labelled rows as they are, and once for each expert excluded (left out before the "
     "choice) and silenced (chosen as ever, and giving nothing), and shows what that changes: "
     "accuracy, log loss in nats, the rows that are answered otherwise, and the class that loses "
     "most. FILE is .npz with an array for each input and one more, labels: the class of each row, "
     "by index, as numpy.savez('test.npz', image=rows, labels=labels) writes it for a model whose "
     "input is called image; deploy/stories/worth.py MODEL --save test.npz makes one of the test "
     "images of fashion-mnist or mnist. The model needs an output of one number for each class, "
     "probabilities or logits.\n"
     "The server counts nothing of it. A dash stands for what the gate cannot do; --json says why, "
     "and has the accuracy of every class.",
     {{"moectl ablate fashion-mnist test.npz", "A table: which experts could be done without."},
      {"moectl ablate mnist test.npz --json > worth.json", "All figures, by class."}},
     run_ablate},
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
    {"top",
     "[MODEL]",
     "watch the traffic live",
     FOR_TOP,
     0,
     1,
     "Shows the routing of a model live, without MODEL of the busiest since the server's start, "
     "like top(1): rows and requests per second, latencies and "
     "queue, and for every MoE layer its experts with bars. Keys: n and p turn to the next and the "
     "previous model, w changes the window, s sorts by load, Space holds the picture, the arrows "
     "scroll, h explains, q leaves.\n"
     "Where standard output is no terminal it prints a line per layer and interval instead.",
     {{"moectl top", "The busiest model of the server; n turns to the next."},
      {"moectl top fashion-mnist --window 5m --interval 1", "Each second, the last five minutes."},
      {"moectl top fashion-mnist --count 3 | cat", "Three times a line per layer, for a log."}},
     run_top},
    {"report",
     "A.json [B.json]",
     "say what is wrong, in words",
     FOR_REPORT,
     1,
     2,
     "Reads a routing document and says who is hot, unused, dying, redundant or failing, or has "
     "nearly "
     "all the weight, whether a gate has collapsed or is undecided, and, if the document says, "
     "what a cache of n experts "
     "would do. With a second "
     "document also what has moved from the first to the second: Jensen-Shannon divergence, PSI, "
     "and the probability that chance alone did it. That is a G test, in which a row counts once "
     "however many experts it chose; rows count as independent.\n"
     "An expert is hot with more than one and a half times its even part, beyond three standard "
     "deviations. Redundant are experts of which one is chosen with nearly every row (95 %) of the "
     "other, of more than 256 experts only among the busiest: for that the document needs the "
     "pairs "
     "and the ranks (moectl routing MODEL --json --include pairs,ranks).",
     {{"moectl report monday.json", "What there is to say about Monday."},
      {"moectl report monday.json friday.json --layer moe", "And what has changed by Friday."},
      {"moectl routing mnist --json | moectl report -", "About the traffic so far."}},
     run_report},
    {"merge",
     "A.json [B.json...]",
     "add up replicas",
     FOR_MERGE,
     1,
     1000,
     "Adds the routing documents of several replicas of one model. Counts and sums are added "
     "exactly; means are weighted by their rows; shares, entropies and balance are computed from "
     "the sums. `seconds` is the longest. Model, version, window, layers and experts must be the "
     "same.\n"
     "What cannot be had from two documents is left out: drift (needs the reference), dying (needs "
     "the time of each request), coverage, and ece unless the documents have the part exact. "
     "Caches "
     "are those of the replicas, each its own. \"not_merged\" in the result names them. Documents "
     "with exact (moectl "
     "routing MODEL --json --include exact, or POST .../routing/snapshot) add up to the last "
     "digit.",
     {{"moectl merge a.json b.json -o all.json", "One document of two replicas."},
      {"moectl merge a.json b.json | moectl report -", "A report on all traffic."}},
     run_merge},
    {"export",
     "MODEL",
     "write counts as other tools read them",
     FOR_EXPORT,
     0,
     1,
     "Writes the routing counts of a model in the format of another tool. Rows are the model's MoE "
     "layers in their order, one for each gate, columns the experts.",
     {{"moectl export mnist --format npy -o counts.npy", "numpy.load reads it: int64, [layers, "
                                                         "experts]."},
      {"moectl export my-llm --format sglang -o counts.json", "For sglang --init-expert-location "
                                                              "counts.json."},
      {"moectl export my-llm --format tensorrt-llm -o stats", "For generate_eplb_config.py "
                                                              "--expert_statistic_path stats."},
      {"moectl export --from all.json --format csv", "Of a kept or merged document."}},
     run_export},
    {"bench",
     "MODEL",
     "put load on a model and measure",
     FOR_BENCH,
     1,
     1,
     "Sends requests to a model, of rows in binary, and says how many were answered per second and "
     "how long that took: percentiles, to 1/128 of the value, of all answers. Every connection is "
     "opened by a request that is not measured. Failed requests are counted by their status and "
     "are not in the latencies. What was not measured is a dash, in JSON null. Ctrl-C ends it "
     "early and shows what there is. The exit status is 1 "
     "if nothing was answered.\n"
     "A language model is sent prompts of random tokens, each another one, and says so many tokens "
     "as it is asked to, in a stream: also measured are the time to the first token, that from one "
     "token to the next (what makes no character yet comes with the next), and tokens per second. "
     "Given prompts (--input) are sent in turn, and answers end where the model ends them.\n"
     "Without --rate the load adapts to the server, and one that stalls hides it: few requests are "
     "sent meanwhile. For latencies as clients see them give the --rate at which these come.",
     {{"moectl bench mnist --concurrency 8", "As fast as eight connections go, for ten seconds."},
      {"moectl bench mnist --rate 500 --duration 60 --uncounted", "Latencies at 500 requests per "
                                                                  "second, left out of the "
                                                                  "statistics."},
      {"moectl bench mnist --requests 1000 --rows 32 --input images.npy --json",
       "Given rows, 32 in each request."},
      {"moectl bench tiny-lm --concurrency 4 --prompt-tokens 100 --max-tokens 50",
       "Tokens per second of a language model, and how long they take."}},
     run_bench},
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
