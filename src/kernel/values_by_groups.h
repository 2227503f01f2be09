/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A token of a tile of values.h, which includes this, where registers are few: lane group by lane
 * group, so that only one has to be held beside the sums.
 */
#ifndef PAGEATTN_KERNEL_VALUES_BY_GROUPS_H
#define PAGEATTN_KERNEL_VALUES_BY_GROUPS_H

/* `tail` elements of the last lane group count; 16 for a whole one. The tile has read paid_bytes of
 * the same lines before. */
KERNEL_INLINE void add_token(pageattn_type type, int num_heads, int num_groups, int64_t tail,
                             const char *row, const float *weights, int64_t paid_bytes,
                             prefetcher *next, lanes sum[][VALUES_MAX_GROUPS])
{
    const int64_t group_bytes = PAGEATTN_LANES * element_bytes(type);
    KERNEL_UNROLL
    for (int g = 0; g < num_groups; g++) {
        const char *elements = row + g * group_bytes;
        const lanes value =
            tail == PAGEATTN_LANES ? load_group(type, elements) : load_first(type, elements, tail);
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            sum[h][g] = lanes_fma(lanes_all(weights[h * PAGEATTN_LEAF_TOKENS]), value, sum[h][g]);
        if (tail < PAGEATTN_LANES)
            prefetch_for(next, tail * element_bytes(type));
        else if (prefetches_singly(num_heads))
            prefetch_for_part(next, paid_bytes + g * group_bytes, group_bytes);
    }
}

#endif
