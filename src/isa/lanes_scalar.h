/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vocabulary of the kernels, and its definition: operations on a lane group of 16 floats.
 * Kernels are written once over these functions; every lanes_*.h has them all, and each gives the
 * same bits as the plain C below. Arithmetic is IEEE-754 binary32, rounded to nearest even.
 *
 * This one needs nothing of the CPU. fmaf and rintf are the C library's.
 */
#ifndef PAGEATTN_ISA_LANES_SCALAR_H
#define PAGEATTN_ISA_LANES_SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct lanes {
    float lane[16];
} lanes;

/* Register tiles, as many accumulators as fit: tokens x heads of the dot products, heads x lane
 * groups of a row, LANES_VALUE_SUMS in all, of the weighted sum. Numbers of heads are 2 or 4.
 * LANES_SOFTMAX_HEADS is how many heads' exponentials go side by side, 4 at most.
 * A vocabulary may define LANES_FEW_REGISTERS, and half_lanes_* as lanes_avx2.h does, in place of
 * LANES_KEY_TOKENS: dot products are then made as logits_by_halves.h says. */
#define LANES_KEY_TOKENS 2
#define LANES_KEY_HEADS 2
#define LANES_VALUE_HEADS 2
#define LANES_VALUE_SUMS 8
#define LANES_SOFTMAX_HEADS 1

#define LANES_EACH(i) for (int i = 0; i < 16; i++)

static inline lanes lanes_all(float x)
{
    lanes r;
    LANES_EACH(i) r.lane[i] = x;
    return r;
}

static inline lanes lanes_zero(void)
{
    return lanes_all(0.0f);
}

/* Widening is exact. `n` elements, 1 <= n <= 16, are read and not one more; the rest are +0. */
static inline lanes lanes_load_first_f32(const void *p, int64_t n)
{
    lanes r = lanes_zero();
    memcpy(r.lane, p, (size_t)n * sizeof(float));
    return r;
}

static inline lanes lanes_load_first_bf16(const void *p, int64_t n)
{
    lanes r = lanes_zero();
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, (const char *)p + 2 * i, 2);
        const uint32_t bits = (uint32_t)half << 16;
        memcpy(&r.lane[i], &bits, 4);
    }
    return r;
}

static inline float lanes_widen_f16(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t magnitude = half & 0x7fffu;
    /* Subnormals are a multiple of 2^-24; the product is exact. */
    const float small = (float)magnitude * 0x1p-24f;
    uint32_t bits;
    memcpy(&bits, &small, 4);
    if (magnitude >= 0x7c00u)
        bits = 0x7f800000u | magnitude << 13; /* infinity and NaN */
    else if (magnitude >= 0x0400u)
        bits = (magnitude << 13) + ((127 - 15) << 23);
    bits |= sign;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline lanes lanes_load_first_f16(const void *p, int64_t n)
{
    lanes r = lanes_zero();
    for (int64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, (const char *)p + 2 * i, 2);
        r.lane[i] = lanes_widen_f16(half);
    }
    return r;
}

static inline lanes lanes_load_f32(const void *p)
{
    return lanes_load_first_f32(p, 16);
}

static inline lanes lanes_load_bf16(const void *p)
{
    return lanes_load_first_bf16(p, 16);
}

/* 32 elements, a cache line's worth. */
static inline void lanes_load_two_bf16(const void *p, lanes *first, lanes *second)
{
    *first = lanes_load_bf16(p);
    *second = lanes_load_bf16((const char *)p + 32);
}

/* The same 32 elements in the order that takes the least work. Vertical operations may follow, then
 * lanes_put_in_order, which makes them those of lanes_load_two_bf16. */
static inline void lanes_load_two_bf16_unordered(const void *p, lanes *first, lanes *second)
{
    lanes_load_two_bf16(p, first, second);
}

static inline void lanes_put_in_order(lanes *first, lanes *second)
{
    (void)first;
    (void)second;
}

static inline lanes lanes_load_f16(const void *p)
{
    return lanes_load_first_f16(p, 16);
}

/* Narrowing rounds to nearest even; overflow gives infinity, small results are subnormal. A NaN
 * must be the canonical one (lanes_canonical_nan). `n` elements, 1 <= n <= 16, are written. */
static inline void lanes_store_first_f32(void *p, lanes x, int64_t n)
{
    memcpy(p, x.lane, (size_t)n * sizeof(float));
}

static inline uint16_t lanes_narrow_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (x != x)
        return (uint16_t)(bits >> 16);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline void lanes_store_first_bf16(void *p, lanes x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint16_t half = lanes_narrow_bf16(x.lane[i]);
        memcpy((char *)p + 2 * i, &half, 2);
    }
}

static inline uint16_t lanes_narrow_f16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) /* 65520: halfway to the number after the largest */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* 2^-14: adding 1/2 rounds to a multiple of 2^-24 */
        const float shifted = fabsf(x) + 0.5f;
        memcpy(&bits, &shifted, 4);
        return (uint16_t)(sign | (bits - 0x3f000000u));
    }
    return (uint16_t)(sign |
                      ((magnitude - ((127 - 15) << 23) + 0x0fffu + (magnitude >> 13 & 1u)) >> 13));
}

static inline void lanes_store_first_f16(void *p, lanes x, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint16_t half = lanes_narrow_f16(x.lane[i]);
        memcpy((char *)p + 2 * i, &half, 2);
    }
}

