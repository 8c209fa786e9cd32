/* The options of `moed serve`, and the help and the sample file printed from them.
 *
 * This is the only list of options: flags, environment, configuration file, help and sample are
 * loops over its rows, and a default is text that is read like any other value. A new option is a
 * field in options.h and a row here. */
#include "server/options/options_table.h"

#include <stdio.h>
#include <string.h>

#include "server/options/options.h"

enum { HELP_COLUMNS = 80 };

#define AT(field) offsetof(struct options, field)
#define DAY_MS    86400000u

const struct option_row OPTIONS[OPTION_ROWS] = {
    {"models", OPTION_STRING, AT(models), 0, 0, NULL, "/srv/moed/models", "DIR", "Serving",
     "The model repository: a directory with one directory per model, <name>/ or "
     "<name>/<version>/, each holding config.json and model.safetensors."},
    {"host", OPTION_STRING, AT(host), 0, 0, "127.0.0.1", NULL, "ADDRESS", NULL,
     "The address to listen on. The default serves this machine only. 0.0.0.0 (or :: for IPv6) "
     "opens the server to the network: give it tokens then, or put a proxy or a network policy in "
     "front of it."},
    {"port", OPTION_COUNT, AT(port), 0, 65535, "8080", NULL, "N", NULL,
     "The port to listen on. 0 lets the system pick a free one, which the line \"listening on\" "
     "names; tests and several servers on one machine want that."},

    {"grpc_port", OPTION_STRING, AT(grpc_port), 0, 0, "", NULL, "N", NULL,
     "The port of the Open Inference Protocol over gRPC, at the same address, with the same "
     "tokens, "
     "limits and TLS. 0 lets the system pick a free one, which the line \"grpc_listening\" of the "
     "log names. Without it there is no gRPC."},

    {"weights", OPTION_CHOICE, AT(weights), 0, 0, "stored", NULL, "stored|int8|int4", NULL,
     "How the matrices of linear, glu and attention layers are kept. stored: in the precision of "
     "the checkpoint. int8, int4: rounded to 8 or 4 bits when models are loaded, with a scale for "
     "every 32 numbers. Reading weights is what small batches wait for where they are many: these "
     "take about a half or three tenths of the memory of F16 and BF16. Answers differ a little, "
     "with int4 more, although what matters most has 6 bits then: an output's own layers, "
     "such as a language model's head, and all but glu layers in the first and the last eighth of "
     "a model's residuals. Matrices in MXFP4 keep their 4 bits, exactly. Gates, embeddings, norms "
     "and convolutions keep what is stored."},
    {"activations", OPTION_CHOICE, AT(activations), 0, 0, "int8", NULL, "int8|bf16|f32", NULL,
     "What the matrices of linear, glu and attention layers are multiplied with. int8: those of "
     "integers (--weights) with inputs rounded to 8 bits, with a scale for every 32 numbers of a "
     "row, and all others with inputs as they are. bf16: those stored as BF16 with inputs rounded "
     "to BF16, too, as other engines compute such models, at about twice the speed where batches "
     "are large; for processors with AVX-512 BF16. f32: no input is rounded, which is slower, and "
     "int4 then takes the memory of int8. Either way a row's answer does not depend on its "
     "batch."},

    {"load", OPTION_CHOICE, AT(load), 0, 0, "map", NULL, "map|copy", NULL,
     "How checkpoint files are read. map: as they are needed, from files that must not be changed "
     "in place while they are served. A file that is truncated all the same costs its model, not "
     "the server. copy: whole and at once, so that later changes do not matter until a reload."},
    {"cors_origin", OPTION_STRING, AT(cors_origin), 0, 0, "", NULL, "ORIGINS", NULL,
     "Web pages of these origins may ask this server: https://a.example with commas between (of at "
     "most 63 bytes each), or * for all. Without it browsers let only the server's own page."},
    {"model_control", OPTION_CHOICE, AT(model_control), 0, 0, "none", NULL, "none|poll|explicit",
     NULL,
     "When models come and go. none: at the start and on SIGHUP. poll: also when the repository "
     "changes. explicit: only those of load_model, and those that clients load and unload by "
     "POST /v2/repository/models/NAME/load and /unload, if they may (--admin, --tokens)."},
    {"model_poll_ms", OPTION_COUNT, AT(model_poll_ms), 10, DAY_MS, "15000", NULL, "MILLISECONDS",
     NULL,
     "With model_control poll, how often to look for changes. What is new is loaded once it has "
     "not changed for so long, so that nothing is read while it is being copied."},
    {"load_model", OPTION_STRING, AT(load_model), 0, 0, "", NULL, "NAMES", NULL,
     "With model_control explicit, the models to load at the start: names with commas between, or "
     "* for all."},
    {"strict_start", OPTION_SWITCH, AT(strict_start), 0, 1, "false", NULL, "true|false", NULL,
     "Ends the start with an error if any model cannot be served. Else such a model is told in the "
     "log, in the metrics and at /v2/repository/index, and the others are served."},

    {"threads", OPTION_COUNT, AT(threads), 0, 1024, "0", NULL, "N", "Batching and compute",
     "Compute threads. 0 takes as many as the scheduling affinity and the cgroup quota allow. "
     "Lower it to leave CPUs to a neighbour; more threads than CPUs are always slower."},
    {"loops", OPTION_COUNT, AT(loops), 1, 64, "1", NULL, "N", NULL,
     "Event loops: threads that read requests, write answers and compute what is too small to hand "
     "over. One is enough until its CPU is busy all the time, as happens with small models on "
     "machines of many CPUs; rows of different loops are not batched together. Compute threads, "
     "queues and connections are divided among the loops (at least one thread for each), and the "
     "system gives each new "
     "connection to one of them."},
    {"max_batch_rows", OPTION_COUNT, AT(max_batch_rows), 1, 65536, "64", NULL, "N", NULL,
     "The most rows computed together. Waiting requests are put together up to this many rows "
     "whenever compute is free. Raise it for throughput with small models, lower it when one "
     "batch takes longer than a client may wait."},
    {"max_sequences", OPTION_COUNT, AT(max_sequences), 1, 1024, "16", NULL, "N", NULL,
     "The most sequences of a language model that are computed at a time; others wait. More of "
     "them "
     "share the reading of weights, so that all together are faster and each is slower."},
    {"step_tokens", OPTION_COUNT, AT(step_tokens), 2, 65536, "256", NULL, "N", NULL,
     "The most tokens of a language model's step: one of every running sequence, and of prompts "
     "what fits (beside running sequences at most 64). Must be more than max_sequences. Lower it "
     "if "
     "the first answers to a burst of long prompts are late, raise it if long prompts are slow."},
    {"kv_cache_mb", OPTION_COUNT, AT(kv_cache_mb), 1, 16777216, "1024", NULL, "MEBIBYTES", NULL,
     "Memory for keys and values of all sequences of a language model, of each loop its share. A "
     "request waits until there is room for its prompt and max_tokens; one that never fits is "
     "refused with 400. Layers with a sliding window keep no more than it sees. A model takes no "
     "more than max_sequences times its context needs."},
    {"kv_cache", OPTION_CHOICE, AT(kv_cache), 0, 0, "f16", NULL, "f16|f32", NULL,
     "How keys and values are kept. f32 takes twice the memory and differs from f16 in the last "
     "digits of a token's logits; it is what other implementations are compared with."},
    {"max_queue_delay_us", OPTION_COUNT, AT(max_queue_delay_us), 0, 10000000, "0", NULL,
     "MICROSECONDS", NULL,
     "How long a batch that is not full may wait for more rows while compute is free. 0 never "
     "waits: an idle server answers at once, a busy one fills its batches anyway. Raise it only "
     "when the measured throughput gain is worth the delay to every request."},
    {"max_queue_rows", OPTION_COUNT, AT(max_queue_rows), 1, 16777216, "4096", NULL, "N", NULL,
     "The most rows that wait for compute, per model. A request that does not fit is answered "
     "429 at once. Rows beyond what is computed within a client's patience only make every "
     "answer late, so size it to throughput times acceptable wait."},
    {"queue_timeout_ms", OPTION_COUNT, AT(queue_timeout_ms), 1, DAY_MS, "10000", NULL,
     "MILLISECONDS", NULL,
     "A request that has waited this long for compute is answered 504 without being computed. Set "
     "it to what clients wait before they give up: later answers are work for nobody."},

    {"max_request_rows", OPTION_COUNT, AT(max_request_rows), 1, 16777216, "1024", NULL, "N",
     "Limits",
     "The most rows of one request. A larger one is refused with 413. Requests of few rows do not "
     "wait for the end of a large one, but share batches with it."},
    {"non_finite", OPTION_CHOICE, AT(non_finite), 0, 0, "refuse", NULL, "refuse|accept", NULL,
     "NaN and infinities in binary tensors. refuse: they are answered 400 with their place. "
     "accept: "
     "they are computed as any number, for clients such as perf_analyzer that send random bits. "
     "They change no other row's answer, and their rows are counted as others are."},
    {"max_body_bytes", OPTION_BYTES, AT(max_body_bytes), 1024, (uint64_t)4 << 30, "64M", NULL,
     "BYTES", NULL,
     "The largest request body, with an optional suffix K, M or G (powers of 1024). Larger ones "
     "are refused with 413 before they are read."},
    {"max_total_body_bytes", OPTION_BYTES, AT(max_total_body_bytes), 1024, (uint64_t)1 << 40,
     "512M", NULL, "BYTES", NULL,
     "The most bytes of request bodies in memory at a time, over all connections, with an optional "
     "suffix K, M or G; and as many of answers that clients have not taken (those above 64 KiB "
     "count). What does not fit is answered 503. Lower it on a small machine; it cannot be less "
     "than max_body_bytes."},
    {"max_connections", OPTION_COUNT, AT(max_connections), 0, 1000000, "0", NULL, "N", NULL,
     "The most connections in use at a time. One more takes the place of the connection that has "
     "been idle the longest. If none is idle its request waits up to a second for one to close and "
     "is then refused with 503; health and metrics are answered all the same. 0 takes 1024, or as "
     "many as the hard limit of open files (ulimit -Hn) allows; a "
     "number that it does not allow is refused. An idle connection costs about 40 KB."},
    {"max_connections_per_ip", OPTION_COUNT, AT(max_connections_per_ip), 0, 1000000, "0", NULL, "N",
     NULL,
     "The most connections of one client address (of IPv6: of 64 bits of it); further ones are "
     "closed at once. 0 sets no limit of its own. Set it when clients connect directly; behind a "
     "proxy every client has the proxy's address."},
    {"request_timeout_ms", OPTION_COUNT, AT(request_timeout_ms), 1, DAY_MS, "30000", NULL,
     "MILLISECONDS", NULL,
     "A request must have arrived whole this long after its first byte, or it is answered 408 and "
     "the connection closed. Raise it for large bodies over slow links; it is what stops clients "
     "that send a byte a second to hold connections."},
    {"idle_timeout_ms", OPTION_COUNT, AT(idle_timeout_ms), 1, DAY_MS, "60000", NULL, "MILLISECONDS",
     NULL,
     "A connection on which no new request has arrived for this long is closed. Behind a load "
     "balancer set it above the balancer's own idle timeout, so that it is the balancer that "
     "closes and never a request that meets a closed connection."},

    {"tokens", OPTION_STRING, AT(tokens), 0, 0, "", NULL, "FILE", "Access",
     "Requires a bearer token for everything but health. The file has a line for each: its "
     "SHA-256, "
     "its roles (predict, metrics, admin, with commas between) and its name, as 'moed token' "
     "prints it. It is read again on SIGHUP, and with model_control poll by itself."},
    {"admin", OPTION_SWITCH, AT(admin), 0, 1, "false", NULL, "true|false", NULL,
     "Lets every client who reaches the port change the server: load and unload models, reset "
     "statistics, set the log's level. With tokens it is those of the role admin who may, and this "
     "does not matter."},
    {"admin_listen", OPTION_STRING, AT(admin_listen), 0, 0, "", NULL, "ADDRESS", NULL,
     "A second listener for metrics and administration, HOST:PORT or unix:/PATH (which the owner "
     "and "
     "the group of the process may connect to). It answers everything; the first one then answers "
     "only health and what clients of the models need. Whoever reaches it may change the server, "
     "unless there are tokens."},
    {"rate_limit", OPTION_COUNT, AT(rate_limit), 0, 1000000, "0", NULL, "N", NULL,
     "The most requests a second of one client address (of IPv6: one network of 64 bits), besides "
     "health. More are answered 429 with the time to wait. 0 sets no limit. Set it when clients "
     "connect directly; behind a proxy every client has the proxy's address."},
    {"rate_burst", OPTION_COUNT, AT(rate_burst), 0, 1000000, "0", NULL, "N", NULL,
     "How many requests a client that was quiet may send at once before rate_limit holds. 0 takes "
     "as many as rate_limit."},
    {"tls_cert", OPTION_STRING, AT(tls_cert), 0, 0, "", NULL, "FILE", NULL,
     "TLS (1.2 and 1.3) on both listeners, but not on a Unix socket: a PEM file with the server's "
     "certificate and behind it those that lead to the root. It is read again on SIGHUP, and with "
     "model_control poll by itself; connections stay."},
    {"tls_key", OPTION_STRING, AT(tls_key), 0, 0, "", NULL, "FILE", NULL,
     "The private key of tls_cert, a PEM file."},
    {"tls_client_ca", OPTION_STRING, AT(tls_client_ca), 0, 0, "", NULL, "FILE", NULL,
     "A PEM file of who signs the certificates of clients. Everything but health then takes one."},
    {"sandbox", OPTION_CHOICE, AT(sandbox), 0, 0, "on", NULL, "on|off", NULL,
     "on: once it serves, the process can start no other, make no connection (but to "
     "trace_endpoint), trace nobody, and "
     "change no file but those of its state (seccomp and Landlock, as far as the kernel has them; "
     "the log says so). Then it can write no core file either: off is for debugging."},

    {"drain_delay_ms", OPTION_COUNT, AT(drain_delay_ms), 0, DAY_MS, "0", NULL, "MILLISECONDS",
     "Shutdown",
     "After SIGTERM, how long to go on serving with readiness failing before draining. In "
     "Kubernetes set it to about 5000, the time it takes until no new connections are routed "
     "here."},
    {"drain_timeout_ms", OPTION_COUNT, AT(drain_timeout_ms), 0, DAY_MS, "30000", NULL,
     "MILLISECONDS", NULL,
     "How long draining may take: accepted requests are finished and answered, then the process "
     "exits with 0. A request that has not arrived whole within half of it is refused with 408, a "
     "client that takes no answer is cut before it ends; neither changes the exit status. It is 1 "
     "if a request that had arrived is still not answered by then; the log names it. Together "
     "with drain_delay_ms it must be below the supervisor's own limit (Kubernetes: "
     "terminationGracePeriodSeconds)."},

    {"max_expert_series", OPTION_COUNT, AT(max_expert_series), 0, 10000000, "4096", NULL, "N",
     "Observation",
     "The most per-expert series /metrics exports over all models. Above it only the layers' "
     "aggregates are exported; the per-expert figures stay available as JSON. Raise it if your "
     "Prometheus can take models with thousands of experts."},
    {"max_tags", OPTION_COUNT, AT(max_tags), 0, 1000, "16", NULL, "N", NULL,
     "How many tags the routing statistics of each model tell apart. A request names one by the "
     "header Moed-Tag; the first that come get a place, the rest are counted together as "
     "\"other\". Each takes as much memory as the statistics without tags."},
    {"state", OPTION_STRING, AT(state), 0, 0, "", NULL, "DIR", NULL,
     "A directory of this server's own, in which routing statistics survive a restart: a snapshot "
     "of each model every state_interval_ms, when it is unloaded, and at the end. A damaged one is "
     "renamed and counting begins anew; one that cannot be read now is kept, and tried again; a "
     "full disk is a warning. Without it statistics begin anew with the process."},
    {"state_interval_ms", OPTION_COUNT, AT(state_interval_ms), 100, DAY_MS, "60000", NULL,
     "MILLISECONDS", NULL,
     "How often statistics are written to the directory `state`: what a crash may lose."},
    {"log_level", OPTION_CHOICE, AT(log_level), 0, 0, "info", NULL, "error|warning|info|debug",
     NULL,
     "error, warning, info or debug. info logs one line per request; warning keeps a busy server "
     "quiet."},
    {"log_format", OPTION_CHOICE, AT(log_format), 0, 0, "logfmt", NULL, "logfmt|json", NULL,
     "logfmt writes key=value pairs, json an object on each line, with the same keys."},
    {"log_slow_ms", OPTION_COUNT, AT(log_slow_ms), 0, DAY_MS, "5000", NULL, "MILLISECONDS", NULL,
     "A request that takes longer is logged at level warning, with slow=true; one of a language "
     "model that waits longer, for its text takes as long as it is. 0: none is."},
    {"log_max_per_second", OPTION_COUNT, AT(log_max_per_second), 0, 1000000, "0", NULL, "N", NULL,
     "The most requests logged in a second, at level info and at level warning each. The next line "
     "says how many were not (unwritten=N). 0 logs all."},
    {"trace_endpoint", OPTION_STRING, AT(trace_endpoint), 0, 0, "", NULL, "URL", NULL,
     "Where a collector takes OpenTelemetry's traces (OTLP/HTTP): http://HOST[:PORT][/PATH], by "
     "default port 4318 and /v1/traces. A request whose header traceparent says so is traced, and "
     "one in trace_rate of those without. Empty: nothing is. Spans that wait when the server stops "
     "have 5 seconds beyond drain_timeout_ms."},
    {"trace_rate", OPTION_COUNT, AT(trace_rate), 0, 1000000000, "1000", NULL, "N", NULL,
     "With trace_endpoint: of requests without a traceparent, one in so many is traced. 0: none."},
};

