/* The lane of sequences with a small causal model: what a sequence says is the same alone, in
 * chunks and beside others; what waits, what is refused, and what is freed when one is given up. */
#include "sequences_fixture.h"

/* ---- what a sequence says ---- */

/* Token by token, without a lane. */
static void generate(const struct asked *one, int32_t *tokens)
{
    const struct sequence *sequence = &one->sequence;
    struct error err = ERROR_INIT;
    struct moed_scratch *scratch = new_scratch(model->engine, 1, 1, NULL);
    struct sampler_scratch *sampler = sampler_scratch_new(TOKENS, &err);
    struct sampler_history *history = sampler_history_new(sequence->limit, &err);
    struct moed_pages *pages =
        moed_pages_new(model->engine, &(struct moed_room){.positions = sequence->limit}, &err);
    struct moed_session *session = moed_session_new(pages);
    ck_assert_int_eq(moed_session_reserve(session, sequence->limit), 0);
    memcpy(tokens, sequence->tokens, sequence->prompt * sizeof *tokens);
    for (size_t i = 0; i < sequence->prompt; i++)
        sampler_history_prompt(history, tokens[i]);
    for (size_t i = 0; i + 1 < sequence->limit; i++) {
        float logits[TOKENS];
        const void *inputs[] = {&tokens[i]};
        float *outputs[] = {logits};
        const struct moed_span span = {.rows = 1, .position = i, .session = session};
        struct sampler_choice choice;
        moed_forward(model->engine, scratch, NULL,
                     &(struct moed_batch){
                         .spans = &span, .span_count = 1, .inputs = inputs, .outputs = outputs});
        if (i + 1 < sequence->prompt)
            continue;
        const struct sampler_step chosen = {.options = &sequence->sampling,
                                            .history = history,
                                            .logits = logits,
                                            .position = i + 1};
        ck_assert_int_eq(sampler_choose(&chosen, sampler, &choice, &err), 0);
        tokens[i + 1] = choice.token;
        sampler_history_answer(history, choice.token);
    }
    moed_session_free(session);
    moed_pages_free(pages);
    sampler_history_free(history);
    sampler_scratch_free(sampler);
    moed_scratch_free(scratch);
}

static void expect_said(const struct asked *one)
{
    const struct sequence *sequence = &one->sequence;
    int32_t *expected = xcalloc(sequence->limit, sizeof *expected);
    generate(one, expected);
    ck_assert(one->ended);
    ck_assert_int_eq(sequence->error.code, ERROR_NONE);
    ck_assert_uint_eq(sequence->count, sequence->limit);
    ck_assert_mem_eq(sequence->tokens, expected, sequence->limit * sizeof *expected);
    free(expected);
}

START_TEST(a_sequence_is_what_steps_alone_give)
{
    start(4, 8, CONTEXT_POSITIONS);
    ask(1, 20, 1);
    ask(30, 9, 2); /* a prompt of several chunks */
    run_until(2);
    expect_said(&asked[0]);
    expect_said(&asked[1]);
}
END_TEST

/* On the loop's thread, and on the compute thread with a team. */
START_TEST(neighbours_change_nothing)
{
    start(5, 9, CONTEXT_POSITIONS);
    lane->row_cost = model->cost_per_row = _i ? 100 * 1000 * 1000 : 1;
    for (uint32_t i = 0; i < 16; i++)
        ask(1 + 5 * i % 37, 1 + 7 * i % 23, i);
    run_until(16);
    for (size_t i = 0; i < 16; i++)
        expect_said(&asked[i]);
}
END_TEST

START_TEST(a_long_prompt_stops_no_tokens)
{
    start(4, 8, CONTEXT_POSITIONS);
    struct asked *talker = ask(1, 100, 5);
    step();
    ask(300, 1, 6);
    for (size_t i = 2; i < 30; i++) {
        step();
        ck_assert_uint_eq(talker->tokens, i);
        ck_assert_uint_le(lane->step.rows, 8);
    }
    run_until(2);
    expect_said(talker);
}
END_TEST

START_TEST(a_short_prompt_overtakes_a_long_one)
{
    start(4, 8, CONTEXT_POSITIONS);
    struct asked *slow = ask(200, 1, 5), *quick = ask(6, 1, 6);
    for (int i = 0; i < 3; i++)
        step();
    ck_assert(quick->ended);
    ck_assert(!slow->ended);
    run_until(2);
}
END_TEST

