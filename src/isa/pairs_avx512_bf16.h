/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fast kernels need beside the lane vocabulary, on AVX-512 with BF16: a `pairs` holds 16
 * pairs of bf16, of which lane l has elements 2 l and 2 l + 1.
 */
#ifndef PAGEATTN_ISA_PAIRS_AVX512_BF16_H
#define PAGEATTN_ISA_PAIRS_AVX512_BF16_H

#if !defined(__AVX512BF16__)
#error "compile with -mavx512bf16"
#endif

#include "lanes_avx512.h"

typedef __m512i pairs;

/* A masked load does not touch what its mask excludes, not even to fault. */
static inline __mmask32 pairs_mask_first(int64_t n)
{
    return (__mmask32)(0xffffffffu >> (32 - n));
}

static inline pairs pairs_zero(void)
{
    return _mm512_setzero_si512();
}

static inline pairs pairs_load(const void *p)
{
    return _mm512_loadu_si512(p);
}

/* The first n elements, 1 <= n <= 32, and zeros. */
static inline pairs pairs_load_first(const void *p, int64_t n)
{
    return _mm512_maskz_loadu_epi16(pairs_mask_first(n), p);
}

/* Writes x as 16 bf16, rounded to nearest even. A NaN stays one; what is subnormal becomes 0,
 * whatever MXCSR says. */
static inline void pairs_store_rounded(void *p, lanes x)
{
    _mm256_storeu_si256(p, (__m256i)_mm512_cvtneps_pbh(x));
}

/* The pair at p in all lanes. */
static inline pairs pairs_all(const void *p)
{
    int32_t pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return _mm512_set1_epi32(pair);
}

/* sum + a[odd] b[odd] + a[even] b[even], in this order, each step fused. VDPBF16PS takes subnormal
 * operands for 0, flushes subnormal results, and heeds no rounding mode. */
static inline lanes pairs_dot(lanes sum, pairs a, pairs b)
{
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

/*
 * Element i of a beside element i of b. Instructions do this within 128 bits only: of each eight
 * elements the first four go to the low result, the others to the high one, so lane 4 k + i is
 * column 8 k + i there and column 8 k + 4 + i here.
 */
static inline pairs pairs_beside_low(pairs a, pairs b)
{
    return _mm512_unpacklo_epi16(a, b);
}

static inline pairs pairs_beside_high(pairs a, pairs b)
{
    return _mm512_unpackhi_epi16(a, b);
}

/* From low and high sums as above to columns 0-15 and 16-31, in order. */
static inline void pairs_to_columns(lanes *first, lanes *second)
{
    const __m512i to_first =
        _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i to_second =
        _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const lanes low = *first, high = *second;
    *first = _mm512_permutex2var_ps(low, to_first, high);
    *second = _mm512_permutex2var_ps(low, to_second, high);
}

/* And back. */
static inline void pairs_from_columns(lanes *first, lanes *second)
{
    const __m512i to_low =
        _mm512_setr_epi32(0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
    const __m512i to_high =
        _mm512_setr_epi32(4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    const lanes left = *first, right = *second;
    *first = _mm512_permutex2var_ps(left, to_low, right);
    *second = _mm512_permutex2var_ps(left, to_high, right);
}

#endif
