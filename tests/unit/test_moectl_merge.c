/* Adding routing documents: what adds up, what is a mean, what cannot be had from two. */
#include <string.h>

#include "clients/c/moectl/merge.h"
#include "support.h"

/* JSON with ' for ". */
static json_t *json_of(const char *text)
{
    char *copy = xstrdup(text);
    for (char *at = copy; *at; at++)
        *at = *at == '\'' ? '"' : *at;
    json_t *json = json_loads(copy, JSON_DECODE_ANY, NULL);
    ck_assert_msg(json != NULL, "%s", copy);
    free(copy);
    return json;
}

static const char FIRST[] =
    "{'model': 'm', 'version': '1', 'window': '5m', 'seconds': 300.5, 'rows': 4, 'tags': ['a'], "
    "'layers': [{'name': 'moe', 'rows': 4, 'top_k': 2, 'gate_entropy_bits': 1.0, 'margin': 0.5, "
    "'dying': [1], 'drift': {'previous': null}, 'experts': [{'index': 0, 'selected': 5, 'top1': 4, "
    "'weight': 3.0, 'probability': 3.0, 'idle_seconds': 2.0, 'labelled': 1, 'accuracy': 1.0, "
    "'ece': "
    "0.1, 'ranks': [4, 1]}, {'index': 2, 'selected': 3, 'top1': 0, 'weight': 1.0, 'probability': "
    "1.0, 'idle_seconds': null, 'labelled': 0, 'accuracy': null, 'ranks': [0, 3]}], 'pairs': [[0, "
    "2, 3]], 'classes': {'labels': ['x', 'y'], 'counts': [[4, 0], [0, 0]], 'mi_bits': 0.0}}]}";

static const char SECOND[] =
    "{'model': 'm', 'version': '1', 'window': '5m', 'seconds': 290.0, 'rows': 12, 'tags': ['b', "
    "'a'], 'layers': [{'name': 'moe', 'rows': 12, 'top_k': 2, 'gate_entropy_bits': 0.0, 'margin': "
    "0.5, 'dying': [], 'experts': [{'index': 0, 'selected': 12, 'top1': 8, 'weight': 6.0, "
    "'probability': 6.0, 'idle_seconds': 9.0, 'labelled': 3, 'accuracy': 0.0, 'ece': 0.2, 'ranks': "
    "[8, 4]}, {'index': 2, 'selected': 12, 'top1': 4, 'weight': -6.0, 'probability': 6.0, "
    "'idle_seconds': 1.0, 'labelled': 2, 'accuracy': 0.5, 'ranks': [4, 8]}], 'pairs': [[0, 2, 9], "
    "[0, 5, 1]], 'classes': {'labels': ['x', 'y'], 'counts': [[4, 0], [0, 8]], 'mi_bits': 0.9}}]}";

static json_t *merged_of(const char *a, const char *b)
{
    struct moed_client_error err = {0};
    json_t *into = json_of(a), *from = json_of(b);
    ck_assert_msg(merge_add(into, from, &err) == 0, "%s", err.text);
    ck_assert_msg(merge_finish(into, 2, &err) == 0, "%s", err.text);
    json_decref(from);
    return into;
}

static double number(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    ck_assert_msg(json_is_number(value), "no %s", key);
    return json_number_value(value);
}

static void equal(json_t *object, const char *key, const char *expected)
{
    json_t *wanted = json_of(expected);
    char *text = json_dumps(json_object_get(object, key), JSON_ENCODE_ANY);
    ck_assert_msg(json_equal(json_object_get(object, key), wanted), "%s is %s", key, text);
    free(text);
    json_decref(wanted);
}

