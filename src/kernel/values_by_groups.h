/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tokens of a tile of values.h, which includes this, where registers are few: lane group by
 * lane group, so that only one has to be held beside the sums, and two tokens at a time, which
 * halves what it takes to go from one to the next.
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

/* All tokens of a block, at `offset` of their rows. What a last token alone reads less than a whole
 * line is never paid: only a leaf's end has one, and the next leaf starts a prefetcher of its own.
 * At several heads, prefetches in front of a step do better than one after each line that is read
 * (docs/performance.md). */
KERNEL_INLINE void add_tokens(pageattn_type type, int num_heads, int num_groups, int64_t tail,
                              const values_block *block, int64_t offset, prefetcher *next,
                              lanes sum[][VALUES_MAX_GROUPS])
{
    const int64_t step_bytes = num_groups * PAGEATTN_LANES * element_bytes(type);
    int64_t t = 0;
    for (; t + 2 <= block->num_tokens; t += 2) {
        if (!prefetches_singly(num_heads) && tail == PAGEATTN_LANES)
            prefetch_for_constant(next, 2 * step_bytes);
        KERNEL_UNROLL
        for (int i = 0; i < 2; i++)
            add_token(type, num_heads, num_groups, tail, block->rows[t + i] + offset,
                      block->weights + t + i, i * step_bytes, next, sum);
    }
    if (t == block->num_tokens)
        return;
    if (!prefetches_singly(num_heads) && tail == PAGEATTN_LANES)
        prefetch_for_constant(next, step_bytes);
    add_token(type, num_heads, num_groups, tail, block->rows[t] + offset, block->weights + t, 0,
              next, sum);
}

#endif
