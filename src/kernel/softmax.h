/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a leaf's dot products to its weights exp(logit - m), in place, with their maximum m and sum.
 * The arrays cover whole lane groups; tokens outside [begin, end) end up with weight +0.
 */
#ifndef PAGEATTN_KERNEL_SOFTMAX_H
#define PAGEATTN_KERNEL_SOFTMAX_H

#include <math.h>

#include "elements.h"
#include "exp.h"
#include "tanh.h"

/* of_heads(n, h, ...) for heads h to h + n - 1 of num_heads, until all had their turn: as many at a
 * time as go side by side, the rest one by one. It is inlined, and n a constant to it. */
#define FOR_HEADS_SIDE_BY_SIDE(num_heads, of_heads, ...)                                           \
    do {                                                                                           \
        const int64_t end_ = (num_heads);                                                          \
        int64_t head_ = 0;                                                                         \
        for (; head_ + LANES_SOFTMAX_HEADS <= end_; head_ += LANES_SOFTMAX_HEADS)                  \
            of_heads(LANES_SOFTMAX_HEADS, head_, __VA_ARGS__);                                     \
        for (; head_ < end_; head_++)                                                              \
            of_heads(1, head_, __VA_ARGS__);                                                       \
    } while (0)

/* A leaf that holds nothing but logits of -infinity shifts by 0, so that its weights are exp(-inf)
 * = 0 and not exp(-inf + inf) = NaN: another leaf of the sequence may well have finite logits. */
KERNEL_INLINE float finite_shift(float max)
{
    return max == -INFINITY ? 0.0f : max;
}

_Static_assert(LANES_SOFTMAX_HEADS <= 4, "a fold takes four lane groups");

/* Of each of num_heads lane groups: lane l += lane l + 8, then + 4, + 2, + 1. */
KERNEL_INLINE void sum_lanes_of_heads(int num_heads, const lanes x[], float *sum)
{
    const int last = num_heads - 1;
    float total[PAGEATTN_LANES];
    const lanes quarters =
        lanes_fold_8_4(x[0], x[1 < last ? 1 : last], x[2 < last ? 2 : last], x[last]);
    lanes_store_f32(total, lanes_fold_2_1(quarters, quarters, quarters, quarters));
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++)
        sum[h] = total[4 * h];
}

KERNEL_INLINE void cap_logits(float *logits, int64_t begin, int64_t end, float cap)
{
    const lanes cap_lanes = lanes_all(cap);
    for (int64_t t = begin; t < end; t += PAGEATTN_LANES) {
        const lanes ratio = lanes_div(lanes_load_f32(logits + t), cap_lanes);
        lanes_store_f32(logits + t, lanes_mul(cap_lanes, lanes_tanh(ratio)));
    }
}

/* Most leaves have none. */
KERNEL_INLINE int has_masks(const pageattn_leaf *leaf)
{
    return leaf->soft_cap > 0.0f || leaf->begin < leaf->soft_end ||
           leaf->begin % PAGEATTN_LANES != 0 || leaf->end % PAGEATTN_LANES != 0;
}

/* What comes before the maximum: the soft cap and the masks. */
KERNEL_INLINE void mask_logits(const pageattn_leaf *leaf, float *logits)
{
    const int64_t first = leaf->begin / PAGEATTN_LANES * PAGEATTN_LANES;
    const int64_t last = pageattn_padded(leaf->end);

    if (leaf->soft_cap > 0.0f)
        cap_logits(logits, first, last, leaf->soft_cap);
    for (int64_t t = leaf->begin; t < leaf->soft_end; t++)
        logits[t] += leaf->soft_mask;
    for (int64_t t = first; t < leaf->begin; t++)
        logits[t] = -INFINITY;
    for (int64_t t = leaf->end; t < last; t++)
        logits[t] = -INFINITY;
}

KERNEL_INLINE void max_of_heads(int num_heads, int64_t head, const pageattn_leaf *leaf, float *max)
{
    const float *logits = leaf->logits + head * PAGEATTN_LEAF_TOKENS;
    const int64_t first = leaf->begin / PAGEATTN_LANES * PAGEATTN_LANES;
    const int64_t last = pageattn_padded(leaf->end);
    lanes max_lanes[LANES_SOFTMAX_HEADS];

    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++)
        max_lanes[h] = lanes_all(-INFINITY);
    for (int64_t t = first; t < last; t += PAGEATTN_LANES) {
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            max_lanes[h] =
                lanes_max(max_lanes[h], lanes_load_f32(logits + h * PAGEATTN_LEAF_TOKENS + t));
    }
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++)
        max[head + h] = lanes_reduce_max(max_lanes[h]);
}

/* The weights of lane group t of num_heads heads, whose logits begin at `logits`. */
KERNEL_INLINE void weigh_group(int num_heads, const float *logits, int64_t t, const lanes shift[],
                               lanes weight[])
{
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++)
        weight[h] = lanes_sub(lanes_load_f32(logits + h * PAGEATTN_LEAF_TOKENS + t), shift[h]);
    lanes_exp_each(num_heads, weight);
}

/* Replaces logits by weights. */
KERNEL_INLINE void weights_of_heads(int num_heads, int64_t head, const pageattn_leaf *leaf,
                                    const float *max, float *sum)
{
    float *logits = leaf->logits + head * PAGEATTN_LEAF_TOKENS;
    const int64_t first = leaf->begin / PAGEATTN_LANES * PAGEATTN_LANES;
    const int64_t last = pageattn_padded(leaf->end);
    lanes shift[LANES_SOFTMAX_HEADS], weight[LANES_SOFTMAX_HEADS], sum_lanes[LANES_SOFTMAX_HEADS];

    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++) {
        shift[h] = lanes_all(finite_shift(max[head + h]));
        sum_lanes[h] = lanes_zero();
    }
    for (int64_t t = first; t < last; t += PAGEATTN_LANES) {
        weigh_group(num_heads, logits, t, shift, weight);
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++) {
            lanes_store_f32(logits + h * PAGEATTN_LEAF_TOKENS + t, weight[h]);
            sum_lanes[h] = lanes_add(sum_lanes[h], weight[h]);
        }
    }
    sum_lanes_of_heads(num_heads, sum_lanes, sum + head);
}

/* Masks the logits of all heads and finds their maxima. These come before the first weight, as each
 * ends with a chain of operations that wait for one another. */
KERNEL_INLINE void mask_heads(const pageattn_leaf *leaf, float *max)
{
    if (has_masks(leaf)) {
        for (int64_t h = 0; h < leaf->num_heads; h++)
            mask_logits(leaf, leaf->logits + h * PAGEATTN_LEAF_TOKENS);
    }
    FOR_HEADS_SIDE_BY_SIDE(leaf->num_heads, max_of_heads, leaf, max);
}

#endif