START_TEST(counts_add_up_and_means_are_weighted)
{
    json_t *merged = merged_of(FIRST, SECOND);
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    json_t *expert = json_array_get(json_object_get(layer, "experts"), 0);
    ck_assert(number(merged, "rows") == 16 && number(merged, "seconds") == 300.5);
    equal(merged, "tags", "['a', 'b']");
    ck_assert(number(layer, "rows") == 16);
    ck_assert(number(layer, "gate_entropy_bits") == 0.25 && number(layer, "margin") == 0.5);
    ck_assert(number(expert, "selected") == 17 && number(expert, "top1") == 12);
    ck_assert(number(expert, "weight") == 9 && number(expert, "idle_seconds") == 2);
    ck_assert(number(expert, "labelled") == 4 && number(expert, "accuracy") == 0.25);
    equal(expert, "ranks", "[12, 5]");
    equal(layer, "pairs", "[[0, 2, 12], [0, 5, 1]]");
    json_decref(merged);
}
END_TEST

START_TEST(figures_follow_from_the_sums)
{
    json_t *merged = merged_of(FIRST, SECOND);
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    json_t *expert = json_array_get(json_object_get(layer, "experts"), 1);
    json_t *classes = json_object_get(layer, "classes");
    ck_assert(number(expert, "share") == 15.0 / 32 && number(expert, "accuracy") == 0.5);
    ck_assert(number(expert, "weight_share") == 5.0 / 14);
    ck_assert(number(layer, "imbalance") == 17.0 / 16 && number(layer, "unused") == 0);
    ck_assert(fabs(number(layer, "usage_entropy_bits") -
                   -(9.0 / 16 * log2(9.0 / 16) + 7.0 / 16 * log2(7.0 / 16))) < 1e-12);
    equal(classes, "counts", "[[8, 0], [0, 8]]");
    ck_assert(fabs(number(classes, "mi_bits") - 1) < 1e-12);
    equal(classes, "labels", "['x', 'y']");
    json_decref(merged);
}
END_TEST

/* Every row has as much to say, whatever its weights are; rows that overflowed have nothing. */
#define WEIGHED(rows, overflowed, weight, share, other)                                            \
    "{'layers': [{'name': 'a', 'rows': " rows ", 'overflowed': " overflowed ", 'top_k': 2, "       \
    "'experts': [{'index': 0, 'selected': " rows ", 'weight': " weight ", 'weight_share': " share  \
    "}, {'index': 1, 'selected': " rows ", 'weight': 1.0, 'weight_share': " other "}]}]}"
START_TEST(weight_shares_are_means_over_rows)
{
    json_t *merged = merged_of(WEIGHED("9", "1", "-8.0", "0.25", "0.75"),
                               WEIGHED("2", "0", "500000.0", "0.75", "0.25"));
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    json_t *expert = json_array_get(json_object_get(layer, "experts"), 0);
    ck_assert(number(expert, "weight") == 499992);
    ck_assert(fabs(number(expert, "weight_share") - (8 * 0.25 + 2 * 0.75) / 10) < 1e-12);
    ck_assert(fabs(number(layer, "weight_imbalance") - 1.3) < 1e-12);
    json_decref(merged);
}
END_TEST

/* Pairs of the busiest experts, of which 2 and 5 are those of both; 3 and 7 of one. */
#define BUSIEST(pairs, lifts, of)                                                                  \
    "{'layers': [{'name': 'a', 'rows': 9, 'top_k': 2, 'experts': [{'index': 2, 'selected': 9}, "   \
    "{'index': 3, 'selected': 9}, {'index': 5, 'selected': 0}, {'index': 7, 'selected': 0}], "     \
    "'pairs': " pairs ", 'lifts': " lifts ", 'pairs_of': " of "}]}"
START_TEST(pairs_of_the_busiest_of_both_add_up)
{
    json_t *merged = merged_of(
        BUSIEST("[[2, 3, 4], [2, 5, 1]]", "[0, 0]",
                "{'rows': 5, 'outside': 2, 'seconds': 8.5, 'experts': [[2, 5], [3, 4], [5, 2]]}"),
        BUSIEST("[[2, 5, 2], [5, 7, 6]]", "[0, 0]",
                "{'rows': 10, 'outside': 3, 'seconds': 2.5, 'experts': [[2, 3], [5, 8], [7, 6]]}"));
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    equal(layer, "pairs", "[[2, 5, 3]]");
    equal(layer, "pairs_of",
          "{'rows': 15, 'outside': 15, 'seconds': 8.5, 'experts': [[2, 8], [5, 10]]}");
    equal(layer, "lifts", "[0.5625]"); /* 3 x 15 / (8 x 10) */
    json_decref(merged);
}
END_TEST

