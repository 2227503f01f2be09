/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The blocks of logits.h, which includes this, where registers are few: one half of the lanes after
 * the other, so that the registers hold the sums of twice as many heads, and a key is widened once
 * for all of them.
 *
 * The sums go through memory, and the loops that make them stand in a function of their own for
 * each type: inlined beside the folds, the sums of the inner loops were spilled.
 */
#ifndef PAGEATTN_KERNEL_LOGITS_BY_HALVES_H
#define PAGEATTN_KERNEL_LOGITS_BY_HALVES_H

/* Lane sums of all tokens of a block, not folded yet. */
typedef struct block_sums {
    lanes of[LANES_KEY_HEADS][BLOCK_TOKENS];
} block_sums;

/* As dot_step, with half of each lane group. */
KERNEL_INLINE void half_dot_step(pageattn_type type, int num_tokens, int num_heads, int64_t n,
                                 int half, const char *const row[], int64_t offset_bytes,
                                 const float *query, half_lanes sum[][LANES_KEY_HEADS])
{
    const int64_t skipped = half * (PAGEATTN_LANES / 2);
    half_lanes key[4];
    KERNEL_UNROLL
    for (int t = 0; t < num_tokens; t++) {
        const char *elements = row[t] + offset_bytes;
        key[t] = n == PAGEATTN_LANES
                     ? load_half_group(type, elements + skipped * element_bytes(type))
                     : lanes_half(load_first(type, elements, n), half);
    }
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++) {
        const half_lanes q = half_lanes_load_f32(query + h * PAGEATTN_LANES + skipped);
        KERNEL_UNROLL
        for (int t = 0; t < num_tokens; t++)
            sum[t][h] = half_lanes_fma(q, key[t], sum[t][h]);
    }
}

/* One half of the lanes of whole rows. The second half finds the rows in the L1 cache. Each makes
 * half of the prefetches for whole lines; the first makes those for what is left of the rows. */
KERNEL_INLINE void dot_half_tile(pageattn_type type, int num_tokens, int num_heads,
                                 const logits_block *block, int first, int half, prefetcher *next,
                                 block_sums *sums)
{
    const int64_t line = LINE_BYTES / element_bytes(type); /* elements */
    const int64_t head_dim = block->head_dim;
    const float *query = block->query;
    const char *row[4];
    half_lanes sum[4][LANES_KEY_HEADS];

    KERNEL_UNROLL
    for (int t = 0; t < num_tokens; t++) {
        row[t] = block->rows[first + t];
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            sum[t][h] = half_lanes_zero();
    }
    int64_t d = 0;
    for (; d + line <= head_dim; d += line) {
        KERNEL_UNROLL
        for (int64_t g = d; g < d + line; g += PAGEATTN_LANES)
            half_dot_step(type, num_tokens, num_heads, PAGEATTN_LANES, half, row,
                          g * element_bytes(type), query + g * num_heads, sum);
        prefetch_for_constant(next, num_tokens / 2 * LINE_BYTES);
    }
    for (; d < head_dim; d += PAGEATTN_LANES) {
        const int64_t n = head_dim - d < PAGEATTN_LANES ? head_dim - d : PAGEATTN_LANES;
        half_dot_step(type, num_tokens, num_heads, n, half, row, d * element_bytes(type),
                      query + d * num_heads, sum);
        for (int t = 0; t < num_tokens && half == 0; t++)
            prefetch_for(next, n * element_bytes(type));
    }
    KERNEL_UNROLL
    for (int t = 0; t < num_tokens; t++) {
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            lanes_set_half(&sums->of[h][first + t], half, sum[t][h]);
    }
}

KERNEL_INLINE void dot_block(pageattn_type type, int num_heads, const logits_block *block,
                             block_sums *sums)
{
    const int num_tokens = num_heads == 2 ? 4 : 2;
    prefetcher next = *block->next;
    KERNEL_NO_UNROLL
    for (int first = 0; first < BLOCK_TOKENS; first += num_tokens) {
        dot_half_tile(type, num_tokens, num_heads, block, first, 0, &next, sums);
        dot_half_tile(type, num_tokens, num_heads, block, first, 1, &next, sums);
    }
    *block->next = next;
}

/* A head alone leaves room for whole lane groups of four tokens. */
KERNEL_INLINE void dot_block_of_one(pageattn_type type, const logits_block *block, block_sums *sums)
{
    KERNEL_NO_UNROLL
    for (int first = 0; first < 4; first++) {
        lanes acc[4][LANES_KEY_HEADS];
        dot_tile(type, 4, 1, PACE_COUNTED, block, first, acc);
        KERNEL_UNROLL
        for (int t = 0; t < 4; t++)
            sums->of[0][first + 4 * t] = acc[t][0];
    }
}

KERNEL_INLINE void dot_block_of_heads(pageattn_type type, int64_t num_heads,
                                      const logits_block *block, block_sums *sums)
{
    switch (num_heads) {
    case 1:
        dot_block_of_one(type, block, sums);
        return;
    case 2:
        dot_block(type, 2, block, sums);
        return;
    case 3:
        dot_block(type, 3, block, sums);
        return;
    case 4:
        dot_block(type, 4, block, sums);
        return;
    default:
        __builtin_unreachable();
    }
}

#define KV_TYPE(name, NAME, bytes)                                                                 \
    static KERNEL_NO_INLINE void dot_block_##name(int64_t num_heads, const logits_block *block,    \
                                                  block_sums *sums)                                \
    {                                                                                              \
        dot_block_of_heads(PAGEATTN_##NAME, num_heads, block, sums);                               \
    }
#include "kv_types.def"
#undef KV_TYPE

KERNEL_INLINE void sum_block(pageattn_type type, int64_t num_heads, const logits_block *block,
                             block_sums *sums)
{
    switch (type) {
#define KV_TYPE(name, NAME, bytes)                                                                 \
    case PAGEATTN_##NAME:                                                                          \
        dot_block_##name(num_heads, block, sums);                                                  \
        return;
#include "kv_types.def"
#undef KV_TYPE
    default:
        __builtin_unreachable();
    }
}

/* 16 logits of each of num_heads heads, PAGEATTN_LEAF_TOKENS apart. */
KERNEL_INLINE void block_logits_of_heads(pageattn_type type, int64_t num_heads, prefetch_pace pace,
                                         const logits_block *block, float *logits)
{
    block_sums sums;
    (void)pace;
    sum_block(type, num_heads, block, &sums);
    for (int64_t h = 0; h < num_heads; h++) {
        const lanes *sum = sums.of[h];
        lanes folded[4];
        KERNEL_UNROLL
        for (int q = 0; q < 4; q++)
            folded[q] = lanes_fold_8_4(sum[q], sum[q + 4], sum[q + 8], sum[q + 12]);
        lanes_store_f32(logits + h * PAGEATTN_LEAF_TOKENS,
                        lanes_fold_2_1(folded[0], folded[1], folded[2], folded[3]));
    }
}

#endif
