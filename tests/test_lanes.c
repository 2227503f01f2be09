/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary of every instruction set against independent definitions: widening and narrowing,
 * no byte touched past the last element, the order of the folds, what becomes of a NaN; and against
 * each other on special and random values.
 *
 * With PAGEATTN_TEST_REDUCED=1 in the environment fewer values are tried.
 */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <sys/mman.h>
#include <unistd.h>

#include "check.h"
#include "vocabulary.h"

static int reduced;
static const vocabulary_isa *isas[NUM_ISAS];
static int num_isas;

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static int same_bits_or_both_nan(float a, float b)
{
    return bits_of(a) == bits_of(b) || (a != a && b != b);
}

static void operate(const vocabulary_isa *isa, int operation, const float *a, const float *b,
                    const float *c, const float *d, float *result)
{
    const float *const operands[4] = {a, b, c, d};
    isa->functions->operation[operation](operands, result, 16);
}

/* The name of a case, good until the next call. */
static const char *on(const vocabulary_isa *isa, const char *what)
{
    static char name[100];
    snprintf(name, sizeof name, "%s on %s", what, isa->name);
    return name;
}

/* ---- types ------------------------------------------------------------------------------- */

/* Binary formats of 16 bits: a number is mantissa * 2^exponent. */
typedef struct format {
    const char *name;
    int type;
    int mantissa_bits; /* those stored */
    int max_exponent;  /* numbers are below 2^max_exponent */
    int min_exponent;  /* numbers are multiples of 2^min_exponent */
} format;

static const format formats[] = {
    {"bf16", TYPE_bf16, 7, 128, -133},
    {"f16", TYPE_f16, 10, 16, -24},
};

/* What the standard says a pattern means. */
static double value_of(const format *f, uint16_t half)
{
    const int magnitude = half & 0x7fff;
    const int stored = magnitude & ((1 << f->mantissa_bits) - 1);
    const int biased = magnitude >> f->mantissa_bits;
    const int infinite = (0x7fff >> f->mantissa_bits);
    const double sign = half >> 15 ? -1.0 : 1.0;
    if (biased == infinite)
        return stored == 0 ? sign * INFINITY : NAN;
    if (biased == 0)
        return sign * ldexp(stored, f->min_exponent);
    return sign * ldexp(stored + (1 << f->mantissa_bits), f->min_exponent + biased - 1);
}

/* The nearest value of the format, ties to even. Every step but rint is exact. */
static double rounded_to(const format *f, float x)
{
    if (x == 0 || x * 0 != 0)
        return (double)x;
    int exponent;
    frexp((double)x, &exponent);
    int unit = exponent - 1 - f->mantissa_bits;
    if (unit < f->min_exponent)
        unit = f->min_exponent;
    const double rounded = ldexp(rint(ldexp((double)x, -unit)), unit);
    return fabs(rounded) < ldexp(1, f->max_exponent) ? rounded : copysign(INFINITY, (double)x);
}

static int agree(double a, double b)
{
    return (a == b && signbit(a) == signbit(b)) || (a != a && b != b);
}

/* The first byte of a page that must not be touched; the page before it is writable. */
static char *guard_page(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + page, page, PROT_NONE) != 0) {
        printf("FAILED no memory for a guard page\n");
        exit(1);
    }
    return memory + page;
}

static int widened_wrongly(const format *f, const uint16_t halves[16], int64_t n,
                           const float result[16])
{
    for (int64_t l = 0; l < 16; l++)
        if (!agree((double)result[l], l < n ? value_of(f, halves[l]) : 0.0))
            return 1;
    return 0;
}