/* One that has not chosen them has counted no pair; one that counts all pairs counts others. */
START_TEST(pairs_of_the_busiest_of_one)
{
    static const char OF_TWO[] =
        BUSIEST("[[2, 3, 4]]", "[1]",
                "{'rows': 4, 'outside': 0, 'seconds': 8.5, 'experts': [[2, 4], [3, 4]]}");
    static const char NONE_YET[] = BUSIEST("null", "null", "null");
    for (int turn = 0; turn < 2; turn++) {
        json_t *merged = turn ? merged_of(OF_TWO, NONE_YET) : merged_of(NONE_YET, OF_TWO);
        json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
        equal(layer, "pairs", "[[2, 3, 4]]");
        equal(layer, "lifts", "[1.0]");
        json_decref(merged);
    }
    json_t *merged = merged_of(NONE_YET, NONE_YET);
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    equal(layer, "pairs", "null");
    equal(layer, "lifts", "null");
    json_decref(merged);
}
END_TEST

START_TEST(what_cannot_be_merged_is_gone_and_named)
{
    json_t *merged = merged_of(FIRST, SECOND);
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    json_t *expert = json_array_get(json_object_get(layer, "experts"), 0);
    ck_assert_ptr_null(json_object_get(layer, "dying"));
    ck_assert_ptr_null(json_object_get(layer, "drift"));
    ck_assert_ptr_null(json_object_get(expert, "ece"));
    equal(merged, "not_merged", "['drift', 'dying', 'coverage', 'ece']");
    ck_assert(number(merged, "merged") == 2);
    json_decref(merged);
}
END_TEST

START_TEST(what_only_one_has_is_gone)
{
    json_t *merged = merged_of("{'layers': [{'name': 'a', 'rows': 1, 'top_k': 1, 'experts': "
                               "[{'index': 0, 'selected': 1, 'ranks': [1]}], 'pairs': []}]}",
                               "{'layers': [{'name': 'a', 'rows': 1, 'top_k': 1, 'experts': "
                               "[{'index': 0, 'selected': 1}]}]}");
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    ck_assert_ptr_null(json_object_get(layer, "pairs"));
    ck_assert_ptr_null(json_object_get(layer, "usage_entropy_bits"));
    equal(json_array_get(json_object_get(layer, "experts"), 0), "selected", "2");
    json_decref(merged);
}
END_TEST

#define CLASSES(labelled, truth)                                                                   \
    "{'layers': [{'name': 'a', 'rows': 4, 'top_k': 1, 'experts': [{'index': 0, 'selected': "       \
    "4" labelled "}], 'classes': {'labels': null, 'counts': [[2, 2]], 'mi_bits': 0.0" truth "}}]}"
#define TRUTH ", 'truth': {'counts': [[3, 1]], 'mi_bits': 0.0, 'correct': [[2, 0]]}"

static void check_labels(const char *a, const char *b, const char *labelled, const char *truth,
                         const char *correct)
{
    json_t *merged = merged_of(a, b);
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    json_t *classes = json_object_get(layer, "classes");
    equal(json_array_get(json_object_get(layer, "experts"), 0), "labelled", labelled);
    equal(classes, "counts", "[[4, 4]]");
    equal(json_object_get(classes, "truth"), "counts", truth);
    equal(json_object_get(classes, "truth"), "correct", correct);
    ck_assert(number(json_object_get(classes, "truth"), "mi_bits") == 0);
    ck_assert(number(classes, "dispatch_entropy_bits") == 1); /* one expert, two classes alike */
    json_decref(merged);
}

