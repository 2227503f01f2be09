/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far a result may be from the exact one: the bounds of docs/numerics.md, for any case. Shared
 * by the accuracy test and the fuzz target that compares calls with the reference.
 */
#ifndef ACCURACY_BOUND_H
#define ACCURACY_BOUND_H

#include "paged_case.h"

/*
 * The bound. At unit variance, head_dim 128 and the default scale, docs/numerics.md allows an
 * absolute error of 5e-7 of the greatest |v|. What it is made of: an error e[t] of logit t moves
 * the output by sum_t p[t] e[t] (v[t] - out), and e comes from the rounding of q' k and its sums.
 *
 * - A lane adds head_dim / 16 products one by one; each addition rounds by u/sqrt(3) of a partial
 *   sum (u = 2^-24). For independent products of variance s^2 / head_dim, s being the spread of the
 *   logits, the variances of those errors sum up to (u s)^2 / 3 * head_dim / 32 over the 16 lanes;
 *   the roundings of q' and the four folds add about 5 more (u s)^2 / 3. So e grows as
 *   s sqrt(head_dim / 32 + 5), which is 3 s at the design point. There s is 1 but for the luck of
 *   one row's 128 numbers, for which 5e-7 has a quarter of room.
 * - A soft cap adds a division, tanh (1.3 ulp) and a product, about 5 u of a logit of that size:
 *   twice the bound covers it.
 * - exp, the sums over tokens, the merges and the division add a few u |out|, which does not depend
 *   on head_dim.
 * - The sum over t averages the e[t] of many tokens. Where few carry the weight, one e[t] goes into
 *   the output almost whole, and the greatest of a case's 100,000 outputs lies 5 or 6 deviations
 *   out. So away from the design point half as much again is allowed.
 */
#define DESIGN_BOUND 5e-7
#define DESIGN_HEAD_DIM 128
#define DESIGN_TOKENS 4096

static inline double scaled_bound(const logical_case *logical, int64_t seq, double spread)
{
    const int at_design_point =
        logical->head_dim == DESIGN_HEAD_DIM && logical->lens[seq] >= DESIGN_TOKENS;
    const double dims = sqrt(((double)logical->head_dim / 32 + 5) / 9);
    return DESIGN_BOUND * (at_design_point ? 1 : 1.5) * fmax(1, dims) * fmax(1, spread / 1.25) *
           (logical->soft_cap > 0 ? 2 : 1);
}

/*
 * What fast arithmetic may add. Each weight is off by a factor in [(1 - u) exp(-E), (1 + u)
 * exp(E)], where u = 2^-8 is the rounding of a weight to bf16 and E the greatest error of a logit.
 * A mean of values within +-M whose weights are off by factors within a ratio r of one another
 * moves by at most 2 M tanh(log(r) / 4): the worst case is one half of the weight at M and the
 * other at -M. So the bound is 2 M tanh((E + u) / 2), or M (E + u) while that is small.
 *
 * E comes from rounding the query: scale * |dot(rounded - query, key)|, by Cauchy and Schwarz at
 * most the product of the two lengths; a soft cap makes no error greater. It is 0 for bf16 queries.
 */
#define WEIGHT_ROUNDING 0x1p-8

static inline double length_of(pageattn_type type, const char *row, int64_t dim, int rounding_only)
{
    double sum = 0;
    for (int64_t d = 0; d < dim; d++) {
        double x = decode(type, row + d * type_bytes(type));
        x -= rounding_only ? round_to(PAGEATTN_BF16, x) : 0;
        sum += isfinite(x) ? x * x : 0;
    }
    return sqrt(sum);
}

static inline double fast_logit_error(const logical_case *logical, int64_t seq, int64_t head)
{
    const double scale = logical->attn_scale == PAGEATTN_DEFAULT_ATTN_SCALE
                             ? 1 / sqrt((double)logical->head_dim)
                             : fabs((double)logical->attn_scale);
    const double query =
        length_of(logical->query_type, query_row(logical, seq, head), logical->head_dim, 1);
    double longest = 0;
    if (logical->numerics == PAGEATTN_NUMERICS_EXACT || query == 0)
        return 0;
    for (int64_t t = first_position(logical, seq); t < logical->lens[seq]; t++)
        longest = fmax(longest, length_of(logical->kv_type,
                                          key_row(logical, seq, head / logical->group_size, t),
                                          logical->head_dim, 0));
    return scale * query * longest;
}

