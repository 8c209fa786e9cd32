/* Rows of different length: whatever padding holds, every answer and every decision is the same to
 * the bit, and so are the statistics; a row without entries is one too. */
#include "core/gate_counts.h"
#include "support.h"

enum { ROWS = 7, ENTRIES = 5, SIZE = 2, EXPERTS = 3 };

static const char config[] =
    "{'model_type':'moed','format_version':3,'inputs':["
    "{'name':'x','shape':[5,2],'length':'n'},{'name':'n','shape':[1],'categories':6}],'layers':["
    "{'op':'residual','layers':[{'op':'attention','name':'a','heads':1,'rotary':{}}]},"
    "{'op':'residual','layers':[{'op':'moe','name':'m','route':'positions','gate':{'top_k':2,"
    "'layers':[{'op':'linear','name':'out'}],'capacity':{'factor':1.5,'order':'score'}},"
    "'experts':{'count':3,'layers':[{'op':'linear','name':'fc'},{'op':'tanh'}]}}]}],"
    "'outputs':[{'name':'states'},{'name':'mean','layers':[{'op':'mean','axis':0}]},"
    "{'name':'last','layers':[{'op':'select','index':'last'}]}]}";

static const struct stored tensors[] = {
    STORED("a.in_proj_weight", DIMS(6, 2), 1, -1, 0.5f, 2, -1, 1, 0, 1, 1, 0, -0.5f, 1),
    STORED("a.out_proj.weight", DIMS(2, 2), 1, 0.5f, -0.5f, 1),
    STORED("m.gate.out.weight", DIMS(3, 2), 1, 0, 0, 1, -1, -1),
    STORED("m.experts.0.fc.weight", DIMS(2, 2), 1, 0, 0, 1),
    STORED("m.experts.1.fc.weight", DIMS(2, 2), 0, 1, 1, 0),
    STORED("m.experts.2.fc.weight", DIMS(2, 2), 1, 1, -1, 1)};

static const int32_t lengths[ROWS] = {5, 0, 3, 1, 4, 2, 5};

struct answer {
    float states[ROWS][ENTRIES][SIZE], mean[ROWS][SIZE], last[ROWS][SIZE];
    int32_t experts[ROWS * ENTRIES * 2];
    uint64_t items, dropped;
};

static void run(const struct moed_model *model, unsigned threads, const float *x,
                struct answer *answer)
{
    struct error err = ERROR_INIT;
    struct moed_scratch *scratch = new_scratch(model, ROWS, threads, &err);
    struct moed_team *team = threads > 1 ? moed_team_new(threads) : NULL;
    if (team)
        team_fork_from(team, 0);
    void *const inputs[] = {(void *)x, (void *)lengths};
    float *const outputs[] = {answer->states[0][0], answer->mean[0], answer->last[0]};
    memset(answer, 0xff, sizeof *answer);
    forward(model, scratch, team, ROWS, inputs, outputs);
    const struct moed_routing *routing = moed_routing(scratch, 0);
    memcpy(answer->experts, routing->expert, sizeof answer->experts);
    struct moed_gate_counts *counts = moed_gate_counts_new(EXPERTS);
    moed_gate_counts_count(counts, routing, 0, routing->items, 0);
    answer->items = counts->items;
    answer->dropped = 0;
    for (size_t e = 0; e < EXPERTS; e++)
        answer->dropped += counts->expert[e].dropped;
    moed_gate_counts_free(counts);
    moed_team_free(team);
    moed_scratch_free(scratch);
}

/* Padding holds `filler`. */
static void fill(float x[ROWS][ENTRIES][SIZE], float filler)
{
    for (size_t row = 0; row < ROWS; row++)
        for (size_t entry = 0; entry < ENTRIES; entry++)
            for (size_t i = 0; i < SIZE; i++)
                x[row][entry][i] = entry < (size_t)lengths[row]
                                       ? (float)((row * 7 + entry * 3 + i * 5) % 11) / 4 - 1
                                       : filler;
}

START_TEST(padding_changes_nothing)
{
    static const float fillers[] = {0, 1, -3e38f, 1e-40f, 12345, NAN, INFINITY};
    struct moed_model *model = load_model(config, tensors, sizeof tensors / sizeof *tensors);
    ck_assert_str_eq(moed_model_info(model)->inputs[0].length, "n");
    ck_assert_ptr_null(moed_model_info(model)->inputs[1].length);
    float x[ROWS][ENTRIES][SIZE];
    struct answer first, answer;
    fill(x, 0);
    run(model, 1, x[0][0], &first);
    ck_assert_uint_eq(first.items, 20);
    ck_assert_uint_gt(first.dropped, 0);
    for (size_t i = 0; i < sizeof fillers / sizeof *fillers; i++)
        for (unsigned threads = 1; threads <= 3; threads++) {
            fill(x, fillers[i]);
            run(model, threads, x[0][0], &answer);
            ck_assert_mem_eq(&answer, &first, sizeof first);
        }
    moed_model_free(model);
}
END_TEST

START_TEST(padding_gives_nothing)
{
    struct moed_model *model = load_model(config, tensors, sizeof tensors / sizeof *tensors);
    float x[ROWS][ENTRIES][SIZE];
    struct answer answer;
    fill(x, 7);
    run(model, 1, x[0][0], &answer);
    for (size_t row = 0; row < ROWS; row++)
        for (size_t entry = (size_t)lengths[row]; entry < ENTRIES; entry++) {
            ck_assert(answer.states[row][entry][0] == 0 && answer.states[row][entry][1] == 0);
            const int32_t *experts = answer.experts + (row * ENTRIES + entry) * 2;
            ck_assert(experts[0] == -1 && experts[1] == -1);
        }
    ck_assert(answer.mean[1][0] == 0 && answer.last[1][1] == 0); /* without entries */
    ck_assert_mem_eq(answer.last[3], answer.states[3][0], sizeof answer.last[3]);
    ck_assert_mem_eq(answer.mean[3], answer.states[3][0], sizeof answer.mean[3]);
    ck_assert_mem_eq(answer.last[0], answer.states[0][4], sizeof answer.last[0]);
    moed_model_free(model);
}
END_TEST

TEST_MAIN("lengths", padding_changes_nothing, padding_gives_nothing)