/* All patterns, in lane groups whose last element is the last before the guard page. */
static void test_widen(const vocabulary_isa *isa, const format *f, char *guard)
{
    const char *name = on(isa, f->type == TYPE_bf16 ? "widen bf16" : "widen f16");
    uint16_t halves[16];
    float result[16];
    for (int first = 0; first < 0x10000; first += 16) {
        for (int l = 0; l < 16; l++)
            halves[l] = (uint16_t)(first + l);
        for (int64_t n = 1; n <= 16; n++) {
            memcpy(guard - 2 * n, halves, 2 * (size_t)n);
            isa->functions->load_first[f->type](guard - 2 * n, n, result);
            if (widened_wrongly(f, halves, n, result)) {
                check_failed(name, "%d elements from 0x%04x on", (int)n, (unsigned)first);
                return;
            }
        }
        isa->functions->load[f->type](guard - 32, result);
        if (widened_wrongly(f, halves, 16, result)) {
            check_failed(name, "a whole group from 0x%04x on", (unsigned)first);
            return;
        }
    }
    check_passed(name);
}

/* All patterns, as the last 32 elements before the guard page. */
static void test_two_bf16(void (*load)(const void *p, float result[32]), const char *name,
                          char *guard)
{
    float result[32];
    for (int first = 0; first < 0x10000; first += 32) {
        uint16_t halves[32];
        for (int l = 0; l < 32; l++)
            halves[l] = (uint16_t)(first + l);
        memcpy(guard - sizeof halves, halves, sizeof halves);
        load(guard - sizeof halves, result);
        if (widened_wrongly(&formats[0], halves, 16, result) ||
            widened_wrongly(&formats[0], halves + 16, 16, result + 16)) {
            check_failed(name, "from 0x%04x on", (unsigned)first);
            return;
        }
    }
    check_passed(name);
}

static void test_load_f32(const vocabulary_isa *isa, char *guard)
{
    const char *name = on(isa, "load f32");
    float x[16], result[16], expected[16];
    for (int l = 0; l < 16; l++)
        x[l] = (float)(l + 1);
    for (int64_t n = 1; n <= 16; n++) {
        memset(expected, 0, sizeof expected);
        memcpy(expected, x, 4 * (size_t)n);
        memcpy(guard - 4 * n, x, 4 * (size_t)n);
        isa->functions->load_first[TYPE_f32](guard - 4 * n, n, result);
        if (memcmp(result, expected, sizeof result) != 0) {
            check_failed(name, "%d elements", (int)n);
            return;
        }
    }
    isa->functions->load[TYPE_f32](guard - 64, result);
    check_that(memcmp(result, x, sizeof x) == 0, name);
}

/* The narrowed group must be right and, but for the first, what the first instruction set gave. */
static int narrowed_wrongly(const format *f, const float x[16])
{
    uint16_t first[16];
    for (int i = 0; i < num_isas; i++) {
        uint16_t halves[16];
        isas[i]->functions->store_first[f->type](halves, x, 16);
        if (i > 0 && memcmp(halves, first, sizeof halves) == 0)
            continue;
        memcpy(first, halves, sizeof halves);
        for (int l = 0; l < 16; l++)
            if (!agree(value_of(f, halves[l]), rounded_to(f, x[l]))) {
                check_failed(on(isas[i], f->name), "%a (0x%08x) was narrowed to 0x%04x",
                             (double)x[l], bits_of(x[l]), (unsigned)halves[l]);
                return 1;
            }
    }
    return 0;
}

/* Every number of the format, the tie above it, their neighbours, and the negatives of all. */
static void test_narrow_ties(const format *f)
{
    const uint16_t infinity = (uint16_t)(0x7fff >> f->mantissa_bits << f->mantissa_bits);
    for (uint16_t half = 0; half < infinity; half++) {
        const double number = value_of(f, half);
        const double next =
            half + 1 < infinity ? value_of(f, (uint16_t)(half + 1)) : ldexp(1, f->max_exponent);
        const float number_and_tie[2] = {(float)number, (float)((number + next) / 2)};
        float x[16] = {0};
        int num = 0;
        for (int i = 0; i < 2; i++)
            for (uint32_t step = 0; step < 3; step++) {
                const uint32_t bits = bits_of(number_and_tie[i]) + step;
                x[num] = float_of(bits == 0 ? 0 : bits - 1);
                x[num + 1] = -x[num];
                num += 2;
            }
        if (narrowed_wrongly(f, x))
            return;
    }
    check_passed(f->type == TYPE_bf16 ? "ties to bf16" : "ties to f16");
}

