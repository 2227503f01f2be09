/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary of lanes_scalar.h on two AVX registers: lanes 0-7 and 8-15. */
#ifndef PAGEATTN_ISA_LANES_AVX2_H
#define PAGEATTN_ISA_LANES_AVX2_H

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with -mavx2 -mfma -mf16c"
#endif

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

typedef struct lanes {
    __m256 low;
    __m256 high;
} lanes;

/* There are 16 registers, and a lane group takes two. */
#define LANES_KEY_HEADS 4
#define LANES_FEW_REGISTERS
#define LANES_VALUE_HEADS 4
#define LANES_VALUE_SUMS 4
#define LANES_SOFTMAX_HEADS 1

#define LANES_OF(low_expression, high_expression)                                                  \
    ((lanes){.low = (low_expression), .high = (high_expression)})

static inline lanes lanes_all(float x)
{
    return LANES_OF(_mm256_set1_ps(x), _mm256_set1_ps(x));
}

static inline lanes lanes_zero(void)
{
    return LANES_OF(_mm256_setzero_ps(), _mm256_setzero_ps());
}

/* 8 of them, which a load puts into both halves for nothing: one shuffle widens all. */
static inline __m256 lanes_widen_bf16(const void *halves)
{
    const __m256i order =
        _mm256_setr_epi8(-1, -1, 0, 1, -1, -1, 2, 3, -1, -1, 4, 5, -1, -1, 6, 7, -1, -1, 8, 9, -1,
                         -1, 10, 11, -1, -1, 12, 13, -1, -1, 14, 15);
    const __m256i twice = _mm256_broadcastsi128_si256(_mm_loadu_si128(halves));
    return _mm256_castsi256_ps(_mm256_shuffle_epi8(twice, order));
}

static inline lanes lanes_load_f32(const void *p)
{
    return LANES_OF(_mm256_loadu_ps(p), _mm256_loadu_ps((const float *)p + 8));
}

static inline lanes lanes_load_bf16(const void *p)
{
    const __m128i *halves = p;
    return LANES_OF(lanes_widen_bf16(halves), lanes_widen_bf16(halves + 1));
}

static inline void lanes_load_two_bf16(const void *p, lanes *first, lanes *second)
{
    *first = lanes_load_bf16(p);
    *second = lanes_load_bf16((const char *)p + 32);
}

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
    const __m128i *halves = p;
    return LANES_OF(_mm256_cvtph_ps(_mm_loadu_si128(halves)),
                    _mm256_cvtph_ps(_mm_loadu_si128(halves + 1)));
}

static inline lanes lanes_load_first_f32(const void *p, int64_t n)
{
    float copy[16] = {0};
    memcpy(copy, p, (size_t)n * sizeof(float));
    return lanes_load_f32(copy);
}

static inline lanes lanes_load_first_bf16(const void *p, int64_t n)
{
    uint16_t copy[16] = {0};
    memcpy(copy, p, (size_t)n * sizeof(uint16_t));
    return lanes_load_bf16(copy);
}

static inline lanes lanes_load_first_f16(const void *p, int64_t n)
{
    uint16_t copy[16] = {0};
    memcpy(copy, p, (size_t)n * sizeof(uint16_t));
    return lanes_load_f16(copy);
}

static inline void lanes_store_f32(void *p, lanes x)
{
    _mm256_storeu_ps(p, x.low);
    _mm256_storeu_ps((float *)p + 8, x.high);
}

static inline void lanes_store_first_f32(void *p, lanes x, int64_t n)
{
    float copy[16];
    lanes_store_f32(copy, x);
    memcpy(p, copy, (size_t)n * sizeof(float));
}

/* The result is in the lower half of each 32-bit element. */
static inline __m256i lanes_round_bf16(__m256 x)
{
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
    const __m256i number = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_ORD_Q));
    return _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_and_si256(half, number)), 16);
}

