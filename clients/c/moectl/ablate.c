/* `moectl ablate`: what each expert is worth on labelled rows, by asking for the answers without
 * it.
 *
 * The rows are sent once as they are, and once for each expert excluded and silenced. Scores are
 * compared with the labels here; the server counts nothing of it. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "clients/c/moectl/document.h"
#include "clients/c/moectl/inputs.h"
#include "clients/c/moectl/print_json.h"
#include "clients/c/moectl/run.h"

enum { MAX_CLASSES = 1000 };

/* What is the same for every pass over the rows. */
struct study {
    const struct settings *settings;
    struct moed_client *client;
    const struct moed_client_model *model;
    struct inputs inputs;
    int64_t *labels;                         /* [rows] */
    const struct moed_client_tensor *output; /* of the model: one score for each class */
    size_t classes;
    int64_t *answered; /* [rows] the class without any change */
    uint64_t *members; /* [classes] rows of each class */
    bool logits;       /* some row's scores were no probabilities, without any change */
};

/* One pass. */
struct outcome {
    bool refused;
    char reason[MOED_CLIENT_ERROR_BYTES]; /* why, if it was */
    double accuracy, log_loss;
    size_t changed;    /* rows with another answer than without any change */
    uint64_t *correct; /* [classes] */
};

/* ---- scores ---- */

/* As the server takes them: numbers from 0 to 1 that add up to 1 are probabilities. What they are
 * without any change they are in all passes: those of a silenced expert no longer add up. */
static bool are_probabilities(const float *scores, size_t classes)
{
    double sum = 0;
    for (size_t i = 0; i < classes; i++) {
        if (!(scores[i] >= 0 && scores[i] <= 1))
            return false;
        sum += (double)scores[i];
    }
    return fabs(sum - 1) < 1e-3;
}

static double probability_of(const float *scores, size_t classes, size_t class, bool logits)
{
    double largest = -INFINITY, sum = 0;
    if (!logits)
        return (double)scores[class];
    for (size_t i = 0; i < classes; i++)
        largest = fmax(largest, (double)scores[i]);
    for (size_t i = 0; i < classes; i++)
        sum += exp((double)scores[i] - largest);
    return exp((double)scores[class] - largest) / sum;
}

static size_t best_of(const float *scores, size_t classes)
{
    size_t best = 0;
    for (size_t i = 1; i < classes; i++)
        if (scores[i] > scores[best])
            best = i;
    return best;
}

static void judge_row(struct study *study, struct outcome *outcome, size_t row, const float *scores,
                      bool first_pass)
{
    const size_t label = (size_t)study->labels[row], answer = best_of(scores, study->classes);
    if (first_pass)
        study->answered[row] = (int64_t)answer;
    const bool logits = first_pass ? !are_probabilities(scores, study->classes) : study->logits;
    study->logits |= logits;
    const double p = probability_of(scores, study->classes, label, logits);
    outcome->changed += study->answered[row] != (int64_t)answer;
    outcome->correct[label] += answer == label;
    outcome->accuracy += answer == label;
    outcome->log_loss -= log(p > 1e-15 ? p : 1e-15);
}

/* ---- a pass ---- */

/* {"experts": "{\"<gate>\": {\"<what>\": [i]}}"}; the caller frees. NULL: nothing is asked for. */
static char *parameters_of(const char *gate, const char *what, uint64_t expert)
{
    if (!gate)
        return NULL;
    json_t *experts = json_pack("{s:{s:[I]}}", gate, what, (json_int_t)expert);
    char *text = json_dumps(experts, JSON_COMPACT);
    json_t *parameters = json_pack("{s:s}", "experts", text);
    char *both = json_dumps(parameters, JSON_COMPACT);
    json_decref(experts);
    json_decref(parameters);
    free(text);
    return both;
}

