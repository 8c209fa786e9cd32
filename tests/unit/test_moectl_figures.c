/* Figures of routing documents: what follows from counts, distances, and what is chance. Expected
 * values of the distributions are scipy's. */
#include <string.h>

#include "clients/c/moectl/document.h"
#include "clients/c/moectl/figures.h"
#include "support.h"

static void close_to(double value, double expected)
{
    ck_assert_msg(fabs(value - expected) <= 1e-9 * fmax(1, fabs(expected)), "%.17g, expected %.17g",
                  value, expected);
}

static struct document *read(const char *text)
{
    struct moed_client_error err = {0};
    struct document *document = document_read(text, strlen(text), "test", &err);
    ck_assert_msg(document != NULL, "%s", err.text);
    return document;
}

static void refused(const char *text, const char *part)
{
    struct moed_client_error err = {0};
    ck_assert_ptr_null(document_read(text, strlen(text), "test", &err));
    ck_assert_msg(strstr(err.text, part) != NULL, "%s", err.text);
}

START_TEST(figures_follow_from_counts)
{
    struct document *document =
        read("{\"model\": \"m\", \"version\": \"1\", \"layers\": [{\"name\": \"moe\", \"rows\": 8, "
             "\"top_k\": 2, \"experts\": [{\"index\": 0, \"selected\": 8, \"weight\": 6}, "
             "{\"index\": 1, \"selected\": 6, \"weight\": -2}, {\"index\": 2, \"selected\": 2, "
             "\"weight\": 0}, {\"index\": 3, \"selected\": 0, \"weight\": 0}]}]}");
    const struct layer *layer = &document->layers[0];
    close_to(layer->experts[0].share, 0.5);
    close_to(layer->experts[1].weight_share, 0.25);
    close_to(layer->imbalance, 2);
    close_to(layer->weight_imbalance, 3);
    close_to(layer->balancedness, 0.5);
    close_to(layer->cv, sqrt((0.0625 + 0.015625 + 0.015625 + 0.0625) / 4) / 0.25);
    close_to(layer->jain, 1 / (4 * (0.25 + 0.140625 + 0.015625)));
    close_to(layer->effective_experts, exp2(-0.75 * log2(0.75) - 0.25 * log2(0.25)));
    ck_assert_uint_eq(layer->unused, 1);
    ck_assert(!layer->dense && isnan(layer->gate_entropy_bits));
    ck_assert_str_eq(document->window, "all");
    document_free(document);
}
END_TEST

/* A sum of weights of both signs says nothing of who had how much. */
START_TEST(weight_shares_are_those_of_the_document)
{
    struct document *document = read(
        "{\"layers\": [{\"name\": \"moe\", \"rows\": 8, \"top_k\": 2, \"experts\": [{\"index\": 0, "
        "\"selected\": 8, \"weight\": 0, \"weight_share\": 0.75}, {\"index\": 1, \"selected\": 8, "
        "\"weight\": 9, \"weight_share\": 0.25}]}]}");
    const struct layer *layer = &document->layers[0];
    close_to(expert_load(layer, &layer->experts[0]), 0.75);
    close_to(layer->weight_imbalance, 1.5);
    document_free(document);
}
END_TEST

START_TEST(a_layer_without_rows_has_no_figures)
{
    struct document *document = read("{\"layers\": [{\"name\": \"moe\", \"rows\": 0, \"top_k\": 1, "
                                     "\"experts\": [{\"index\": 0, \"selected\": 0}]}]}");
    const struct layer *layer = &document->layers[0];
    close_to(layer->imbalance, 0);
    close_to(layer->jain, 0);
    ck_assert(isnan(layer->weight_imbalance) && isnan(layer->experts[0].weight_share));
    document_free(document);
}
END_TEST

START_TEST(what_is_no_document_is_refused)
{
    refused("", "line 1");
    refused("[]", "layers");
    refused("{\"format\": 2, \"layers\": []}", "'format' is 2, and this moectl reads 1");
    refused("{\"format\": \"1\", \"layers\": []}", "'format'");
    refused("{\"layers\": [{}]}", "layers[0]: there is no 'name'");
    refused("{\"layers\": [{\"name\": \"a\", \"rows\": -1}]}", "'rows' is not a count");
    refused("{\"layers\": [{\"name\": \"a\", \"rows\": 1.5}]}", "'rows' is not a count");
    refused("{\"layers\": [{\"name\": \"a\", \"rows\": 1, \"top_k\": 1, \"experts\": []}]}",
            "'experts'");
    refused("{\"layers\": [{\"name\": \"a\", \"rows\": 1, \"top_k\": 0, \"experts\": [{\"index\": "
            "0, \"selected\": 1}]}]}",
            "'top_k'");
    refused("{\"layers\": [{\"name\": \"a\", \"rows\": 1, \"top_k\": 1, \"experts\": [{\"index\": "
            "0}]}]}",
            "experts[0]: there is no 'selected'");
}
END_TEST

START_TEST(names_cannot_command_a_terminal)
{
    struct document *document = read(
        "{\"model\": \"a\\u001b[2Jb\\u0085\", \"layers\": [{\"name\": \"\\u0007\", \"rows\": 0, "
        "\"top_k\": 1, \"experts\": [{\"index\": 0, \"selected\": 0}]}]}");
    ck_assert_str_eq(document->model, "a?[2Jb?");
    ck_assert_str_eq(document->layers[0].name, "?");
    document_free(document);
}
END_TEST

START_TEST(distances)
{
    const double p[] = {0.5, 0.3, 0.2, 0}, q[] = {0.25, 0.25, 0.25, 0.25}, r[] = {0, 0, 0, 1};
    close_to(divergence_bits(p, p, 4), 0);
    close_to(divergence_bits(p, r, 4), 1);
    close_to(divergence_bits(p, q, 4), divergence_bits(q, p, 4));
    close_to(divergence_bits(p, q, 4), 0.15928864060980352);
    close_to(stability_index(p, 1000, p, 1000, 4), 0);
    close_to(stability_index(p, 1000, q, 500, 4), 1.7439325051798773);
}
END_TEST

START_TEST(chance)
{
    close_to(chi_square_tail(3.841458820694124, 1), 0.05);
    close_to(chi_square_tail(0.5, 10), 0.999993388289439);
    close_to(chi_square_tail(100, 10), 5.4497019829205215e-17);
    close_to(chi_square_tail(30, 25), 0.22428900483440342);
    close_to(chi_square_tail(0, 3), 1);
    const double a[] = {30, 50, 20, 0}, b[] = {45, 40, 15, 0}, none[] = {0, 0, 0, 0};
    close_to(same_probability(a, b, 4, 1), 0.08845728241986568);
    close_to(same_probability(a, none, 4, 1), 1);
    ck_assert_double_gt(same_probability(a, b, 4, 2), same_probability(a, b, 4, 1));
    char text[CHANCE_BYTES];
    ck_assert_str_eq(chance_text(0, text), "< 1e-300");
    ck_assert_str_eq(chance_text(3.25e-250, text), "3.2e-250");
    ck_assert_str_eq(chance_text(0.5, text), "0.5");
}
END_TEST

TEST_MAIN("moectl figures", figures_follow_from_counts, weight_shares_are_those_of_the_document,
          a_layer_without_rows_has_no_figures, what_is_no_document_is_refused,
          names_cannot_command_a_terminal, distances, chance)