START_TEST(the_owner_says_what_the_last_token_is)
{
    start(4, 8, CONTEXT_POSITIONS);
    ask(3, 50, 5)->last_after = 7;
    run_until(1);
    ck_assert_uint_eq(asked[0].sequence.count, 10);
    ck_assert_int_eq(asked[0].sequence.error.code, ERROR_NONE);
}
END_TEST

/* ---- scores and routing ---- */

START_TEST(a_prompt_is_scored_without_an_answer)
{
    start(4, 8, CONTEXT_POSITIONS);
    struct asked *scored = prepare(100, 0, 5), *said = prepare(60, 4, 6);
    scored->sequence.scores_prompt = said->sequence.scores = true;
    scored->sequence.top = said->sequence.top = 3;
    submit(scored);
    submit(said);
    run_until(2);
    ck_assert_uint_eq(scored->tokens, 0);
    ck_assert_uint_eq(scored->sequence.rows, 100);
    for (size_t i = 1; i < 100; i++) {
        const struct sampler_choice *choice = &scored->sequence.choices[i];
        ck_assert_int_eq(choice->token, scored->sequence.tokens[i]);
        ck_assert(choice->logprob < 0 && choice->logprob <= choice->top[0].logprob);
        ck_assert_uint_eq(choice->top_count, 3);
    }
    for (size_t i = 60; i < 64; i++)
        ck_assert_int_eq(said->sequence.choices[i].token, said->sequence.tokens[i]);
    expect_said(said);
}
END_TEST

START_TEST(routing_is_kept_for_every_row)
{
    start(4, 8, CONTEXT_POSITIONS);
    struct asked *alone = prepare(20, 10, 5), *beside = prepare(20, 10, 5);
    alone->sequence.keeps_routing = beside->sequence.keeps_routing = true;
    submit(alone);
    run_until(1);
    ask(30, 30, 8);
    submit(beside);
    run_until(3);
    ck_assert_uint_eq(beside->sequence.rows, 29); /* all but the last token's */
    for (size_t gate = 0; gate < GATES; gate++) {
        const struct sequence_routing *a = &alone->sequence.routing[gate];
        const struct sequence_routing *b = &beside->sequence.routing[gate];
        ck_assert_mem_eq(a->experts, b->experts, 29 * TOP_K * sizeof *a->experts);
        ck_assert_mem_eq(a->weights, b->weights, 29 * TOP_K * sizeof *a->weights);
        ck_assert(b->weights[28 * TOP_K] > 0);
    }
}
END_TEST

/* ---- what waits and what is refused ---- */

START_TEST(what_has_no_room_waits_its_turn)
{
    start(4, 8, 64);
    struct asked *first = ask(10, 30, 1), *second = ask(10, 20, 2), *third = ask(1, 1, 3);
    step();
    ck_assert_uint_eq(lane->running_count, 1);
    ck_assert_uint_eq(moed_pages_used(lane->pages), 2);
    ck_assert_uint_eq(lane->waiting_count, 2); /* the third would fit in no page either */
    run_until(3);
    ck_assert(first->ended && second->ended && third->ended);
    expect_said(second);
    const struct sequence_gauges *gauges = &model->stats->loop[0].sequences.gauges;
    ck_assert_uint_eq(gauges->running + gauges->waiting + gauges->pages_used, 0);
    ck_assert_uint_eq(gauges->pages, 2);
}
END_TEST

START_TEST(what_lacks_memory_waits_for_nobody)
{
    start(4, 8, 64);
    /* Takes all pages, unknown to the lane. */
    struct moed_session *greedy = moed_session_new(lane->pages);
    ck_assert_int_eq(moed_session_reserve(greedy, 64), 0);
    struct asked *first = ask(10, 20, 1), *second = ask(10, 20, 2);
    step();
    ck_assert(first->ended && second->ended);
    ck_assert_int_eq(first->sequence.error.code, ERROR_UNAVAILABLE);
    expect_text(first->sequence.error.text, "no memory for a sequence of 30 tokens");
    moed_session_free(greedy);
    struct asked *third = ask(10, 20, 3);
    run_until(3);
    expect_said(third);
}
END_TEST

