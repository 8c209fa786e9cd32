/* Prompts that `moectl bench` sends to a language model, and when its tokens came. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "clients/c/moectl/bench.h"

enum {
    DEFAULT_PROMPT_TOKENS = 256, /* with the next one less than the context of a toy */
    DEFAULT_MAX_TOKENS = 128,
    SEED_BITS = 53, /* which a double holds, and so --seed */
    MOST_FILE_BYTES = 1 << 28,
};

/* ---- given prompts ---- */

static bool is_prompt(json_t *value)
{
    size_t i;
    json_t *id;
    json_array_foreach(value, i, id)
    {
        if (!json_is_integer(id))
            return false;
    }
    return json_array_size(value) > 0 || json_string_length(value) > 0;
}

static void add_prompt(struct bench_prompts *work, json_t *prompt)
{
    work->list[work->count++] = xchecked(json_dumps(prompt, JSON_COMPACT | JSON_ENCODE_ANY));
}

/* A JSON list of texts and of lists of token ids. */
static int read_list(struct bench_prompts *work, const char *text, size_t length,
                     struct moed_client_error *err)
{
    json_error_t at;
    json_t *list = json_loadb(text, length, JSON_REJECT_DUPLICATES, &at), *prompt;
    size_t i;
    int result = 0;
    if (!list)
        return fail_with(err, "line %d, column %d: %s", at.line, at.column, at.text);
    work->list = xcalloc(json_array_size(list), sizeof *work->list);
    json_array_foreach(list, i, prompt)
    {
        if (!is_prompt(prompt)) {
            result = fail_with(err, "prompt %zu: expected a text or a list of token ids", i);
            break;
        }
        add_prompt(work, prompt);
    }
    json_decref(list);
    return result;
}

/* A prompt in each line that is not empty. */
static int read_lines(struct bench_prompts *work, const char *text, size_t length,
                      struct moed_client_error *err)
{
    size_t lines = 1, number = 1;
    if (strlen(text) != length)
        return fail_with(err, "a NUL byte, which no prompt may hold");
    for (const char *at = text; *at; at++)
        lines += *at == '\n';
    work->list = xcalloc(lines, sizeof *work->list);
    for (size_t bytes; *text; text += bytes + (text[bytes] == '\n'), number++) {
        bytes = strcspn(text, "\n");
        json_t *prompt = json_stringn(text, bytes);
        if (!prompt)
            return fail_with(err, "line %zu is not UTF-8", number);
        if (bytes > 0)
            add_prompt(work, prompt);
        json_decref(prompt);
    }
    return 0;
}

static int read_prompts(struct bench_prompts *work, const char *path, struct moed_client_error *err)
{
    size_t length;
    char *text = read_file(path, MOST_FILE_BYTES, &length, err);
    if (!text)
        return -1;
    int result = text[strspn(text, " \t\r\n")] == '[' ? read_list(work, text, length, err)
                                                      : read_lines(work, text, length, err);
    if (result == 0 && work->count == 0)
        result = fail_with(err, "there are no prompts");
    if (result != 0)
        fail_in(err, path);
    free(text);
    return result;
}

/* ---- requests ---- */

/* Another one in each run, or a server would remember the prompts of the last one. */
static uint64_t any_seed(void)
{
    uint64_t seed = load_now();
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) != sizeof seed)
        seed ^= load_now() << 32;
    return seed >> (64 - SEED_BITS);
}

int bench_prompts_make(struct bench_prompts *work, const struct settings *settings,
                       const struct moed_client_model *model, struct moed_client_error *err)
{
    work->tokens = settings->prompt_tokens ? settings->prompt_tokens : DEFAULT_PROMPT_TOKENS;
    work->max_tokens = settings->max_tokens ? settings->max_tokens : DEFAULT_MAX_TOKENS;
    work->seed = settings->seed ? (uint64_t)strtod(settings->seed, NULL) : any_seed();
    work->vocabulary = model->inputs[0].categories;
    json_t *head =
        json_pack("{s:s, s:b, s:{s:b}, s:b}", "model", settings->operands[0], "stream", true,
                  "stream_options", "include_usage", true, "ignore_eos", !settings->input);
    work->head = head ? json_dumps(head, JSON_COMPACT) : NULL;
    json_decref(head);
    if (!work->head)
        return fail_with(err, "'%.100s' cannot be the name of a model", settings->operands[0]);
    work->head[strlen(work->head) - 1] = '\0'; /* the end of the object */
    return settings->input ? read_prompts(work, settings->input, err) : 0;
}

void bench_prompts_close(struct bench_prompts *work)
{
    for (size_t i = 0; i < work->count; i++)
        free(work->list[i]);
    free(work->list);
    free(work->head);
}

/* Steele, Lea and Flood's SplitMix64: numbers of any beginning are unlike those of the next one. */
static uint64_t next_random(uint64_t *state)
{
    uint64_t mixed = *state += 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EBu;
    return mixed ^ mixed >> 31;
}