/* Of two replicas, also of two that say the same, and where they came to one only. */
START_TEST(labels_add_up)
{
    const char *known = CLASSES(", 'labelled': 4, 'accuracy': 0.5", TRUTH), *none = CLASSES("", "");
    check_labels(known, known, "8", "[[6, 2]]", "[[4, 0]]");
    check_labels(known,
                 CLASSES(", 'labelled': 1, 'accuracy': 1.0",
                         ", 'truth': {'counts': [[0, 1]], 'mi_bits': 0.0, 'correct': [[0, 1]]}"),
                 "5", "[[3, 2]]", "[[2, 1]]");
    check_labels(known, none, "4", "[[3, 1]]", "[[2, 0]]");
    check_labels(none, known, "4", "[[3, 1]]", "[[2, 0]]");
}
END_TEST

#define QUALITY(counts, more, exact)                                                               \
    "{'layers': [{'name': 'a', 'rows': 4, 'top_k': 1, 'experts': [{'index': 0, 'selected': 4}], "  \
    "'classes': {'labels': null, 'counts': [[2, 2]], 'truth': {'counts': [" counts                 \
    "], 'correct': [[1, 0]]" more "}}" exact "}]}"
#define SUMS(cells) ", 'exact': {'experts': [{'part': '1'}], 'classes': [[" cells "]]}"
#define CELL(log_loss, items, correct, confidence)                                                 \
    "{'log_loss': '" log_loss "', 'bins': [[0, 0, '0'], [" items ", " correct ", '" confidence     \
    "']]}"

static json_t *truth_of(json_t *merged)
{
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    return json_object_get(json_object_get(layer, "classes"), "truth");
}

/* NULL: it is not there. */
static void equal_or_gone(json_t *object, const char *key, const char *expected)
{
    if (expected)
        equal(object, key, expected);
    else
        ck_assert_ptr_null(json_object_get(object, key));
}

static void check_quality(const char *a, const char *b, const char *log_loss, const char *ece,
                          const char *gone)
{
    json_t *merged = merged_of(a, b);
    ck_assert_ptr_nonnull(truth_of(merged));
    equal_or_gone(truth_of(merged), "log_loss", log_loss);
    equal_or_gone(truth_of(merged), "ece", ece);
    equal(merged, "not_merged", gone);
    json_decref(merged);
}

#define WITHOUT_ECE "['drift', 'dying', 'coverage', 'ece']"

/* Means over the items of each cell; calibration only from sums. Cells without items have none. */
START_TEST(quality_by_class_is_a_mean)
{
    const char *one = QUALITY("[3, 0]", ", 'log_loss': [[0.5, null]], 'ece': [[0.25, null]]", "");
    const char *other = QUALITY("[1, 2]", ", 'log_loss': [[2.5, 0.75]], 'ece': [[0, 0]]", "");
    check_quality(one, other, "[[1.0, 0.75]]", NULL, WITHOUT_ECE);
    check_quality(other, one, "[[1.0, 0.75]]", NULL, WITHOUT_ECE);
    check_quality(one, one, "[[0.5, null]]", NULL, WITHOUT_ECE);
    /* left out by one of them, or never heard of */
    check_quality(one, QUALITY("[1, 2]", ", 'log_loss': null, 'ece': null", ""), NULL, NULL,
                  WITHOUT_ECE);
    check_quality(QUALITY("[1, 2]", "", ""), one, NULL, NULL, WITHOUT_ECE);
}
END_TEST

START_TEST(quality_by_class_is_exact_from_sums)
{
    const char *one =
        QUALITY("[3, 0]", ", 'log_loss': [[9, null]], 'ece': [[9, null]]",
                SUMS(CELL("6442450944", "3", "1", "10737418240") ", {}")); /* 1.5, 2.5 */
    const char *other = QUALITY("[1, 2]", ", 'log_loss': [[9, 9]], 'ece': [[9, 9]]",
                                SUMS(CELL("10737418240", "1", "1", "2147483648") ", " CELL(
                                    "4294967296", "2", "1", "4294967296"))); /* 2.5, 0.5; 1, 1 */
    check_quality(one, other, "[[1.0, 0.5]]", "[[0.25, 0.0]]", "['drift', 'dying', 'coverage']");
    check_quality(other, one, "[[1.0, 0.5]]", "[[0.25, 0.0]]", "['drift', 'dying', 'coverage']");
    /* sums of a part of the items only */
    check_quality(one, QUALITY("[1, 2]", "", SUMS("{}, {}")), NULL, NULL, WITHOUT_ECE);
}
END_TEST