_Static_assert(sizeof(struct options) == OPTION_ROWS * sizeof(uint64_t),
               "a field of struct options has no row, or OPTION_ROWS is out of date");

/* Prints `text` in lines of at most HELP_COLUMNS, each with `prefix` in front. */
static void print_wrapped(FILE *out, const char *prefix, const char *text)
{
    size_t room = HELP_COLUMNS - strlen(prefix);
    while (*text) {
        size_t length = strlen(text);
        if (length > room) {
            for (length = room; length > 0 && text[length] != ' '; length--)
                ;
            if (length == 0)
                length = strcspn(text, " ");
        }
        fprintf(out, "%s%.*s\n", prefix, (int)length, text);
        text += length;
        text += strspn(text, " ");
    }
}

static void print_flag(FILE *out, const struct option_row *row)
{
    fputs("  --", out);
    for (const char *at = row->name; *at; at++)
        fputc(option_flag_character(*at), out);
    if (row->value && *row->value)
        fprintf(out, " %s   (default %s)\n", row->operand, row->value);
    else
        fprintf(out, " %s   (%s)\n", row->operand, row->value ? "optional" : "required");
}

void options_help(FILE *out)
{
    fputs("  --config FILE\n", out);
    print_wrapped(out, "      ",
                  "Reads options from a file of `name = value` lines; deploy/moed.conf is one that "
                  "explains itself. The environment (MOED_MAX_BATCH_ROWS=64) overrides the file, a "
                  "flag overrides both.");
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (OPTIONS[i].group)
            fprintf(out, "\n%s:\n", OPTIONS[i].group);
        print_flag(out, &OPTIONS[i]);
        print_wrapped(out, "      ", OPTIONS[i].help);
    }
}

void options_sample(FILE *out)
{
    print_wrapped(
        out, "# ",
        "Configuration of moed: moed serve --config moed.conf. Every option is here under "
        "the paragraph that explains it, commented out with its default. The environment "
        "(MOED_MAX_BATCH_ROWS=64) overrides this file, a flag (--max-batch-rows 64) "
        "overrides both. Quotes around a value are optional.");
    for (size_t i = 0; i < OPTION_ROWS; i++) {
        if (OPTIONS[i].group)
            fprintf(out, "\n\n# ---- %s ----\n", OPTIONS[i].group);
        fputc('\n', out);
        print_wrapped(out, "# ", OPTIONS[i].help);
        fprintf(out, "#%s = %s\n", OPTIONS[i].name,
                OPTIONS[i].sample ? OPTIONS[i].sample : OPTIONS[i].value);
    }
}
