/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary of lanes_scalar.h on one AVX-512 register. */
#ifndef PAGEATTN_ISA_LANES_AVX512_H
#define PAGEATTN_ISA_LANES_AVX512_H

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) ||                   \
    !defined(__AVX512VL__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mf16c"
#endif

#include <immintrin.h>
#include <stdint.h>

typedef __m512 lanes;

/* 16 accumulators of the 32 registers; the operands take the others. */
#define LANES_KEY_TOKENS 4
#define LANES_KEY_HEADS 4
#define LANES_VALUE_HEADS 4
#define LANES_VALUE_SUMS 16
#define LANES_SOFTMAX_HEADS 4

/* A mask that is no constant to clang, which else has blends done by shuffles, and what a mask
 * zeroes by a permutation of two registers. */
static inline __mmask32 lanes_mask(uint32_t bits)
{
    __mmask32 mask = bits;
#ifdef __clang__
    __asm__("" : "+Yk"(mask));
#endif
    return mask;
}

static inline lanes lanes_all(float x)
{
    return _mm512_set1_ps(x);
}

static inline lanes lanes_zero(void)
{
    return _mm512_setzero_ps();
}

static inline lanes lanes_widen_bf16(__m256i halves)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

static inline lanes lanes_load_f32(const void *p)
{
    return _mm512_loadu_ps(p);
}

/* Elements first to first + 15 of 32, as the upper halves of lanes whose lower halves are zero. */
static inline lanes lanes_pick_bf16(__m512i halves, int first)
{
    const __m512i from_0 = _mm512_set_epi16(15, 0, 14, 0, 13, 0, 12, 0, 11, 0, 10, 0, 9, 0, 8, 0, 7,
                                            0, 6, 0, 5, 0, 4, 0, 3, 0, 2, 0, 1, 0, 0, 0);
    const __m512i from_first = _mm512_add_epi16(from_0, _mm512_set1_epi16((int16_t)first));
    return _mm512_castsi512_ps(
        _mm512_maskz_permutexvar_epi16(lanes_mask(0xaaaaaaaa), from_first, halves));
}

static inline lanes lanes_load_bf16(const void *p)
{
    return lanes_pick_bf16(_mm512_castsi256_si512(_mm256_loadu_si256(p)), 0);
}

static inline void lanes_load_two_bf16(const void *p, lanes *first, lanes *second)
{
    const __m512i halves = _mm512_loadu_si512(p);
    *first = lanes_pick_bf16(halves, 0);
    *second = lanes_pick_bf16(halves, 16);
}

/* The even elements and the odd ones: a shift, and a load that leaves out every lower half. */
static inline void lanes_load_two_bf16_unordered(const void *p, lanes *first, lanes *second)
{
    *first = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
    *second = _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(0xaaaaaaaa, p));
}

static inline void lanes_put_in_order(lanes *first, lanes *second)
{
    const __m512i lower = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i upper =
        _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const lanes even = *first, odd = *second;
    *first = _mm512_permutex2var_ps(even, lower, odd);
    *second = _mm512_permutex2var_ps(even, upper, odd);
}

static inline lanes lanes_load_f16(const void *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

/* A masked load does not touch what its mask excludes, not even to fault. */
static inline __mmask16 lanes_mask_first(int64_t n)
{
    return (__mmask16)(0xffffu >> (16 - n));
}

static inline lanes lanes_load_first_f32(const void *p, int64_t n)
{
    return _mm512_maskz_loadu_ps(lanes_mask_first(n), p);
}

static inline lanes lanes_load_first_bf16(const void *p, int64_t n)
{
    return lanes_widen_bf16(_mm256_maskz_loadu_epi16(lanes_mask_first(n), p));
}

static inline lanes lanes_load_first_f16(const void *p, int64_t n)
{
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes_mask_first(n), p));
}

static inline void lanes_store_f32(void *p, lanes x)
{
    _mm512_storeu_ps(p, x);
}

static inline void lanes_store_first_f32(void *p, lanes x, int64_t n)
{
    _mm512_mask_storeu_ps(p, lanes_mask_first(n), x);
}