static void test_narrow_sample(const format *f)
{
    const uint64_t stride = reduced ? 16381 : 251;
    for (uint64_t bits = 0; bits < (uint64_t)1 << 32; bits += 16 * stride) {
        float x[16];
        for (uint64_t l = 0; l < 16; l++) {
            x[l] = float_of((uint32_t)(bits + l * stride));
            x[l] = x[l] == x[l] ? x[l] : 0.0f;
        }
        if (narrowed_wrongly(f, x))
            return;
    }
    printf("%s: one float of %d narrowed\n", f->name, (int)stride);
    check_passed(f->type == TYPE_bf16 ? "sample to bf16" : "sample to f16");
}

static void test_narrow_nan(const vocabulary_isa *isa)
{
    float x[16];
    uint16_t bf16[16], f16[16];
    for (int l = 0; l < 16; l++)
        x[l] = float_of(0x7fc00000u);
    isa->functions->store_first[TYPE_bf16](bf16, x, 16);
    isa->functions->store_first[TYPE_f16](f16, x, 16);
    int right = 1;
    for (int l = 0; l < 16; l++)
        right = right && bf16[l] == 0x7fc0 && f16[l] == 0x7e00;
    check_that(right, on(isa, "narrow NaN"));
}

/* The first n elements are written, to the last byte before the guard page, and nothing else. */
static void test_store_first(const vocabulary_isa *isa, int type, char *guard)
{
    static const char *const names[NUM_TYPES] = {"store f32", "store bf16", "store f16"};
    const int64_t bytes = type == TYPE_f32 ? 4 : 2;
    float x[16];
    char whole[64], expected[64];
    for (int l = 0; l < 16; l++)
        x[l] = (float)(l + 1);
    isa->functions->store_first[type](whole, x, 16);
    for (int64_t n = 1; n <= 16; n++) {
        memset(guard - 64, 0xaa, 64);
        memset(expected, 0xaa, 64);
        memcpy(expected + 64 - n * bytes, whole, (size_t)(n * bytes));
        isa->functions->store_first[type](guard - n * bytes, x, n);
        if (memcmp(guard - 64, expected, 64) != 0) {
            check_failed(on(isa, names[type]), "%d elements", (int)n);
            return;
        }
    }
    check_passed(on(isa, names[type]));
}

/* ---- folds ------------------------------------------------------------------------------- */

/* 16 tokens' lane groups as the kernels fold them, against lane l += lane l + 8, + 4, + 2, + 1. */
static void test_fold(const vocabulary_isa *isa)
{
    uint64_t random = check.seed;
    for (int round = 0; round < 1000; round++) {
        float a[16][16], quarters[4][16], result[16];
        for (int i = 0; i < 256; i++)
            a[i / 16][i % 16] = (float)check_random_normal(&random);
        for (int t = 0; t < 4; t++)
            operate(isa, OPERATION_fold_8_4, a[t], a[t + 4], a[t + 8], a[t + 12], quarters[t]);
        operate(isa, OPERATION_fold_2_1, quarters[0], quarters[1], quarters[2], quarters[3],
                result);
        for (int t = 0; t < 16; t++) {
            for (int half = 8; half >= 1; half /= 2)
                for (int l = 0; l < half; l++)
                    a[t][l] += a[t][l + half];
            if (bits_of(result[t]) != bits_of(a[t][0])) {
                check_failed(on(isa, "fold"), "token %d of round %d: %a, expected %a", t, round,
                             (double)result[t], (double)a[t][0]);
                return;
            }
        }
    }
    check_passed(on(isa, "fold"));
}

/* The largest of 16 numbers, wherever it stands; of two zeros, either. */
static void test_reduce_max(const vocabulary_isa *isa)
{
    uint64_t random = check.seed;
    for (int round = 0; round < 10000; round++) {
        float x[16], result[16];
        float largest = -INFINITY;
        for (int l = 0; l < 16; l++) {
            x[l] = float_of((uint32_t)check_random(&random));
            if (x[l] != x[l] || check_random_int(&random, 0, 7) == 0)
                x[l] = -INFINITY;
            largest = x[l] > largest ? x[l] : largest;
        }
        operate(isa, OPERATION_reduce_max, x, x, x, x, result);
        if (result[0] != largest) {
            check_failed(on(isa, "reduce_max"), "%a in round %d, expected %a", (double)result[0],
                         round, (double)largest);
            return;
        }
    }
    check_passed(on(isa, "reduce_max"));
}

