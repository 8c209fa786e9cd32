/* Hashes of tables: the function, its secret, and what a table does with keys that were made to
 * collide. */
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/hash.h"
#include "proto/text/bpe.h"
#include "support.h"

/* What CPython 3.11, which has the same function, gives with PYTHONHASHSEED=0. */
START_TEST(siphash_as_others_compute_it)
{
    static const struct hash_secret zero;
    static const struct {
        const char *text;
        int64_t hash;
    } known[] = {{"a", 4644417185603328019},
                 {"abcdefgh", 4574395652268504554},
                 {"hello, world", -2912988965868824583},
                 {"abcdefghijklmnopq", 7044894726457044172}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        ck_assert_int_eq((int64_t)hash_sip(&zero, known[i].text, strlen(known[i].text)),
                         known[i].hash);
    const struct hash_secret other = {{1, 0}};
    ck_assert_uint_ne(hash_sip(&zero, "a", 1), hash_sip(&other, "a", 1));
}
END_TEST

/* In a process of its own, which has not hashed before. */
static uint64_t hash_elsewhere(void)
{
    uint64_t hash = 0;
    int ends[2];
    ck_assert_int_eq(pipe(ends), 0);
    const pid_t child = fork();
    if (child == 0) {
        hash = hash_text("a");
        _exit(write(ends[1], &hash, sizeof hash) != sizeof hash);
    }
    ck_assert_int_eq(read(ends[0], &hash, sizeof hash), sizeof hash);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    close(ends[0]);
    close(ends[1]);
    return hash;
}

START_TEST(every_process_has_its_secret)
{
    ck_assert_uint_ne(hash_elsewhere(), hash_elsewhere());
    ck_assert_uint_eq(hash_text("a"), hash_text("a"));
    ck_assert_uint_ne(hash_text("a"), hash_text("b"));
}
END_TEST

enum { MERGES = 1 << 17 };

struct pair {
    int32_t left, right;
};

/* Pairs that a hash by a well-known factor (its bits from 32 on) would put in one slot. */
static struct pair *colliding_pairs(void)
{
    const uint64_t factor = 0x9E3779B97F4A7C15, mask = 2 * MERGES - 1;
    int32_t *right = xmalloc((mask + 1) * sizeof *right);
    struct pair *pairs = xcalloc(MERGES, sizeof *pairs);
    memset(right, 0xFF, (mask + 1) * sizeof *right);
    for (uint64_t id = 0; id < VOCABULARY_MAX_TOKENS; id++)
        right[id * factor >> 32 & mask] = (int32_t)id;
    size_t count = 0;
    for (uint64_t left = 0; count < MERGES; left++) {
        ck_assert_uint_lt(left, VOCABULARY_MAX_TOKENS);
        const int32_t other = right[-(left * factor) & mask];
        if (other >= 0)
            pairs[count++] = (struct pair){(int32_t)left, other};
    }
    free(right);
    return pairs;
}

START_TEST(merges_that_were_made_to_collide)
{
    struct error err = ERROR_INIT;
    struct vocabulary vocabulary;
    struct bpe bpe;
    struct pair *pairs = colliding_pairs();
    vocabulary_init(&vocabulary);
    ck_assert_int_eq(vocabulary_index(&vocabulary, &err), 0);
    ck_assert_int_eq(bpe_init(&bpe, &vocabulary, MERGES, &err), 0);
    const clock_t began = clock();
    for (int i = 0; i < MERGES; i++)
        bpe_merge(&bpe, pairs[i].left, pairs[i].right, (uint32_t)i, i);
    /* In one slot they would be eight thousand million steps. */
    ck_assert_int_lt((clock() - began) / CLOCKS_PER_SEC, 2);
    bpe_close(&bpe);
    vocabulary_close(&vocabulary);
    free(pairs);
}
END_TEST

TEST_MAIN("hash", siphash_as_others_compute_it, every_process_has_its_secret,
          merges_that_were_made_to_collide)