static inline void lanes_store_first_bf16(void *p, lanes x, int64_t n)
{
    /* The pack works on 128-bit halves: 0-3, 8-11, 4-7, 12-15 must be put in order. */
    const __m256i packed = _mm256_packus_epi32(lanes_round_bf16(x.low), lanes_round_bf16(x.high));
    uint16_t copy[16];
    _mm256_storeu_si256((__m256i *)copy, _mm256_permute4x64_epi64(packed, 0xd8));
    memcpy(p, copy, (size_t)n * sizeof(uint16_t));
}

static inline void lanes_store_first_f16(void *p, lanes x, int64_t n)
{
    uint16_t copy[16];
    _mm_storeu_si128((__m128i *)copy, _mm256_cvtps_ph(x.low, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)copy + 1, _mm256_cvtps_ph(x.high, _MM_FROUND_TO_NEAREST_INT));
    memcpy(p, copy, (size_t)n * sizeof(uint16_t));
}

static inline void lanes_prefetch(const char *line)
{
    __builtin_prefetch(line, 0, 3);
}

static inline lanes lanes_add(lanes a, lanes b)
{
    return LANES_OF(_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high));
}

static inline lanes lanes_sub(lanes a, lanes b)
{
    return LANES_OF(_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high));
}

static inline lanes lanes_mul(lanes a, lanes b)
{
    return LANES_OF(_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high));
}

static inline lanes lanes_div(lanes a, lanes b)
{
    return LANES_OF(_mm256_div_ps(a.low, b.low), _mm256_div_ps(a.high, b.high));
}

static inline lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return LANES_OF(_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high));
}

static inline lanes lanes_max(lanes a, lanes b)
{
    return LANES_OF(_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high));
}

static inline lanes lanes_rint(lanes x)
{
    return LANES_OF(_mm256_round_ps(x.low, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                    _mm256_round_ps(x.high, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

static inline lanes lanes_abs(lanes x)
{
    const __m256 sign_bit = _mm256_set1_ps(-0.0f);
    return LANES_OF(_mm256_andnot_ps(sign_bit, x.low), _mm256_andnot_ps(sign_bit, x.high));
}

static inline __m256 lanes_copysign_half(__m256 magnitude, __m256 sign)
{
    const __m256 sign_bit = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign_bit, magnitude), _mm256_and_ps(sign_bit, sign));
}

static inline lanes lanes_copysign(lanes magnitude, lanes sign)
{
    return LANES_OF(lanes_copysign_half(magnitude.low, sign.low),
                    lanes_copysign_half(magnitude.high, sign.high));
}

static inline lanes lanes_where_less(lanes a, lanes b, lanes yes, lanes no)
{
    return LANES_OF(_mm256_blendv_ps(no.low, yes.low, _mm256_cmp_ps(a.low, b.low, _CMP_LT_OQ)),
                    _mm256_blendv_ps(no.high, yes.high, _mm256_cmp_ps(a.high, b.high, _CMP_LT_OQ)));
}

static inline lanes lanes_canonical_nan(lanes x)
{
    const __m256 quiet = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
    return LANES_OF(_mm256_blendv_ps(x.low, quiet, _mm256_cmp_ps(x.low, x.low, _CMP_UNORD_Q)),
                    _mm256_blendv_ps(x.high, quiet, _mm256_cmp_ps(x.high, x.high, _CMP_UNORD_Q)));
}

static inline __m256 lanes_exp2_half(__m256 n)
{
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}

static inline lanes lanes_zero_or_scale(lanes a, lanes b, lanes x, lanes n)
{
    const lanes power = LANES_OF(lanes_exp2_half(n.low), lanes_exp2_half(n.high));
    return lanes_where_less(a, b, lanes_zero(), lanes_mul(x, power));
}

static inline __m256 lanes_exponent_half(__m256 x)
{
    const __m256i exponent = _mm256_srli_epi32(_mm256_castps_si256(x), 23);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(exponent, _mm256_set1_epi32(127)));
}

static inline lanes lanes_exponent(lanes x)
{
    return LANES_OF(lanes_exponent_half(x.low), lanes_exponent_half(x.high));
}

static inline __m256 lanes_mantissa_half(__m256 x)
{
    const __m256 fraction = _mm256_castsi256_ps(_mm256_set1_epi32(0x007fffff));
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_or_ps(_mm256_and_ps(x, fraction), one);
}

static inline lanes lanes_mantissa(lanes x)
{
    return LANES_OF(lanes_mantissa_half(x.low), lanes_mantissa_half(x.high));
}

/* Level 8 adds the two registers of a lane group, level 4 the halves of a register. Additions
 * commute, so one shuffle and a blend, which more ports do, take the place of two shuffles. */
static inline __m256 lanes_fold_two(lanes a, lanes b)
{
    const __m256 a8 = _mm256_add_ps(a.low, a.high);
    const __m256 b8 = _mm256_add_ps(b.low, b.high);
    return _mm256_add_ps(_mm256_permute2f128_ps(a8, b8, 0x21), _mm256_blend_ps(a8, b8, 0xf0));
}

static inline lanes lanes_fold_8_4(lanes a, lanes b, lanes c, lanes d)
{
    return LANES_OF(lanes_fold_two(a, b), lanes_fold_two(c, d));
}

/* Lanes 0 and 2, 1 and 3 of a, then of b, in each 128 bits. */
static inline __m256 lanes_fold_2_half(__m256 a, __m256 b)
{
    return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x4e), _mm256_blend_ps(a, b, 0xcc));
}

