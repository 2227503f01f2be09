/* SPDX-License-Identifier: Apache-2.0 */
/* The vocabulary of lanes_scalar.h on four registers of AArch64's Advanced SIMD: lanes 0-3, 4-7,
 * 8-11 and 12-15. Nothing beyond Armv8.0 is used. */
#ifndef PAGEATTN_ISA_LANES_NEON_H
#define PAGEATTN_ISA_LANES_NEON_H

#if !defined(__aarch64__) || !defined(__ARM_NEON) || defined(__AARCH64EB__)
#error "compile for little-endian AArch64"
#endif

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

/* Not float32x4x4_t: gcc 12 keeps that in four neighbouring registers, and moves it about. */
typedef struct lanes {
    float32x4_t q0;
    float32x4_t q1;
    float32x4_t q2;
    float32x4_t q3;
} lanes;

/* 16 accumulators of the 32 registers: a lane group takes four. */
#define LANES_KEY_TOKENS 2
#define LANES_KEY_HEADS 2
#define LANES_VALUE_HEADS 2
#define LANES_VALUE_SUMS 4
#define LANES_SOFTMAX_HEADS 1

#define LANES_OF(e0, e1, e2, e3) ((lanes){.q0 = (e0), .q1 = (e1), .q2 = (e2), .q3 = (e3)})
#define LANES_EACH(function, x)                                                                    \
    LANES_OF(function(x.q0), function(x.q1), function(x.q2), function(x.q3))
#define LANES_EACH_2(function, a, b)                                                               \
    LANES_OF(function(a.q0, b.q0), function(a.q1, b.q1), function(a.q2, b.q2), function(a.q3, b.q3))

static inline lanes lanes_all(float x)
{
    const float32x4_t all = vdupq_n_f32(x);
    return LANES_OF(all, all, all, all);
}

static inline lanes lanes_zero(void)
{
    return lanes_all(0.0f);
}

static inline lanes lanes_load_f32(const void *p)
{
    const float *x = p;
    return LANES_OF(vld1q_f32(x), vld1q_f32(x + 4), vld1q_f32(x + 8), vld1q_f32(x + 12));
}

/* Zeros are put below each element: a permutation, of which CPUs do more at once than of shifts
 * that widen. */
static inline lanes lanes_load_bf16(const void *p)
{
    const uint16x8_t zero = vdupq_n_u16(0);
    const uint16x8_t first = vld1q_u16(p);
    const uint16x8_t second = vld1q_u16((const uint16_t *)p + 8);
    return LANES_OF(vreinterpretq_f32_u16(vzip1q_u16(zero, first)),
                    vreinterpretq_f32_u16(vzip2q_u16(zero, first)),
                    vreinterpretq_f32_u16(vzip1q_u16(zero, second)),
                    vreinterpretq_f32_u16(vzip2q_u16(zero, second)));
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
    const float16x8_t first = vreinterpretq_f16_u16(vld1q_u16(p));
    const float16x8_t second = vreinterpretq_f16_u16(vld1q_u16((const uint16_t *)p + 8));
    return LANES_OF(vcvt_f32_f16(vget_low_f16(first)), vcvt_high_f32_f16(first),
                    vcvt_f32_f16(vget_low_f16(second)), vcvt_high_f32_f16(second));
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
    float *to = p;
    vst1q_f32(to, x.q0);
    vst1q_f32(to + 4, x.q1);
    vst1q_f32(to + 8, x.q2);
    vst1q_f32(to + 12, x.q3);
}

static inline void lanes_store_first_f32(void *p, lanes x, int64_t n)
{
    float copy[16];
    lanes_store_f32(copy, x);
    memcpy(p, copy, (size_t)n * sizeof(float));
}

/* Adds what makes the upper half the rounded one, and keeps that half. Nothing is added to a NaN.
 */
static inline uint16x4_t lanes_round_bf16(float32x4_t x)
{
    const uint32x4_t bits = vreinterpretq_u32_f32(x);
    const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
    const uint32x4_t half = vaddq_u32(odd, vdupq_n_u32(0x7fff));
    return vaddhn_u32(bits, vandq_u32(half, vceqq_f32(x, x)));
}

static inline void lanes_store_first_bf16(void *p, lanes x, int64_t n)
{
    uint16_t copy[16];
    vst1q_u16(copy, vcombine_u16(lanes_round_bf16(x.q0), lanes_round_bf16(x.q1)));
    vst1q_u16(copy + 8, vcombine_u16(lanes_round_bf16(x.q2), lanes_round_bf16(x.q3)));
    memcpy(p, copy, (size_t)n * sizeof(uint16_t));
}

static inline uint16x8_t lanes_round_f16(float32x4_t low, float32x4_t high)
{
    return vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(low), high));
}

static inline void lanes_store_first_f16(void *p, lanes x, int64_t n)
{
    uint16_t copy[16];
    vst1q_u16(copy, lanes_round_f16(x.q0, x.q1));
    vst1q_u16(copy + 8, lanes_round_f16(x.q2, x.q3));
    memcpy(p, copy, (size_t)n * sizeof(uint16_t));
}

static inline void lanes_prefetch(const char *line)
{
    __builtin_prefetch(line, 0, 3);
}

static inline lanes lanes_add(lanes a, lanes b)
{
    return LANES_EACH_2(vaddq_f32, a, b);
}

static inline lanes lanes_sub(lanes a, lanes b)
{
    return LANES_EACH_2(vsubq_f32, a, b);
}

static inline lanes lanes_mul(lanes a, lanes b)
{
    return LANES_EACH_2(vmulq_f32, a, b);
}

