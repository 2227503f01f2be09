/* SPDX-License-Identifier: Apache-2.0 */
/* Two neighbouring states become one; docs/numerics.md fixes which states ever meet. */
#ifndef PAGEATTN_KERNEL_MERGE_H
#define PAGEATTN_KERNEL_MERGE_H

#include "softmax.h"

KERNEL_INLINE void merge_head(float *left_o, const float *right_o, int64_t num_floats,
                              lanes left_weight, lanes right_weight)
{
    for (int64_t d = 0; d < num_floats; d += PAGEATTN_LANES) {
        const lanes scaled = lanes_mul(left_weight, lanes_load_f32(left_o + d));
        lanes_store_f32(left_o + d, lanes_fma(right_weight, lanes_load_f32(right_o + d), scaled));
    }
}

static void merge_states(float *left, const float *right, int64_t num_heads, int64_t value_head_dim)
{
    const int64_t o_stride = pageattn_padded(value_head_dim);
    float *left_max = pageattn_state_max(left, num_heads, value_head_dim);
    float *left_sum = pageattn_state_sum(left, num_heads, value_head_dim);
    const float *right_max = right + (left_max - left);
    const float *right_sum = right + (left_sum - left);

    for (int64_t h = 0; h < num_heads; h++) {
        const float max = left_max[h] > right_max[h] ? left_max[h] : right_max[h];
        const lanes shift = lanes_all(finite_shift(max));
        const lanes left_weight = lanes_exp(lanes_sub(lanes_all(left_max[h]), shift));
        const lanes right_weight = lanes_exp(lanes_sub(lanes_all(right_max[h]), shift));
        const lanes scaled = lanes_mul(left_weight, lanes_all(left_sum[h]));

        left_sum[h] = lanes_first(lanes_fma(right_weight, lanes_all(right_sum[h]), scaled));
        left_max[h] = max;
        merge_head(left + h * o_stride, right + h * o_stride, o_stride, left_weight, right_weight);
    }
}

#endif