static int ask(struct study *study, const char *parameters, size_t first, size_t count,
               struct outcome *outcome, struct moed_client_error *err)
{
    struct moed_client_tensor *part = xcalloc(study->inputs.count, sizeof *part);
    const struct moed_client_output wanted = {.name = study->output->name};
    inputs_slice(&study->inputs, first, count, part);
    const struct moed_client_request request = {.model = study->settings->operands[0],
                                                .version = study->settings->version,
                                                .inputs = part,
                                                .input_count = study->inputs.count,
                                                .outputs = &wanted,
                                                .output_count = 1,
                                                .parameters = parameters};
    const struct moed_client_result *result = moed_client_infer(study->client, &request, err);
    free(part);
    const struct moed_client_tensor *scores =
        result ? moed_client_result_output(result, study->output->name) : NULL;
    int status = result ? 0 : -1;
    if (result && (!scores || scores->datatype != MOED_CLIENT_FP32 ||
                   scores->bytes != count * study->classes * sizeof(float)))
        status = fail_with(err, "the answer is not one score for each of %zu classes and %zu row%s",
                           study->classes, count, ending(count));
    for (size_t i = 0; status == 0 && i < count; i++)
        judge_row(study, outcome, first + i, (const float *)scores->data + i * study->classes,
                  !parameters);
    moed_client_result_free(result);
    return status;
}

static void outcome_close(struct outcome *outcome)
{
    free(outcome->correct);
}

/* All rows, with one expert changed; gate NULL: none. What the server refuses is an outcome. */
static int pass(struct study *study, const char *gate, const char *what, uint64_t expert,
                struct outcome *outcome, struct moed_client_error *err)
{
    const size_t rows = study->inputs.rows,
                 step = study->settings->rows ? study->settings->rows : 64;
    *outcome = (struct outcome){.correct = xcalloc(study->classes, sizeof *outcome->correct)};
    char *parameters = parameters_of(gate, what, expert);
    int result = 0;
    for (size_t first = 0; result == 0 && first < rows; first += step) {
        const size_t left = rows - first;
        result = ask(study, parameters, first, left < step ? left : step, outcome, err);
    }
    free(parameters);
    outcome->accuracy /= (double)rows;
    outcome->log_loss /= (double)rows;
    if (result != 0 && gate && err->status == 400) {
        outcome->refused = true;
        snprintf(outcome->reason, sizeof outcome->reason, "%s", err->text);
        *err = (struct moed_client_error){0};
        return 0;
    }
    if (result != 0)
        outcome_close(outcome);
    return result;
}

/* ---- JSON ---- */

static json_t *by_class(const struct study *study, const struct outcome *outcome)
{
    json_t *list = json_array();
    for (size_t i = 0; i < study->classes; i++)
        json_array_append_new(list, study->members[i] ? json_real((double)outcome->correct[i] /
                                                                  (double)study->members[i])
                                                      : json_null());
    return list;
}

static json_t *json_outcome(const struct study *study, const struct outcome *outcome)
{
    if (outcome->refused)
        return json_pack("{s:s}", "refused", outcome->reason);
    return json_pack("{s:f, s:f, s:I, s:o}", "accuracy", outcome->accuracy, "log_loss",
                     outcome->log_loss, "changed", (json_int_t)outcome->changed, "by_class",
                     by_class(study, outcome));
}

static json_t *json_study(const struct study *study, const struct outcome *plain)
{
    json_t *root = json_outcome(study, plain), *members = json_array();
    json_object_del(root, "changed");
    for (size_t i = 0; i < study->classes; i++)
        json_array_append_new(members, json_integer((json_int_t)study->members[i]));
    json_object_set_new(root, "model", json_string(study->model->name));
    json_object_set_new(root, "rows", json_integer((json_int_t)study->inputs.rows));
    json_object_set_new(root, "rows_by_class", members);
    json_object_set_new(root, "layers", json_array());
    return root;
}

/* ---- the table ---- */

