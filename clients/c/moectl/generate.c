/* `moectl generate`: what a language model says, as it comes, and which experts say it. */
#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients/c/moectl/listing.h"
#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/run.h"
#include "clients/c/moectl/terminal.h"
#include "clients/c/moectl/token_table.h"

enum { MOST_PROMPT_BYTES = 4 << 20 }; /* as the server takes */

/* ---- the request ---- */

/* Its words with blanks between them, or standard input without the line break at its end. The
 * caller frees. */
static char *read_prompt(const struct settings *settings, struct moed_client_error *err)
{
    size_t length = 0;
    if (settings->operand_count == 1 ||
        (settings->operand_count == 2 && strcmp(settings->operands[1], "-") == 0)) {
        char *text = read_file("-", MOST_PROMPT_BYTES, &length, err);
        if (text && strlen(text) != length) {
            fail_with(err, "the prompt holds a NUL byte");
            free(text);
            return NULL;
        }
        if (text && length > 0 && text[length - 1] == '\n')
            text[length - 1] = '\0';
        return text;
    }
    for (size_t i = 1; i < settings->operand_count; i++)
        length += strlen(settings->operands[i]) + 1;
    char *text = xcalloc(length + 1, 1), *to = text;
    for (size_t i = 1; i < settings->operand_count; i++)
        to += sprintf(to, "%s%s", i > 1 ? " " : "", settings->operands[i]);
    return text;
}

/* Whole numbers as such, which the server asks of some. */
static void pass_number(json_t *body, const char *name, const char *text)
{
    if (!text)
        return;
    const double number = strtod(text, NULL);
    json_object_set_new(
        body, name, number == floor(number) ? json_integer((json_int_t)number) : json_real(number));
}

/* Text of the command line, which may hold anything. */
static json_t *utf8_text(const char *what, const char *text, struct moed_client_error *err)
{
    json_t *string = json_string(text);
    if (!string)
        fail_with(err, "%s is not UTF-8", what);
    return string;
}