static inline lanes lanes_div(lanes a, lanes b)
{
    return LANES_EACH_2(vdivq_f32, a, b);
}

static inline lanes lanes_fma(lanes a, lanes b, lanes c)
{
    return LANES_OF(vfmaq_f32(c.q0, a.q0, b.q0), vfmaq_f32(c.q1, a.q1, b.q1),
                    vfmaq_f32(c.q2, a.q2, b.q2), vfmaq_f32(c.q3, a.q3, b.q3));
}

/* FMAX and FMAXNM treat a NaN in other ways, and order the zeros. */
static inline float32x4_t lanes_max_quarter(float32x4_t a, float32x4_t b)
{
    return vbslq_f32(vcgtq_f32(a, b), a, b);
}

static inline lanes lanes_max(lanes a, lanes b)
{
    return LANES_EACH_2(lanes_max_quarter, a, b);
}

static inline lanes lanes_rint(lanes x)
{
    return LANES_EACH(vrndnq_f32, x);
}

static inline lanes lanes_abs(lanes x)
{
    return LANES_EACH(vabsq_f32, x);
}

static inline float32x4_t lanes_copysign_quarter(float32x4_t magnitude, float32x4_t sign)
{
    return vbslq_f32(vdupq_n_u32(0x80000000u), sign, magnitude);
}

static inline lanes lanes_copysign(lanes magnitude, lanes sign)
{
    return LANES_EACH_2(lanes_copysign_quarter, magnitude, sign);
}

static inline lanes lanes_where_less(lanes a, lanes b, lanes yes, lanes no)
{
    return LANES_OF(vbslq_f32(vcltq_f32(a.q0, b.q0), yes.q0, no.q0),
                    vbslq_f32(vcltq_f32(a.q1, b.q1), yes.q1, no.q1),
                    vbslq_f32(vcltq_f32(a.q2, b.q2), yes.q2, no.q2),
                    vbslq_f32(vcltq_f32(a.q3, b.q3), yes.q3, no.q3));
}

static inline float32x4_t lanes_canonical_quarter(float32x4_t x)
{
    return vbslq_f32(vceqq_f32(x, x), x, vreinterpretq_f32_u32(vdupq_n_u32(0x7fc00000u)));
}

static inline lanes lanes_canonical_nan(lanes x)
{
    return LANES_EACH(lanes_canonical_quarter, x);
}

static inline float32x4_t lanes_exp2_quarter(float32x4_t n)
{
    const int32x4_t exponent = vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127));
    return vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23));
}

static inline lanes lanes_zero_or_scale(lanes a, lanes b, lanes x, lanes n)
{
    const lanes power = LANES_EACH(lanes_exp2_quarter, n);
    return lanes_where_less(a, b, lanes_zero(), lanes_mul(x, power));
}

static inline float32x4_t lanes_exponent_quarter(float32x4_t x)
{
    const int32x4_t exponent = vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_f32(x), 23));
    return vcvtq_f32_s32(vsubq_s32(exponent, vdupq_n_s32(127)));
}

static inline lanes lanes_exponent(lanes x)
{
    return LANES_EACH(lanes_exponent_quarter, x);
}

static inline float32x4_t lanes_mantissa_quarter(float32x4_t x)
{
    return vbslq_f32(vdupq_n_u32(0x007fffffu), x, vdupq_n_f32(1.0f));
}

static inline lanes lanes_mantissa(lanes x)
{
    return LANES_EACH(lanes_mantissa_quarter, x);
}

/* Level 8 adds registers 0 and 2, 1 and 3; level 4 the two sums. */
static inline float32x4_t lanes_fold_one(lanes x)
{
    return vaddq_f32(vaddq_f32(x.q0, x.q2), vaddq_f32(x.q1, x.q3));
}

static inline lanes lanes_fold_8_4(lanes a, lanes b, lanes c, lanes d)
{
    return LANES_OF(lanes_fold_one(a), lanes_fold_one(b), lanes_fold_one(c), lanes_fold_one(d));
}

/* Lanes 0 + 2 and 1 + 3 of a, then of b. */
static inline float32x4_t lanes_fold_halves(float32x4_t a, float32x4_t b)
{
    const float64x2_t a2 = vreinterpretq_f64_f32(a);
    const float64x2_t b2 = vreinterpretq_f64_f32(b);
    return vaddq_f32(vreinterpretq_f32_f64(vzip1q_f64(a2, b2)),
                     vreinterpretq_f32_f64(vzip2q_f64(a2, b2)));
}

static inline float32x4_t lanes_fold_2_1_quarter(float32x4_t a, float32x4_t b, float32x4_t c,
                                                 float32x4_t d)
{
    return vpaddq_f32(lanes_fold_halves(a, b), lanes_fold_halves(c, d));
}

static inline lanes lanes_fold_2_1(lanes a, lanes b, lanes c, lanes d)
{
    return LANES_OF(lanes_fold_2_1_quarter(a.q0, b.q0, c.q0, d.q0),
                    lanes_fold_2_1_quarter(a.q1, b.q1, c.q1, d.q1),
                    lanes_fold_2_1_quarter(a.q2, b.q2, c.q2, d.q2),
                    lanes_fold_2_1_quarter(a.q3, b.q3, c.q3, d.q3));
}

static inline float lanes_first(lanes x)
{
    return vgetq_lane_f32(x.q0, 0);
}

static inline float lanes_reduce_max(lanes x)
{
    return vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(x.q0, x.q1), vmaxnmq_f32(x.q2, x.q3)));
}

#endif