START_TEST(what_never_fits_is_refused)
{
    start(4, 8, 64);
    refuse(prepare(60, 5, 1), ERROR_CONTEXT,
           "60 tokens of prompt and at most 5 more exceed the 64");
    refuse(prepare(1, 64, 1), ERROR_CONTEXT, "1 token of prompt and at most 64 more exceed the 64");
    refuse(prepare(60, 5000, 1), ERROR_CONTEXT, "exceed the model's context of ");
}
END_TEST

START_TEST(a_full_queue_refuses)
{
    start(1, 8, CONTEXT_POSITIONS);
    ask(1000, 1, 1); /* alone it may be longer than the queue */
    step();
    ask(500, 1, 2);
    refuse(prepare(1, 1, 3), ERROR_OVERLOADED, "500 tokens in it, 1 more would exceed");
    run_until(2);
    ask(1, 1, 4);
    run_until(3);
}
END_TEST

/* Ten of one request, and one that comes last: it is the second to run. */
START_TEST(requests_take_turns)
{
    start(1, 8, CONTEXT_POSITIONS);
    for (uint32_t i = 0; i < 10; i++) {
        struct asked *one = prepare(2, 2, i);
        one->sequence.place = i;
        submit(one);
    }
    step();
    struct asked *last = ask(2, 2, 10);
    run_until(2);
    ck_assert(asked[0].ended && last->ended);
    run_until(11);
}
END_TEST

static struct asked *ask_with(enum job_priority priority)
{
    struct asked *one = prepare(2, priority == PRIORITY_HIGH ? 1 : 20, 1);
    one->sequence.priority = priority;
    submit(one);
    return one;
}

START_TEST(a_higher_priority_goes_before)
{
    start(1, 8, CONTEXT_POSITIONS);
    ask(2, 8, 1);
    step(); /* it runs */
    const struct asked *low = ask_with(PRIORITY_LOW), *normal = ask_with(PRIORITY_NORMAL),
                       *high = ask_with(PRIORITY_HIGH), *later = ask_with(PRIORITY_HIGH);
    run_until(3);
    ck_assert(high->ended && later->ended && !normal->ended);
    run_until(4);
    ck_assert(normal->ended && !low->ended);
    run_until(5);
}
END_TEST

START_TEST(a_low_priority_runs_in_the_end)
{
    start(1, 8, CONTEXT_POSITIONS);
    ask(2, 8, 1);
    step();
    const struct asked *low = ask_with(PRIORITY_LOW);
    for (int i = 0; i < 20; i++)
        ask_with(PRIORITY_HIGH);
    run_until(18); /* that which ran, 16 that pass, and this one */
    ck_assert(low->ended);
    run_until(22);
}
END_TEST

START_TEST(many_prompts_leave_half_of_the_queue)
{
    struct error err = ERROR_INIT;
    start(1, 8, CONTEXT_POSITIONS);
    ck_assert_uint_eq(sequences_queued(lane, 1, 1000), 1000);
    ck_assert_uint_eq(sequences_queued(lane, 2, 199), 199);
    ck_assert_uint_eq(sequences_queued(lane, 2, 1000), 200); /* of 400 */
    ck_assert_int_eq(sequences_check_room(lane, 1000, 64 * 400, &err), 0);
    ck_assert_int_eq(sequences_check_room(lane, 1000, 65 * 400, &err), -1);
    ck_assert_int_eq(err.code, ERROR_TOO_LARGE);
    expect_text(err.text, "the 1000 prompts have 26000 tokens, more than 64 times the 400");
}
END_TEST

/* ---- giving up ---- */

START_TEST(one_that_is_given_up_frees_its_pages)
{
    start(2, 8, CONTEXT_POSITIONS);
    struct asked *first = ask(5, 100, 1), *second = ask(5, 30, 2), *waits = ask(5, 5, 3);
    step();
    step();
    sequences_cancel(lane, &waits->sequence);
    ck_assert(waits->ended);
    sequences_cancel(lane, &first->sequence);
    ck_assert(first->ended);
    ck_assert_uint_eq(moed_pages_used(lane->pages), 2); /* of the other one */
    run_until(3);
    expect_said(second);
}
END_TEST

