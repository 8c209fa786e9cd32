/* powers_of_ten: the generated table, checked with independent arithmetic. */
#include <math.h>

#include "proto/powers_of_ten.h"
#include "test_proto_support.h"

START_TEST(small_powers_are_exact)
{
    uint64_t power = 1;
    for (int n = 0; n <= 19; n++, power *= 10) {
        int shift = __builtin_clzll(power);
        ck_assert_uint_eq(power_of_ten(n)->high, power << shift);
        ck_assert_uint_eq(power_of_ten(n)->low, 0);
        ck_assert_int_eq(power_of_ten_exponent(n), 63 - shift);
    }
}
END_TEST

START_TEST(all_are_normal)
{
    for (int n = POWER_OF_TEN_MIN; n <= POWER_OF_TEN_MAX; n++)
        ck_assert_uint_eq(power_of_ten(n)->high >> 63, 1);
}
END_TEST

/* Ten times one entry is the next, except for what the last bits cannot hold. */
START_TEST(neighbours_agree)
{
    for (int n = POWER_OF_TEN_MIN; n < POWER_OF_TEN_MAX; n++) {
        const struct power_of_ten *power = power_of_ten(n), *next = power_of_ten(n + 1);
        int doublings = power_of_ten_exponent(n + 1) - power_of_ten_exponent(n);
        ck_assert(doublings == 3 || doublings == 4);
        /* In units of 2^-64 of the high word: 10 * power = next * 2^doublings. */
        unsigned __int128 low = (unsigned __int128)power->low * 10;
        unsigned __int128 high = (unsigned __int128)power->high * 10 + (uint64_t)(low >> 64);
        uint64_t carried = (uint64_t)(high >> doublings);
        uint64_t rest = (uint64_t)(high << (64 - doublings)) | (uint64_t)low >> doublings;
        __int128 difference = (((__int128)carried - (__int128)next->high) << 64) + (__int128)rest -
                              (__int128)next->low;
        ck_assert_msg(difference >= -2 && difference <= 2, "1e%d", n);
    }
}
END_TEST

START_TEST(exponents_are_floors_of_logarithms)
{
    for (int n = POWER_OF_TEN_MIN; n <= POWER_OF_TEN_MAX; n++)
        ck_assert_int_eq(power_of_ten_exponent(n), (int)floorl(n * log2l(10)));
}
END_TEST

RUN_TESTS("proto/powers_of_ten", small_powers_are_exact, all_are_normal, neighbours_agree,
          exponents_are_floors_of_logarithms)