/* The class that suffers most: "  9: -0.31". */
static void print_worst(const struct study *study, const struct outcome *plain,
                        const struct outcome *outcome)
{
    double worst = 0;
    size_t class = 0;
    for (size_t i = 0; i < study->classes; i++) {
        double lost = study->members[i]
                          ? ((double)plain->correct[i] - (double)outcome->correct[i]) /
                                (double)study->members[i]
                          : 0;
        if (lost > worst) {
            worst = lost;
            class = i;
        }
    }
    if (worst > 0)
        printf("  %4zu: %+.3f", class, -worst);
    else
        printf("  %12s", "-");
}

static void print_outcome(const struct study *study, const struct outcome *plain,
                          const struct outcome *outcome)
{
    if (outcome->refused) {
        printf("  %8s  %8s  %7s  %12s", "-", "-", "-", "-");
        return;
    }
    printf("  %+8.4f  %+8.4f  %6.2f%%", outcome->accuracy - plain->accuracy,
           outcome->log_loss - plain->log_loss,
           100 * (double)outcome->changed / (double)study->inputs.rows);
    print_worst(study, plain, outcome);
}

static void print_head(const struct study *study, const struct outcome *plain)
{
    char *name = printable(study->model->name);
    printf("%s: %zu row%s of %zu classes, accuracy %.4f, log loss %.4f\n", name, study->inputs.rows,
           ending(study->inputs.rows), study->classes, plain->accuracy, plain->log_loss);
    free(name);
}

static void print_layer(const struct layer *layer)
{
    printf("\n%s: %zu expert%s, top_k %zu\n", layer->name, layer->expert_count,
           ending(layer->expert_count), layer->top_k);
    printf("        %-41s  %-41s\n", "  excluded", "  silenced");
    printf("expert  %8s  %8s  %7s  %12s  %8s  %8s  %7s  %12s\n", "accuracy", "log loss", "changed",
           "worst class", "accuracy", "log loss", "changed", "worst class");
}

/* ---- all experts ---- */

static int study_expert(struct study *study, const struct outcome *plain, const struct layer *layer,
                        size_t index, json_t *experts, struct moed_client_error *err)
{
    static const char *const WHAT[] = {"exclude", "silence"}, *const DONE[] = {"excluded",
                                                                               "silenced"};
    const char *gate = json_string_value(json_object_get(layer->json, "name"));
    json_t *entry = json_pack("{s:I}", "index", (json_int_t)layer->experts[index].index);
    int result = 0;
    if (!study->settings->json)
        printf("%6llu", (unsigned long long)layer->experts[index].index);
    for (size_t i = 0; result == 0 && i < LENGTH(WHAT); i++) {
        struct outcome outcome;
        result = pass(study, gate, WHAT[i], layer->experts[index].index, &outcome, err);
        if (result != 0)
            break;
        json_object_set_new(entry, DONE[i], json_outcome(study, &outcome));
        if (!study->settings->json)
            print_outcome(study, plain, &outcome);
        outcome_close(&outcome);
    }
    if (!study->settings->json) {
        putchar('\n');
        fflush(stdout); /* a pass may take long */
    }
    json_array_append_new(experts, entry);
    return result;
}

static int study_all(struct study *study, const struct document *document,
                     struct moed_client_error *err)
{
    struct outcome plain;
    if (pass(study, NULL, NULL, 0, &plain, err) != 0)
        return -1;
    json_t *root = json_study(study, &plain), *layers = json_object_get(root, "layers");
    int result = 0;
    if (!study->settings->json)
        print_head(study, &plain);
    for (size_t i = 0; i < document->layer_count && result == 0; i++) {
        const struct layer *layer = &document->layers[i];
        json_t *experts = json_array();
        json_array_append_new(layers, json_pack("{s:O, s:I, s:o}", "name",
                                                json_object_get(layer->json, "name"), "top_k",
                                                (json_int_t)layer->top_k, "experts", experts));
        if (!study->settings->json)
            print_layer(layer);
        for (size_t e = 0; result == 0 && e < layer->expert_count; e++)
            result = study_expert(study, &plain, layer, e, experts, err);
    }
    if (result == 0 && study->settings->json) {
        print_json(stdout, root, JSON_COMPACT);
    }
    json_decref(root);
    outcome_close(&plain);
    return result;
}