START_TEST(one_that_is_being_computed_ends_with_the_step)
{
    start(2, 8, CONTEXT_POSITIONS);
    struct asked *first = ask(5, 100, 1), *second = ask(5, 30, 2);
    first->cancel_after = 3, first->whom = second; /* while the other's token is not delivered */
    second->cancel_after = 1, second->whom = second;
    lane->lane.busy = true;
    lane->lane.kind->begin(&lane->lane, 0);
    sequences_cancel(lane, &first->sequence);
    ck_assert(!first->ended);
    lane->lane.kind->run(&lane->lane, NULL);
    lane->lane.busy = false;
    lane->lane.kind->finish(&lane->lane, 1000);
    ck_assert(first->ended);
    ck_assert_uint_eq(first->tokens, 0);
    run_until(2);
    ck_assert_uint_eq(second->tokens, 1);
}
END_TEST

START_TEST(neighbours_may_be_given_up_within_a_token)
{
    start(3, 12, CONTEXT_POSITIONS);
    struct asked *first = ask(2, 100, 1), *second = ask(2, 100, 2), *third = ask(2, 100, 3);
    second->cancel_after = 5, second->whom = first; /* delivered before */
    third->cancel_after = 6, third->whom = third;
    second->last_after = 9;
    run_until(3);
    ck_assert_uint_eq(first->tokens, 5);
    ck_assert_int_eq(first->sequence.error.code, ERROR_DISCONNECTED);
    ck_assert_uint_eq(second->tokens, 9);
    ck_assert_uint_eq(third->tokens, 6);
}
END_TEST

/* ---- slow readers ---- */

START_TEST(a_paused_sequence_waits_alone)
{
    start(2, 8, CONTEXT_POSITIONS);
    struct asked *slow = ask(2, 40, 1), *quick = ask(2, 40, 2);
    step();
    sequences_pause(&slow->sequence);
    run_until(1);
    ck_assert(quick->ended);
    ck_assert_uint_eq(slow->tokens, 1);
    sequences_resume(lane, &slow->sequence);
    run_until(2);
    expect_said(slow);
}
END_TEST

/* ---- statistics ---- */

START_TEST(tokens_are_counted_by_phase)
{
    start(4, 8, CONTEXT_POSITIONS);
    ask(20, 5, 1);
    struct asked *uncounted = prepare(7, 3, 2);
    uncounted->sequence.counted = false;
    submit(uncounted);
    run_until(2);
    struct stats total;
    stats_snapshot(model->stats, model->info, &total);
    ck_assert_uint_eq(total.sequences.tokens[PHASE_PROMPT], 27);
    ck_assert_uint_eq(total.sequences.tokens[PHASE_GENERATED], 8);
    ck_assert_uint_eq(total.rows, 24 + 9);
    ck_assert_uint_eq(total.routing[0]->rows, 24);
    uint64_t of_prompts = 0;
    for (size_t i = 0; i < EXPERTS; i++)
        of_prompts += total.sequences.prompt_selected[i];
    ck_assert_uint_eq(of_prompts, 20 * TOP_K);
    stats_close(&total);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("sequences");
    tcase_add_checked_fixture(tests, begin, end);
    tcase_add_test(tests, a_sequence_is_what_steps_alone_give);
    tcase_add_loop_test(tests, neighbours_change_nothing, 0, 2);
    tcase_add_test(tests, a_long_prompt_stops_no_tokens);
    tcase_add_test(tests, a_short_prompt_overtakes_a_long_one);
    tcase_add_test(tests, the_owner_says_what_the_last_token_is);
    tcase_add_test(tests, a_prompt_is_scored_without_an_answer);
    tcase_add_test(tests, routing_is_kept_for_every_row);
    tcase_add_test(tests, what_has_no_room_waits_its_turn);
    tcase_add_test(tests, what_lacks_memory_waits_for_nobody);
    tcase_add_test(tests, what_never_fits_is_refused);
    tcase_add_test(tests, a_full_queue_refuses);
    tcase_add_test(tests, requests_take_turns);
    tcase_add_test(tests, a_higher_priority_goes_before);
    tcase_add_test(tests, a_low_priority_runs_in_the_end);
    tcase_add_test(tests, many_prompts_leave_half_of_the_queue);
    tcase_add_test(tests, one_that_is_given_up_frees_its_pages);
    tcase_add_test(tests, one_that_is_being_computed_ends_with_the_step);
    tcase_add_test(tests, neighbours_may_be_given_up_within_a_token);
    tcase_add_test(tests, a_paused_sequence_waits_alone);
    tcase_add_test(tests, tokens_are_counted_by_phase);
    tcase_set_timeout(tests, TEST_SECONDS);
    return run_suite("sequences", tests);
}