#define QUARANTINE(list)                                                                           \
    "{'layers': [{'name': 'a', 'rows': 4, 'top_k': 1, 'experts': [{'index': 0, 'selected': 4}], "  \
    "'quarantine': [" list "]}]}"

START_TEST(who_is_in_quarantine_anywhere_is_listed)
{
    json_t *merged =
        merged_of(QUARANTINE("{'expert': 2, 'reason': 'x'}"),
                  QUARANTINE("{'expert': 1, 'reason': 'y'}, {'expert': 2, 'reason': 'z'}"));
    equal(json_array_get(json_object_get(merged, "layers"), 0), "quarantine",
          "[{'expert': 2, 'reason': 'x'}, {'expert': 1, 'reason': 'y'}]");
    json_decref(merged);
}
END_TEST

#define EXACT(items, entropy, weight, more)                                                        \
    "{'layers': [{'name': 'a', 'rows': " items ", 'top_k': 1, 'gate_entropy_bits': 0.1, "          \
    "'batches': {'count': " items ", 'mean_rows': 1.0, 'mean_experts': 1.0}, 'experts': "          \
    "[{'index': 0, 'selected': " items                                                             \
    ", 'weight': 0.1}], 'exact': {'gate_entropy_bits': '" entropy                                  \
    "', 'margin': '0', 'experts': [{'weight': '" weight "', 'part': '4294967296', "                \
    "'probability': '-1', 'compute_seconds': '2147483648'" more "}]}}]}"

/* Integers, so that it does not matter who counted what. */
START_TEST(exact_sums_are_exact)
{
    json_t *merged = merged_of(
        EXACT("1", "12884901889", "-9007199254740993", ""),
        EXACT("3", "3", "2", ", 'log_loss': '4294967296', 'bins': [[2, 1, '2147483648']]"));
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    json_t *expert = json_array_get(json_object_get(layer, "experts"), 0);
    json_t *exact = json_object_get(layer, "exact");
    equal(exact, "gate_entropy_bits", "'12884901892'");
    equal(json_array_get(json_object_get(exact, "experts"), 0), "weight", "'-9007199254740991'");
    equal(json_array_get(json_object_get(exact, "experts"), 0), "probability", "'-2'");
    ck_assert(number(layer, "gate_entropy_bits") == 12884901892 / 0x1p32 / 4);
    ck_assert(number(expert, "weight") == -9007199254740991.0 / 0x1p32);
    ck_assert(number(expert, "compute_seconds") == 1);
    ck_assert(number(expert, "labelled") == 2 && number(expert, "accuracy") == 0.5);
    ck_assert(number(expert, "log_loss") == 0.5 && number(expert, "ece") == 0.25);
    equal(layer, "batches", "{'count': 4, 'mean_rows': 1.0, 'mean_experts': 1.0}");
    equal(merged, "not_merged", "['drift', 'dying', 'coverage']");
    json_decref(merged);
}
END_TEST

#define PHASE(steps, rows, experts, distinct, uses, hits)                                          \
    "{'count': " steps ", 'mean_rows': " rows ", 'mean_experts': " experts                         \
    ", 'experts': " distinct ", 'cache': [{'size': 1, 'uses': " uses ", 'lru': " hits              \
    ", 'lfu': 0.0, 'belady': 1.0}]}"
#define PHASES(prompt, generated)                                                                  \
    "{'memory': {'shared_bytes': 100}, 'layers': [{'name': 'a', 'rows': 1, 'top_k': 1, "           \
    "'phases': {'prompt': " prompt ", 'generated': " generated                                     \
    "}, 'expert_bytes': 10, 'experts': [{'index': 0, 'selected': 1}]}]}"

