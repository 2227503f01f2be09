/* SPDX-License-Identifier: Apache-2.0 */
/* One leaf: its logits, their softmax, the weighted values. Writes a whole state. */
#ifndef PAGEATTN_KERNEL_ATTEND_LEAF_H
#define PAGEATTN_KERNEL_ATTEND_LEAF_H

#include "logits.h"
#include "softmax.h"
#include "values.h"

KERNEL_INLINE void attend_leaf(pageattn_type type, const pageattn_leaf *leaf, float *state)
{
    float *max = pageattn_state_max(state, leaf->num_heads, leaf->value_head_dim);
    float *sum = pageattn_state_sum(state, leaf->num_heads, leaf->value_head_dim);

    leaf_logits(type, leaf);
    mask_heads(leaf, max);
    for (int64_t h = 0; h < leaf->num_heads; h++)
        sum[h] = weights_of_head(leaf, leaf->logits + h * PAGEATTN_LEAF_TOKENS, max[h]);
    leaf_values(type, leaf, leaf->rows + num_key_rows(leaf), state);
}

#endif