static inline double fast_bound(const logical_case *logical, int64_t seq, int64_t head)
{
    if (logical->numerics == PAGEATTN_NUMERICS_EXACT)
        return 0;
    return 2 * tanh((fast_logit_error(logical, seq, head) + WEIGHT_ROUNDING) / 2);
}

static inline double root_mean_square(pageattn_type type, const char *elements, int64_t count)
{
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        const double x = decode(type, elements + i * type_bytes(type));
        sum += isfinite(x) ? x * x : 0;
    }
    return count > 0 ? sqrt(sum / (double)count) : 0;
}

/* The expected spread of the logits of a query row, were its keys of unit variance. */
static inline double spread_of(const logical_case *logical, int64_t seq, int64_t head)
{
    const double scale = logical->attn_scale == PAGEATTN_DEFAULT_ATTN_SCALE
                             ? 1 / sqrt((double)logical->head_dim)
                             : fabs((double)logical->attn_scale);
    return scale * sqrt((double)logical->head_dim) *
           root_mean_square(logical->query_type, query_row(logical, seq, head), logical->head_dim);
}

/* The greatest finite |v| that a row attends to. */
static inline double max_value_of(const logical_case *logical, int64_t seq, int64_t kv_head)
{
    const pageattn_type type = logical->kv_type;
    const int64_t first = first_position(logical, seq);
    const int64_t count = (logical->lens[seq] - first) * logical->value_head_dim;
    const char *values = value_row(logical, seq, kv_head, first);
    double max = 0;
    for (int64_t i = 0; i < count; i++) {
        const double size = fabs(decode(type, values + i * type_bytes(type)));
        max = isfinite(size) && size > max ? size : max;
    }
    return max;
}

/* How far an element of out may be off before it is rounded. */
static inline double out_bound(const logical_case *logical, int64_t seq, int64_t head)
{
    const double max_value = max_value_of(logical, seq, head / logical->group_size);
    return (scaled_bound(logical, seq, spread_of(logical, seq, head)) +
            fast_bound(logical, seq, head)) *
           fmax(max_value, 1e-30);
}

/* lse = m + log(l) errs by the weighted mean of the logits' errors, and by the roundings of log and
 * of the sum, u of |log l| and |lse|. A logit of size S that dwarfs the spread has products of one
 * sign: each lane's sum climbs to S / 16, the variances of its roundings sum up to (u S)^2 / 3 *
 * head_dim / 768 over all lanes, and the folds and q' add about (u S)^2 / 3 * 2. */
static inline double lse_bound(const logical_case *logical, int64_t seq, int64_t head, double exact)
{
    const double size = isfinite(exact) ? fabs(exact) : 0;
    return scaled_bound(logical, seq, spread_of(logical, seq, head)) +
           fast_logit_error(logical, seq, head) +
           (logical->numerics == PAGEATTN_NUMERICS_FAST ? WEIGHT_ROUNDING : 0) +
           0x1p-24 * size * (1 + 2 * sqrt(2 + (double)logical->head_dim / 768));
}

static inline uint32_t element_bits(pageattn_type type, const char *element)
{
    uint32_t word;
    uint16_t half;
    if (type != PAGEATTN_F32) {
        memcpy(&half, element, 2);
        return half;
    }
    memcpy(&word, element, 4);
    return word;
}

/* A NaN must be the canonical one; an infinity must be where the reference has one. A finite number
 * must be the rounding of a number within the bound of the exact one: so it is within 1 ulp of
 * the rounded exact one wherever the bound is below half an ulp, and within the bound elsewhere. */
static inline int element_agrees(pageattn_type type, const char *element, double exact,
                                 double bound)
{
    static const uint32_t nan_bits[] = {0, 0x7fc00000u, 0x7fc0u, 0x7e00u};
    if (isnan(exact))
        return element_bits(type, element) == nan_bits[type];
    const double got = decode(type, element);
    if (isinf(exact))
        return got == exact;
    return got >= round_to(type, exact - bound) && got <= round_to(type, exact + bound);
}

/* The same for lse, which is always f32. */
static inline int lse_agrees(float lse, double exact, double bound)
{
    uint32_t bits;
    memcpy(&bits, &lse, 4);
    return isnan(exact)   ? bits == 0x7fc00000u
           : isinf(exact) ? (double)lse == exact
                          : fabs((double)lse - exact) <= bound;
}

#endif