/* NULL: there are none, or not all are UTF-8. */
static json_t *stops_of(const struct settings *settings, struct moed_client_error *err)
{
    json_t *list = settings->stop.count > 0 ? json_array() : NULL;
    for (size_t i = 0; i < settings->stop.count; i++)
        if (json_array_append_new(list, utf8_text("--stop", settings->stop.texts[i], err)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static json_t *prompt_of(const struct settings *settings, const char *prompt,
                         struct moed_client_error *err)
{
    json_t *text = utf8_text("the prompt", prompt, err);
    return text && settings->chat ? json_pack("[{s:s, s:o}]", "role", "user", "content", text)
                                  : text;
}

/* The caller frees. */
static char *body_of(const struct settings *settings, const char *prompt,
                     struct moed_client_error *err)
{
    json_t *body = json_pack("{s:b, s:{s:b}, s:o*, s:o*, s:o*}", "stream", true, "stream_options",
                             "include_usage", true, "model",
                             utf8_text("the model's name", settings->operands[0], err),
                             settings->chat ? "messages" : "prompt",
                             prompt_of(settings, prompt, err), "stop", stops_of(settings, err));
    if (settings->max_tokens)
        json_object_set_new(body, "max_tokens", json_integer((json_int_t)settings->max_tokens));
    pass_number(body, "temperature", settings->temperature);
    pass_number(body, "top_p", settings->top_p);
    pass_number(body, "top_k", settings->top_k);
    pass_number(body, "seed", settings->seed);
    if (settings->experts) { /* log probabilities name the tokens one by one */
        json_object_set_new(body, "routing", json_true());
        json_object_set_new(body, "logprobs", settings->chat ? json_true() : json_integer(0));
    }
    char *dumped = err->code == MOED_CLIENT_OK ? xchecked(json_dumps(body, JSON_COMPACT)) : NULL;
    json_decref(body);
    return dumped;
}

/* ---- the answer ---- */

struct answer {
    const struct settings *settings;
    struct token_table *table; /* NULL: the text alone */
    struct moed_client_error *err;
    bool done;      /* the stream has said that it is whole */
    bool open_line; /* the cursor is not at the beginning of one */
};

static void print_piece(struct answer *answer, const json_t *text)
{
    char *shown = printable_text(json_string_value(text), json_string_length(text));
    const size_t length = strlen(shown);
    fputs(shown, stdout);
    if (length > 0)
        answer->open_line = shown[length - 1] != '\n';
    free(shown);
}

/* A model without a tokenizer says ids. */
static void print_ids(struct answer *answer, json_t *ids)
{
    size_t i;
    json_t *id;
    json_array_foreach(ids, i, id)
    {
        printf("%s%lld", answer->open_line ? " " : "", (long long)json_integer_value(id));
        answer->open_line = true;
    }
}

static int show_choice(struct answer *answer, json_t *choice)
{
    if (answer->table)
        return token_table_add(answer->table, choice, answer->err);
    json_t *text = answer->settings->chat
                       ? json_object_get(json_object_get(choice, "delta"), "content")
                       : json_object_get(choice, "text");
    if (json_is_string(text))
        print_piece(answer, text);
    print_ids(answer, json_object_get(choice, "token_ids"));
    return 0;
}

static int show_event(struct answer *answer, json_t *event)
{
    const json_t *error = json_object_get(event, "error");
    const char *message = json_string_value(json_object_get(error, "message"));
    if (answer->settings->json)
        print_json(stdout, event, JSON_COMPACT | JSON_REAL_PRECISION(9));
    if (error && !json_is_null(error))
        return fail_with(answer->err, "the answer broke off: %.300s",
                         message                 ? message
                         : json_is_string(error) ? json_string_value(error)
                                                 : "no reason was given");
    json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    return answer->settings->json || !choice ? 0 : show_choice(answer, choice);
}

static bool on_event(void *context, const char *data, size_t length)
{
    struct answer *answer = context;
    if (strcmp(data, "[DONE]") == 0) {
        answer->done = true;
        return false;
    }
    json_error_t at;
    json_t *event = json_loadb(data, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &at);
    int result = -1;
    if (json_is_object(event))
        result = show_event(answer, event);
    else
        fail_with(answer->err, "an event of the answer is no JSON object: %.100s",
                  event ? data : at.text);
    json_decref(event);
    if (result == 0 && fflush(stdout) != 0) /* why is known here only */
        result = fail_with(answer->err, "cannot write standard output: %s", strerror(errno));
    return result == 0;
}

/* ---- its end ---- */

static volatile sig_atomic_t interrupted;

/* A second signal does what it does without this. */
static void on_signal(int number)
{
    interrupted = 1;
    signal(number, SIG_DFL);
}

static bool is_interrupted(void *context)
{
    (void)context;
    return interrupted;
}

static void catch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal}; /* waiting calls are not begun anew */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Puts in place of a refusal what the model is for, if it is not for this. */
static void explain_refusal(struct moed_client *client, const char *model,
                            struct moed_client_error *err)
{
    json_t *listing = err->code == MOED_CLIENT_REFUSED ? fetch_listing(client, NULL) : NULL;
    json_t *entry = listing_entry(listing, model);
    const bool embeds = listing_does(entry, "embedding");
    if (entry && !listing_does(entry, "completion")) {
        *err = (struct moed_client_error){0};
        fail_with(err,
                  embeds ? "'%.100s' makes vectors of texts and no text: ask it at /v1/embeddings"
                         : "'%.100s' is no language model: moectl predict answers its rows",
                  model);
    }
    json_decref(listing);
}

/* What is on the screen is ended before an error is told. */
static void end_output(const struct answer *answer)
{
    if (answer->open_line)
        putchar('\n');
    if (answer->table)
        token_table_end(answer->table);
    fflush(stdout);
}

/* Whether the answer is whole, or has been ended here. */
static int judge(const struct answer *answer, int result, struct moed_client_error *err)
{
    if (interrupted && (result == 0 || err->code == MOED_CLIENT_CANCELLED)) {
        fputs("moectl: interrupted\n", stderr);
        return 0;
    }
    if (result != 0 || err->code != MOED_CLIENT_OK)
        return -1;
    if (answer->done)
        return answer->table ? token_table_check(answer->table, err) : 0;
    return fail_with(err, "the answer broke off: its stream ended without [DONE]");
}

static int generate(struct moed_client *client, const struct settings *settings, char *body,
                    struct moed_client_error *err)
{
    char completions[] = "/v1/completions", chats[] = "/v1/chat/completions";
    const struct moed_client_call call = {"POST", settings->chat ? chats : completions, body,
                                          strlen(body), 0};
    const struct terminal terminal = terminal_of_output();
    struct answer answer = {.settings = settings, .err = err};
    if (settings->experts && !settings->json)
        answer.table =
            token_table_new(settings->layer, isatty(STDOUT_FILENO) ? terminal.columns : 0);
    catch_signals();
    const int result = moed_client_stream(client, &call, on_event, &answer, err);
    if (result != 0)
        explain_refusal(client, settings->operands[0], err);
    end_output(&answer);
    const int status = judge(&answer, result, err);
    token_table_free(answer.table);
    return status;
}

int run_generate(const struct settings *settings, struct moed_client_error *err)
{
    if (settings->layer && !settings->experts) {
        fail_with(err, "--layer is for --experts");
        return EXIT_USAGE;
    }
    char *prompt = read_prompt(settings, err);
    char *body = prompt ? body_of(settings, prompt, err) : NULL;
    struct moed_client *client = body ? connect_with(settings, is_interrupted, NULL, err) : NULL;
    const int result = client ? generate(client, settings, body, err) : -1;
    moed_client_free(client);
    free(body);
    free(prompt);
    return result;
}