/* ---- rules ------------------------------------------------------------------------------- */

#define INF 0x7f800000u
#define QUIET 0x7fc00000u
#define ONE 0x3f800000u
#define TWO 0x40000000u
#define MINUS 0x80000000u

/* All bits count, those of a NaN too. */
static const struct {
    const char *name;
    int operation;
    uint32_t operands[4];
    uint32_t expected;
} rules[] = {
    {"max of 1 and 2", OPERATION_max, {ONE, TWO}, TWO},
    {"max of 2 and 1", OPERATION_max, {TWO, ONE}, TWO},
    {"max of NaN and 1", OPERATION_max, {QUIET, ONE}, ONE},
    {"max of 1 and NaN", OPERATION_max, {ONE, QUIET | 5}, QUIET | 5},
    {"max of -infinity and NaN", OPERATION_max, {MINUS | INF, QUIET}, QUIET},
    {"max of +0 and -0", OPERATION_max, {0, MINUS}, MINUS},
    {"max of -0 and +0", OPERATION_max, {MINUS, 0}, 0},
    {"where 1 < 2", OPERATION_where_less, {ONE, TWO, 5, 6}, 5},
    {"where 2 < 1", OPERATION_where_less, {TWO, ONE, 5, 6}, 6},
    {"where 1 < 1", OPERATION_where_less, {ONE, ONE, 5, 6}, 6},
    {"where -0 < +0", OPERATION_where_less, {MINUS, 0, 5, 6}, 6},
    {"where 0 < the smallest float", OPERATION_where_less, {0, 1, 5, 6}, 5},
    {"where -infinity < infinity",
     OPERATION_where_less,
     {MINUS | INF, INF, QUIET | 7, 6},
     QUIET | 7},
    {"where NaN < 1", OPERATION_where_less, {QUIET, ONE, 5, 6}, 6},
    {"where 1 < NaN", OPERATION_where_less, {ONE, QUIET, 5, MINUS | QUIET}, MINUS | QUIET},
    {"where NaN < NaN", OPERATION_where_less, {QUIET, QUIET, 5, 6}, 6},
    {"canonical NaN of a signalling NaN", OPERATION_canonical_nan, {INF | 1}, QUIET},
    {"canonical NaN of a NaN with a sign", OPERATION_canonical_nan, {MINUS | QUIET | 9}, QUIET},
    {"canonical NaN of infinity", OPERATION_canonical_nan, {INF}, INF},
    {"canonical NaN of -0", OPERATION_canonical_nan, {MINUS}, MINUS},
    {"abs of a NaN", OPERATION_abs, {MINUS | QUIET | 3}, QUIET | 3},
    {"copysign of 1 and -0", OPERATION_copysign, {ONE, MINUS}, MINUS | ONE},
    {"rint of 0.5", OPERATION_rint, {0x3f000000u}, 0},
    {"rint of -0.5", OPERATION_rint, {0xbf000000u}, MINUS},
    {"rint of 1.5", OPERATION_rint, {0x3fc00000u}, TWO},
    {"rint of 2.5", OPERATION_rint, {0x40200000u}, TWO},
    {"rint of 2^23 + 1", OPERATION_rint, {0x4b000001u}, 0x4b000001u},
    /* (1 + 2^-12)^2 - (1 + 2^-11) = 2^-24, which two roundings lose. */
    {"fma rounds once", OPERATION_fma, {0x3f800800u, 0x3f800800u, 0xbf801000u}, 0x33800000u},
    /* The product of the smallest normal float and 1/2 must not be flushed. */
    {"mul to a subnormal", OPERATION_mul, {0x00800000u, 0x3f000000u}, 0x00400000u},
    {"div to a subnormal", OPERATION_div, {0x00800000u, TWO}, 0x00400000u},
    {"zero", OPERATION_zero, {ONE}, 0},
};