/* To the bit what one server would say of 3 + 4 steps with 10 + 1 rows, whose means are no binary
 * fractions. A phase without steps has null for its caches. */
START_TEST(phases_add_up)
{
    json_t *merged = merged_of(
        PHASES(PHASE("3", "3.3333333333333335", "1.6666666666666667", "[1, 2]", "3",
                     "0.66666666666666663"),
               "{'count': 0, 'mean_rows': 0.0, 'mean_experts': 0.0, 'experts': [0, 0], 'cache': "
               "null}"),
        PHASES(PHASE("4", "0.25", "1.0", "[4, 0]", "7", "0.42857142857142855"),
               PHASE("1", "1.0", "2.0", "[0, 1]", "2", "0.5")));
    json_t *layer = json_array_get(json_object_get(merged, "layers"), 0);
    json_t *prompt = json_object_get(json_object_get(layer, "phases"), "prompt");
    json_t *cache = json_array_get(json_object_get(prompt, "cache"), 0);
    json_t *memory = json_object_get(merged, "memory");
    ck_assert(number(prompt, "count") == 7 && number(prompt, "mean_rows") == 11.0 / 7);
    ck_assert(number(prompt, "mean_experts") == 9.0 / 7);
    equal(prompt, "experts", "[5, 2]");
    ck_assert(number(cache, "uses") == 10 && number(cache, "lru") == 5.0 / 10);
    ck_assert(number(cache, "belady") == 1);
    equal(json_object_get(layer, "phases"), "generated",
          PHASE("1", "1.0", "2.0", "[0, 1]", "2", "0.5"));
    ck_assert(number(memory, "prompt_bytes_per_token") == (7 * 100 + 10 * 9) / 11.0);
    ck_assert(number(memory, "generated_bytes_per_token") == 100 + 10 * 2);
    json_decref(merged);
}
END_TEST

static void refused(const char *a, const char *b, const char *part)
{
    struct moed_client_error err = {0};
    json_t *into = json_of(a), *from = json_of(b);
    ck_assert_int_eq(merge_add(into, from, &err), -1);
    ck_assert_msg(strstr(err.text, part) != NULL, "%s", err.text);
    json_decref(into);
    json_decref(from);
}

#define LAYER(rows, selected)                                                                      \
    "{'layers': [{'name': 'a', 'rows': " rows ", 'top_k': 1, 'experts': [{'index': 0, "            \
    "'selected': " selected "}]}]}"

START_TEST(what_differs_is_named)
{
    refused("{'model': 'a', 'layers': []}", "{'model': 'b', 'layers': []}", "'model'");
    refused("{'window': '5m', 'layers': []}", "{'layers': []}", "'window'");
    refused(LAYER("1", "1"), "{'layers': []}", "'layers'");
    refused(LAYER("1", "1"), "{'layers': [{'name': 'b'}]}", "layers[0]: 'name'");
    refused(LAYER("1", "1"), "{'layers': [{'name': 'a', 'top_k': 1, 'experts': []}]}", "'experts'");
    refused(LAYER("1", "9223372036854775807"), LAYER("1", "1"), "'selected'");
    refused(EXACT("1", "1", "1", ""), EXACT("1", "1", "x", ""), "'exact'");
    refused(EXACT("1", "1", "1", ""),
            EXACT("1", "1", "1000000000000000000000000000000000000000", ""), "'exact'");
}
END_TEST

TEST_MAIN("moectl merge", counts_add_up_and_means_are_weighted, figures_follow_from_the_sums,
          weight_shares_are_means_over_rows, pairs_of_the_busiest_of_both_add_up,
          pairs_of_the_busiest_of_one, what_cannot_be_merged_is_gone_and_named,
          exact_sums_are_exact, phases_add_up, what_only_one_has_is_gone, labels_add_up,
          quality_by_class_is_a_mean, quality_by_class_is_exact_from_sums,
          who_is_in_quarantine_anywhere_is_listed, what_differs_is_named)