static inline __m256 lanes_fold_2_1_half(__m256 a, __m256 b, __m256 c, __m256 d)
{
    const __m256 ac = lanes_fold_2_half(a, c), bd = lanes_fold_2_half(b, d);
    const __m256 neighbours = _mm256_permute_ps(_mm256_blend_ps(bd, ac, 0xaa), 0xb1);
    return _mm256_add_ps(_mm256_blend_ps(ac, bd, 0xaa), neighbours);
}

static inline lanes lanes_fold_2_1(lanes a, lanes b, lanes c, lanes d)
{
    return LANES_OF(lanes_fold_2_1_half(a.low, b.low, c.low, d.low),
                    lanes_fold_2_1_half(a.high, b.high, c.high, d.high));
}

static inline float lanes_first(lanes x)
{
    return _mm256_cvtss_f32(x.low);
}

static inline float lanes_reduce_max(lanes x)
{
    const __m256 m8 = _mm256_max_ps(x.low, x.high);
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

/* ---- half a lane group: lanes 0-7 or 8-15 ---- */

typedef __m256 half_lanes;

static inline half_lanes half_lanes_zero(void)
{
    return _mm256_setzero_ps();
}

static inline half_lanes half_lanes_load_f32(const void *p)
{
    return _mm256_loadu_ps(p);
}

static inline half_lanes half_lanes_load_bf16(const void *p)
{
    return lanes_widen_bf16(p);
}

static inline half_lanes half_lanes_load_f16(const void *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128(p));
}

/* The sum stays in its register: left to itself gcc 12 forms the instruction that overwrites a
 * factor, and then keeps a sum or two in memory, which makes the loop wait for it. */
static inline half_lanes half_lanes_fma(half_lanes a, half_lanes b, half_lanes c)
{
    __asm__("vfmadd231ps {%2, %1, %0|%0, %1, %2}" : "+x"(c) : "x"(a), "x"(b));
    return c;
}

static inline half_lanes lanes_half(lanes x, int half)
{
    return half == 0 ? x.low : x.high;
}

static inline void lanes_set_half(lanes *x, int half, half_lanes value)
{
    if (half == 0)
        x->low = value;
    else
        x->high = value;
}

#endif
