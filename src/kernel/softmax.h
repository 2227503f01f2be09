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

/* A leaf that holds nothing but logits of -infinity shifts by 0, so that its weights are exp(-inf)
 * = 0 and not exp(-inf + inf) = NaN: another leaf of the sequence may well have finite logits. */
KERNEL_INLINE float finite_shift(float max)
{
    return max == -INFINITY ? 0.0f : max;
}

/* Lane l += lane l + 8, then + 4, + 2, + 1. */
KERNEL_INLINE float sum_of_lanes(lanes x)
{
    const lanes quarter = lanes_fold_8_4(x, x, x, x);
    return lanes_first(lanes_fold_2_1(quarter, quarter, quarter, quarter));
}

KERNEL_INLINE void cap_logits(float *logits, int64_t begin, int64_t end, float cap)
{
    const lanes cap_lanes = lanes_all(cap);
    for (int64_t t = begin; t < end; t += PAGEATTN_LANES) {
        const lanes ratio = lanes_div(lanes_load_f32(logits + t), cap_lanes);
        lanes_store_f32(logits + t, lanes_mul(cap_lanes, lanes_tanh(ratio)));
    }
}

/* What comes before the weights: the soft cap and the masks. Returns the maximum. */
KERNEL_INLINE float mask_logits(const pageattn_leaf *leaf, float *logits)
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

    lanes max_lanes = lanes_all(-INFINITY);
    for (int64_t t = first; t < last; t += PAGEATTN_LANES)
        max_lanes = lanes_max(max_lanes, lanes_load_f32(logits + t));
    return lanes_reduce_max(max_lanes);
}

/* The maxima of all heads. Each is a chain of operations that wait for one another; made before the
 * first weight, those of several heads run side by side. */
KERNEL_INLINE void mask_heads(const pageattn_leaf *leaf, float *max)
{
    for (int64_t h = 0; h < leaf->num_heads; h++)
        max[h] = mask_logits(leaf, leaf->logits + h * PAGEATTN_LEAF_TOKENS);
}

/* Replaces one head's logits by their weights; returns the sum of these. */
KERNEL_INLINE float weights_of_head(const pageattn_leaf *leaf, float *logits, float max)
{
    const int64_t first = leaf->begin / PAGEATTN_LANES * PAGEATTN_LANES;
    const int64_t last = pageattn_padded(leaf->end);
    const lanes shift = lanes_all(finite_shift(max));
    lanes sum_lanes = lanes_zero();
    for (int64_t t = first; t < last; t += PAGEATTN_LANES) {
        const lanes weight = lanes_exp(lanes_sub(lanes_load_f32(logits + t), shift));
        lanes_store_f32(logits + t, weight);
        sum_lanes = lanes_add(sum_lanes, weight);
    }
    return sum_of_lanes(sum_lanes);
}

#endif