static inline void lanes_store_first_bf16(void *p, lanes x, int64_t n)
{
    /* Not VCVTNEPS2BF16: it flushes subnormals whatever MXCSR says. */
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __mmask16 number = _mm512_cmp_ps_mask(x, x, _CMP_ORD_Q);
    const __m512i rounded = _mm512_mask_add_epi32(bits, number, bits, half);
    const __m256i halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
    _mm256_mask_storeu_epi16(p, lanes_mask_first(n), halves);
}

static inline void lanes_store_first_f16(void *p, lanes x, int64_t n)
{
    _mm256_mask_storeu_epi16(p, lanes_mask_first(n),
                             _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* Into L1, and where it stands: gcc puts builtin prefetches in the order of their addresses. clang
 * does not, and after an asm it would load anew what it has in registers. */
static inline void lanes_prefetch(const char *line)
{
#ifdef __clang__
    __builtin_prefetch(line, 0, 3);
#else
    __asm__ volatile("prefetcht0 %0" : : "m"(*line));
#endif
}

static inline lanes lanes_add(lanes a, lanes b)
{
    return _mm512_add_ps(a, b);
}

static inline lanes lanes_sub(lanes a, lanes b)
{
    return _mm512_sub_ps(a, b);
}

static inline lanes lanes_mul(lanes a, lanes b)
{
    return _mm512_mul_ps(a, b);
}

static inline lanes lanes_div(lanes a, lanes b)
{
    return _mm512_div_ps(a, b);
}

static inline lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return _mm512_fmadd_ps(a, b, c);
}

static inline lanes lanes_max(lanes a, lanes b)
{
    return _mm512_max_ps(a, b);
}

static inline lanes lanes_rint(lanes x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline lanes lanes_abs(lanes x)
{
    return _mm512_abs_ps(x);
}

static inline lanes lanes_copysign(lanes magnitude, lanes sign)
{
    const __m512 sign_bit = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(sign_bit, magnitude), _mm512_and_ps(sign_bit, sign));
}

static inline lanes lanes_where_less(lanes a, lanes b, lanes yes, lanes no)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), no, yes);
}

static inline lanes lanes_canonical_nan(lanes x)
{
    const __m512 quiet = _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000));
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), x, quiet);
}

static inline lanes lanes_zero_or_scale(lanes a, lanes b, lanes x, lanes n)
{
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ), x, n);
}

static inline lanes lanes_exponent(lanes x)
{
    const __m512i exponent = _mm512_srli_epi32(_mm512_castps_si512(x), 23);
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(exponent, _mm512_set1_epi32(127)));
}

static inline lanes lanes_mantissa(lanes x)
{
    const __m512i fraction =
        _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x007fffff));
    return _mm512_castsi512_ps(_mm512_or_si512(fraction, _mm512_set1_epi32(0x3f800000)));
}

static inline lanes lanes_blend(uint32_t from_b, lanes a, lanes b)
{
    return _mm512_mask_blend_ps((__mmask16)lanes_mask(from_b), a, b);
}

/* A shuffle costs a port that multiply-adds want, a blend goes anywhere: so what stays is blended,
 * and what meets it is moved. In place of two blends and a shuffle two shuffles do. */
static inline lanes lanes_fold_8_4(lanes a, lanes b, lanes c, lanes d)
{
    const __m512 ab = _mm512_add_ps(lanes_blend(0xff00, a, b), _mm512_shuffle_f32x4(a, b, 0x4e));
    const __m512 cd = _mm512_add_ps(lanes_blend(0xff00, c, d), _mm512_shuffle_f32x4(c, d, 0x4e));
    return _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

static inline lanes lanes_fold_2_1(lanes a, lanes b, lanes c, lanes d)
{
    const __m512 ab = _mm512_add_ps(lanes_blend(0xcccc, a, b), _mm512_shuffle_ps(a, b, 0x4e));
    const __m512 cd = _mm512_add_ps(lanes_blend(0xcccc, c, d), _mm512_shuffle_ps(c, d, 0x4e));
    return _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x88), _mm512_shuffle_ps(ab, cd, 0xdd));
}

static inline float lanes_first(lanes x)
{
    return _mm512_cvtss_f32(x);
}

static inline float lanes_reduce_max(lanes x)
{
    return _mm512_reduce_max_ps(x);
}

#endif