/* Each in every lane; the other lanes hold something else. */
static void test_rules(const vocabulary_isa *isa)
{
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        uint32_t got = rules[i].expected;
        for (int lane = 0; lane < 16 && got == rules[i].expected; lane++) {
            float operands[4][16], result[16];
            for (int k = 0; k < 4; k++)
                for (int l = 0; l < 16; l++)
                    operands[k][l] = l == lane ? float_of(rules[i].operands[k]) : (float)(l - k);
            operate(isa, rules[i].operation, operands[0], operands[1], operands[2], operands[3],
                    result);
            got = bits_of(result[lane]);
        }
        if (got == rules[i].expected)
            check_passed(on(isa, rules[i].name));
        else
            check_failed(on(isa, rules[i].name), "got bits 0x%08x, expected 0x%08x", got,
                         rules[i].expected);
    }
}

/* Every power of two with factors as exp makes them, and with some that overflow, become subnormal,
 * or are a zero or no number. Odd lanes are below the limit. */
static void test_zero_or_scale(const vocabulary_isa *isa)
{
    static const float x[16] = {1.0f,
                                0x1.fffffep0f,
                                -1.5f,
                                0x1.6a09e6p-1f,
                                -0.0f,
                                -INFINITY,
                                INFINITY,
                                0.0f,
                                NAN,
                                NAN,
                                0x1p-126f,
                                0x1.800002p-120f,
                                0x3p-149f,
                                0x1.fffffep127f,
                                0x1.fffffep127f,
                                -0x1p-149f};
    static const float below_one[16] = {1, 0.5f, NAN, -1,        1, 0, INFINITY, 0x1.fffffep-1f,
                                        2, 0,    1,   -INFINITY, 1, 0, 1,        0};
    const char *name = on(isa, "zero_or_scale");
    float one[16], n[16], result[16];
    for (int exponent = -126; exponent <= 127; exponent++) {
        for (int l = 0; l < 16; l++) {
            one[l] = 1.0f;
            n[l] = (float)exponent;
        }
        operate(isa, OPERATION_zero_or_scale, below_one, one, x, n, result);
        int right = 1;
        for (int l = 0; l < 16; l++) {
            const float expected = l % 2 == 1 ? 0.0f : x[l] * ldexpf(1, exponent);
            right = right &&
                    (isnan(expected) ? isnan(result[l]) : memcmp(&result[l], &expected, 4) == 0);
        }
        if (!right) {
            check_failed(name, "wrong at 2^%d", exponent);
            return;
        }
    }
    check_passed(name);
}

static void test_exponent_and_mantissa(const vocabulary_isa *isa)
{
    for (uint32_t bits = 0x00800000u; bits < INF - 16 * 997; bits += 16 * 997) {
        float x[16], exponent[16], mantissa[16];
        for (uint32_t l = 0; l < 16; l++)
            x[l] = float_of(bits + 997 * l);
        operate(isa, OPERATION_exponent, x, x, x, x, exponent);
        operate(isa, OPERATION_mantissa, x, x, x, x, mantissa);
        for (int l = 0; l < 16; l++) {
            int expected;
            const float half_mantissa = frexpf(x[l], &expected);
            if (exponent[l] != (float)(expected - 1) || mantissa[l] != 2 * half_mantissa) {
                check_failed(on(isa, "exponent and mantissa"), "%a has %a and %a", (double)x[l],
                             (double)exponent[l], (double)mantissa[l]);
                return;
            }
        }
    }
    check_passed(on(isa, "exponent and mantissa"));
}

/* ---- the same everywhere ----------------------------------------------------------------- */

static const uint32_t special_bits[] = {
    0x00000000u, 0x00000001u, 0x007fffffu, 0x00800000u, 0x33800000u, 0x3effffffu, 0x3f000000u,
    ONE,         0x3f800001u, 0x3fc00000u, TWO,         0x4affffffu, 0x4b000001u, 0x4f000000u,
    0x7effffffu, 0x7f7fffffu, INF,         INF | 1,     QUIET,       0x7fffffffu,
};