static inline void lanes_store_f32(void *p, lanes x)
{
    lanes_store_first_f32(p, x, 16);
}

/* No arithmetic: asks for a line, into L1. */
static inline void lanes_prefetch(const char *line)
{
    __builtin_prefetch(line, 0, 3);
}

static inline lanes lanes_add(lanes a, lanes b)
{
    LANES_EACH(i) a.lane[i] += b.lane[i];
    return a;
}

static inline lanes lanes_sub(lanes a, lanes b)
{
    LANES_EACH(i) a.lane[i] -= b.lane[i];
    return a;
}

static inline lanes lanes_mul(lanes a, lanes b)
{
    LANES_EACH(i) a.lane[i] *= b.lane[i];
    return a;
}

static inline lanes lanes_div(lanes a, lanes b)
{
    LANES_EACH(i) a.lane[i] /= b.lane[i];
    return a;
}

/* a * b + c, rounded once. */
static inline lanes lanes_fma(lanes a, lanes b, lanes c)
{
    LANES_EACH(i) c.lane[i] = fmaf(a.lane[i], b.lane[i], c.lane[i]);
    return c;
}

/* The second operand where one is NaN. */
static inline lanes lanes_max(lanes a, lanes b)
{
    LANES_EACH(i) b.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
    return b;
}

/* The nearest integer, ties to even. */
static inline lanes lanes_rint(lanes x)
{
    LANES_EACH(i) x.lane[i] = rintf(x.lane[i]);
    return x;
}

static inline lanes lanes_abs(lanes x)
{
    LANES_EACH(i) x.lane[i] = fabsf(x.lane[i]);
    return x;
}

static inline lanes lanes_copysign(lanes magnitude, lanes sign)
{
    LANES_EACH(i) magnitude.lane[i] = copysignf(magnitude.lane[i], sign.lane[i]);
    return magnitude;
}

/* a < b ? yes : no; `no` where a or b is NaN. */
static inline lanes lanes_where_less(lanes a, lanes b, lanes yes, lanes no)
{
    LANES_EACH(i) no.lane[i] = a.lane[i] < b.lane[i] ? yes.lane[i] : no.lane[i];
    return no;
}

/* x, or the quiet NaN 0x7fc00000 where x is any NaN. */
static inline lanes lanes_canonical_nan(lanes x)
{
    const uint32_t quiet = 0x7fc00000u;
    LANES_EACH(i)
    if (x.lane[i] != x.lane[i])
        memcpy(&x.lane[i], &quiet, 4);
    return x;
}

/* +0 where a < b, else x * 2^n, rounded as a product, for integers -126 <= n <= 127; for any other
 * n NaN where x is NaN, else any float. */
static inline lanes lanes_zero_or_scale(lanes a, lanes b, lanes x, lanes n)
{
    LANES_EACH(i)
    {
        const int inside = n.lane[i] >= -126.0f && n.lane[i] <= 127.0f;
        const uint32_t bits = (uint32_t)((inside ? (int32_t)n.lane[i] : 0) + 127) << 23;
        float power;
        memcpy(&power, &bits, 4);
        x.lane[i] = a.lane[i] < b.lane[i] ? 0.0f : x.lane[i] * power;
    }
    return x;
}

/* For positive normal x = mantissa * 2^exponent, 1 <= mantissa < 2; any floats for other x. */
static inline lanes lanes_exponent(lanes x)
{
    LANES_EACH(i)
    {
        uint32_t bits;
        memcpy(&bits, &x.lane[i], 4);
        x.lane[i] = (float)((int32_t)(bits >> 23) - 127);
    }
    return x;
}

static inline lanes lanes_mantissa(lanes x)
{
    LANES_EACH(i)
    {
        uint32_t bits;
        memcpy(&bits, &x.lane[i], 4);
        bits = (bits & 0x007fffffu) | 0x3f800000u;
        memcpy(&x.lane[i], &bits, 4);
    }
    return x;
}

/*
 * The fold of the dot products: lane l += lane l+8, then +4, then +2, then +1, for 16 tokens at
 * once. The first of the two functions does the levels 8 and 4 of four lane groups: quarter i of
 * the result is what remains of argument i. The second does the levels 2 and 1 of four such
 * results: lane 4 i + j is the total of quarter i of argument j.
 */
static inline lanes lanes_fold_8_4(lanes a, lanes b, lanes c, lanes d)
{
    const lanes *from[4] = {&a, &b, &c, &d};
    lanes r;
    for (int i = 0; i < 4; i++)
        for (int l = 0; l < 4; l++)
            r.lane[4 * i + l] = (from[i]->lane[l] + from[i]->lane[l + 8]) +
                                (from[i]->lane[l + 4] + from[i]->lane[l + 12]);
    return r;
}

static inline lanes lanes_fold_2_1(lanes a, lanes b, lanes c, lanes d)
{
    const lanes *from[4] = {&a, &b, &c, &d};
    lanes r;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            r.lane[4 * i + j] = (from[j]->lane[4 * i] + from[j]->lane[4 * i + 2]) +
                                (from[j]->lane[4 * i + 1] + from[j]->lane[4 * i + 3]);
    return r;
}

static inline float lanes_first(lanes x)
{
    return x.lane[0];
}

/* The largest lane; some number if a lane is NaN. */
static inline float lanes_reduce_max(lanes x)
{
    float largest = x.lane[0];
    for (int i = 1; i < 16; i++)
        largest = largest > x.lane[i] ? largest : x.lane[i];
    return largest;
}

#endif