/* Every turn has a prompt of its own: what a server has seen before costs it less. */
static void write_made_up(const struct bench_prompts *work, uint64_t turn, FILE *out)
{
    uint64_t state = work->seed;
    state = next_random(&state) ^ turn;
    for (uint64_t i = 0; i < work->tokens; i++)
        fprintf(out, "%c%llu", i > 0 ? ',' : '[',
                (unsigned long long)(next_random(&state) % work->vocabulary));
    fputc(']', out);
}

/* The caller frees; NULL: no memory. */
static char *body_of(const struct bench_prompts *work, uint64_t turn, size_t *length)
{
    char *body = NULL;
    FILE *out = open_memstream(&body, length);
    if (!out)
        return NULL;
    /* All connections are opened at once, which must not be more than the server takes. */
    const bool opening = turn == LOAD_OPENING;
    fprintf(out, "%s,\"max_tokens\":%llu,\"prompt\":", work->head,
            (unsigned long long)(opening ? 1 : work->max_tokens));
    if (opening)
        fputs("[0]", out);
    else if (work->list)
        fputs(work->list[turn % work->count], out);
    else
        write_made_up(work, turn, out);
    fputc('}', out);
    const bool failed = ferror(out);
    if (fclose(out) == 0 && !failed)
        return body;
    free(body);
    return NULL;
}

/* ---- an answer ---- */

/* When its pieces came: each is a token, or several that make a character. */
struct pieces {
    uint64_t *at;
    size_t count, capacity;
    uint64_t prompt_tokens, cached_tokens, answer_tokens;
    bool counted, done;
    struct moed_client_error *err;
};

static int add_piece(struct pieces *pieces, uint64_t time)
{
    if (pieces->count == pieces->capacity) {
        const size_t capacity = pieces->capacity ? 2 * pieces->capacity : 256;
        uint64_t *at = realloc(pieces->at, capacity * sizeof *at);
        if (!at)
            return fail_with(pieces->err, "no memory for an answer of so many tokens");
        pieces->at = at;
        pieces->capacity = capacity;
    }
    pieces->at[pieces->count++] = time;
    return 0;
}

static uint64_t count_in(json_t *object, const char *name)
{
    const json_int_t count = json_integer_value(json_object_get(object, name));
    return count > 0 ? (uint64_t)count : 0;
}

static int read_event(struct pieces *pieces, json_t *event, uint64_t time)
{
    json_t *error = json_object_get(event, "error"), *usage = json_object_get(event, "usage");
    json_t *choice = json_array_get(json_object_get(event, "choices"), 0);
    if (error && !json_is_null(error)) {
        const char *text = json_string_value(json_object_get(error, "message"));
        return fail_with(pieces->err, "the answer broke off: %.300s", text ? text : "no reason");
    }
    if (json_is_object(usage)) {
        pieces->counted = true;
        pieces->prompt_tokens = count_in(usage, "prompt_tokens");
        pieces->answer_tokens = count_in(usage, "completion_tokens");
        pieces->cached_tokens =
            count_in(json_object_get(usage, "prompt_tokens_details"), "cached_tokens");
    }
    const bool said = json_string_length(json_object_get(choice, "text")) > 0 ||
                      json_array_size(json_object_get(choice, "token_ids")) > 0;
    return said ? add_piece(pieces, time) : 0;
}

static bool on_event(void *context, const char *data, size_t length)
{
    const uint64_t time = load_now();
    struct pieces *pieces = context;
    if (strcmp(data, "[DONE]") == 0) {
        pieces->done = true;
        return true; /* the connection is kept when the answer has ended */
    }
    json_t *event = json_loadb(data, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const int result = json_is_object(event)
                           ? read_event(pieces, event, time)
                           : fail_with(pieces->err, "an event of the answer is no JSON object");
    json_decref(event);
    return result == 0;
}

static int judge(const struct pieces *pieces, int result, struct moed_client_error *err)
{
    if (result != 0 || err->code != MOED_CLIENT_OK)
        return -1;
    if (!pieces->done || !pieces->counted)
        return fail_with(err, "the answer broke off: its stream ended without %s",
                         pieces->done ? "usage" : "[DONE]");
    return 0;
}

static void note(struct load_result *result, const struct pieces *pieces, uint64_t due)
{
    result->prompt_tokens += pieces->prompt_tokens;
    result->cached_tokens += pieces->cached_tokens;
    result->answer_tokens += pieces->answer_tokens;
    if (pieces->count > 0)
        latency_add(&result->first, pieces->at[0] - due);
    for (size_t i = 1; i < pieces->count; i++)
        latency_add(&result->between, pieces->at[i] - pieces->at[i - 1]);
}

int bench_prompts_send(const void *context, struct moed_client *client,
                       const struct load_turn *turn, struct load_result *result,
                       struct moed_client_error *err)
{
    char path[] = "/v1/completions";
    struct moed_client_call call = {.method = "POST", .path = path};
    struct pieces pieces = {.err = err};
    call.body = body_of(context, turn->number, &call.length);
    if (!call.body)
        return fail_with(err, "no memory for a prompt");
    const int status =
        judge(&pieces, moed_client_stream(client, &call, on_event, &pieces, err), err);
    if (status == 0 && result)
        note(result, &pieces, turn->due);
    free(pieces.at);
    free(call.body);
    return status;
}