/* Special values, any bits, and numbers near 1, with either sign. */
static float random_float(uint64_t *random)
{
    const int64_t num_specials = sizeof special_bits / sizeof special_bits[0];
    const uint32_t sign = (uint32_t)check_random_int(random, 0, 1) << 31;
    switch (check_random_int(random, 0, 2)) {
    case 0:
        return float_of(special_bits[check_random_int(random, 0, num_specials - 1)] | sign);
    case 1:
        return float_of((uint32_t)check_random(random));
    default:
        return (float)check_random_normal(random);
    }
}

/* Which NaN arithmetic gives is left to the processor; what only moves bits keeps them. */
static const struct {
    const char *name;
    int operation;
    int any_nan;
} everywhere[] = {
    {"zero", OPERATION_zero, 0},
    {"add", OPERATION_add, 1},
    {"sub", OPERATION_sub, 1},
    {"mul", OPERATION_mul, 1},
    {"div", OPERATION_div, 1},
    {"fma", OPERATION_fma, 1},
    {"max", OPERATION_max, 0},
    {"rint", OPERATION_rint, 1},
    {"abs", OPERATION_abs, 0},
    {"copysign", OPERATION_copysign, 0},
    {"where_less", OPERATION_where_less, 0},
    {"canonical_nan", OPERATION_canonical_nan, 0},
    {"fold_8_4", OPERATION_fold_8_4, 1},
    {"fold_2_1", OPERATION_fold_2_1, 1},
    {"first", OPERATION_first, 0},
};

static void test_everywhere(const vocabulary_isa *isa)
{
    const int num_rounds = reduced ? 2000 : 20000;
    for (size_t i = 0; i < sizeof everywhere / sizeof everywhere[0]; i++) {
        const char *name = on(isa, everywhere[i].name);
        uint64_t random = check.seed;
        int64_t num_different = 0;
        for (int round = 0; round < num_rounds; round++) {
            float x[4][16], result[16], defined[16];
            for (int k = 0; k < 64; k++)
                x[k / 16][k % 16] = random_float(&random);
            operate(isa, everywhere[i].operation, x[0], x[1], x[2], x[3], result);
            operate(isas[0], everywhere[i].operation, x[0], x[1], x[2], x[3], defined);
            for (int l = 0; l < 16; l++)
                num_different += everywhere[i].any_nan
                                     ? !same_bits_or_both_nan(result[l], defined[l])
                                     : bits_of(result[l]) != bits_of(defined[l]);
        }
        if (num_different == 0)
            check_passed(name);
        else
            check_failed(name, "%lld of %d lanes differ from %s", (long long)num_different,
                         16 * num_rounds, isas[0]->name);
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    const char *wish = getenv("PAGEATTN_TEST_REDUCED");
    reduced = wish != NULL && strcmp(wish, "1") == 0;
    num_isas = vocabulary_available(isas);

    char *guard = guard_page();
    for (int i = 0; i < num_isas; i++) {
        test_load_f32(isas[i], guard);
        test_two_bf16(isas[i]->functions->load_two_bf16, on(isas[i], "two groups of bf16"), guard);
        test_two_bf16(isas[i]->functions->load_two_bf16_unordered,
                      on(isas[i], "two groups of bf16, put in order"), guard);
        for (int type = 0; type < NUM_TYPES; type++)
            test_store_first(isas[i], type, guard);
        for (int f = 0; f < 2; f++)
            test_widen(isas[i], &formats[f], guard);
        test_narrow_nan(isas[i]);
        test_fold(isas[i]);
        test_reduce_max(isas[i]);
        test_rules(isas[i]);
        test_zero_or_scale(isas[i]);
        test_exponent_and_mantissa(isas[i]);
        if (i > 0)
            test_everywhere(isas[i]);
    }
    for (int f = 0; f < 2; f++) {
        test_narrow_ties(&formats[f]);
        test_narrow_sample(&formats[f]);
    }
    return check_finish();
}