/* ---- what is studied ---- */

/* The first output of one number for each of 2 to MAX_CLASSES classes, as labels are about. */
static int find_output(struct study *study, struct moed_client_error *err)
{
    for (size_t i = 0; !study->output && i < study->model->output_count; i++) {
        const struct moed_client_tensor *output = &study->model->outputs[i];
        if (output->datatype == MOED_CLIENT_FP32 && output->rank == 2 && output->dims[1] >= 2 &&
            output->dims[1] <= MAX_CLASSES && strncmp(output->name, "routing.", 8) != 0)
            study->output = output;
    }
    if (!study->output)
        return fail_with(err,
                         "model '%.64s' has no output of one number for each of 2 to %d classes; a "
                         "language model scores texts at /v1/completions (echo, logprobs, "
                         "max_tokens 0), with an expert in quarantine and without",
                         study->model->name, MAX_CLASSES);
    study->classes = (size_t)study->output->dims[1];
    return 0;
}

static int64_t label_at(const struct array *array, size_t row)
{
    switch (array->datatype) {
    case MOED_CLIENT_INT64:
    case MOED_CLIENT_UINT64:
        return ((const int64_t *)array->data)[row];
    case MOED_CLIENT_INT32:
    case MOED_CLIENT_UINT32:
        return ((const int32_t *)array->data)[row];
    case MOED_CLIENT_UINT8:
        return ((const uint8_t *)array->data)[row];
    case MOED_CLIENT_INT8:
        return ((const int8_t *)array->data)[row];
    default:
        return -1;
    }
}

/* The array "labels": the class of each row, by index. */
static int read_labels(struct study *study, struct moed_client_error *err)
{
    const struct array *array = NULL;
    for (size_t i = 0; i < study->inputs.arrays.count; i++)
        if (strcmp(study->inputs.arrays.list[i].name, "labels") == 0)
            array = &study->inputs.arrays.list[i];
    if (!array || array->rank != 1 || (size_t)array->dims[0] != study->inputs.rows)
        return fail_with(err, "expected an array 'labels' of integers, one for each of %zu row%s",
                         study->inputs.rows, ending(study->inputs.rows));
    study->labels = xcalloc(study->inputs.rows, sizeof *study->labels);
    study->answered = xcalloc(study->inputs.rows, sizeof *study->answered);
    study->members = xcalloc(study->classes, sizeof *study->members);
    for (size_t i = 0; i < study->inputs.rows; i++) {
        study->labels[i] = label_at(array, i);
        if (study->labels[i] < 0 || (size_t)study->labels[i] >= study->classes)
            return fail_with(err, "labels[%zu] is no class: expected an integer from 0 to %zu", i,
                             study->classes - 1);
        study->members[study->labels[i]]++;
    }
    return 0;
}

static void study_close(struct study *study)
{
    free(study->labels);
    free(study->answered);
    free(study->members);
    inputs_close(&study->inputs);
    moed_client_model_free(study->model);
    moed_client_free(study->client);
}

int run_ablate(const struct settings *settings, struct moed_client_error *err)
{
    struct settings own = *settings;
    struct study study = {.settings = &own};
    const char *model = settings->operands[0], *path = settings->operands[1];
    own.uncounted = true;
    study.client = connect_client(&own, err);
    if (study.client)
        study.model = moed_client_model(study.client, model, settings->version, err);
    struct document *document =
        study.model ? document_of_model(&own, study.client, model, NULL, err) : NULL;
    int result = -1;
    if (document && document_keep_layer(document, settings->layer, err) == 0 &&
        find_output(&study, err) == 0 && inputs_read(&study.inputs, study.model, path, err) == 0 &&
        read_labels(&study, err) == 0)
        result = study_all(&study, document, err);
    document_free(document);
    study_close(&study);
    return result;
}
