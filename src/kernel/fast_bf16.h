/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fast arithmetic of docs/numerics.md: one leaf of bf16 keys and values, whose products are
 * made two at a time. The tiles and the prefetches are those of logits.h and values.h; what
 * differs is that an operand holds 32 elements and nothing is widened.
 */
#ifndef PAGEATTN_KERNEL_FAST_BF16_H
#define PAGEATTN_KERNEL_FAST_BF16_H

#include "logits.h"
#include "softmax.h"
#include "values.h"

#define PAIR_ELEMENTS 32 /* of an operand; its 64 bytes are a cache line's worth */
#define BF16_BYTES 2

KERNEL_INLINE pairs load_pairs(const void *p, int64_t n)
{
    return n == PAIR_ELEMENTS ? pairs_load(p) : pairs_load_first(p, n);
}

/* ---- the query ---- */

KERNEL_INLINE void round_query(pageattn_type type, const void *row, int64_t head_dim, int64_t head,
                               int64_t num_heads, uint16_t *query)
{
    const int64_t num_elements = pageattn_padded_pairs(head_dim);
    const int64_t tile_heads = query_tile_heads(num_heads, head);
    uint16_t *rounded = query + query_tile_offset(head, num_elements, PAIR_ELEMENTS);
    for (int64_t d = 0; d < num_elements; d += PAGEATTN_LANES) {
        const int64_t in_part = d % PAIR_ELEMENTS;
        const int64_t left = head_dim - d;
        lanes x = lanes_zero();
        if (left > 0)
            x = load_first(type, (const char *)row + d * element_bytes(type),
                           left < PAGEATTN_LANES ? left : PAGEATTN_LANES);
        /* A NaN whose payload is all in the lower half would be rounded to an infinity. */
        lanes_store_first_bf16(rounded + (d - in_part) * tile_heads + in_part,
                               lanes_canonical_nan(x), PAGEATTN_LANES);
    }
}

/* ---- logits ---- */

/* The next 32 elements of the rows meet those of the query; `n` < 32 at the end of a row. */
KERNEL_INLINE void pair_dot_step(int num_heads, int64_t n, prefetch_pace pace,
                                 const char *const row[], int64_t offset_bytes,
                                 const uint16_t *query, prefetcher *next,
                                 lanes sum[][LANES_KEY_HEADS])
{
    rows_ahead ahead;
    KERNEL_UNROLL
    for (int t = 0; t < 4; t++) {
        const pairs key = load_pairs(row[t] + offset_bytes, n);
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            sum[t][h] = pairs_dot(sum[t][h], pairs_load(query + h * PAIR_ELEMENTS), key);
        if (pace != PACE_COUNTED)
            prefetch_in_step(next, pace, num_heads, 4, t, &ahead);
        else if (prefetches_singly(num_heads) || n < PAIR_ELEMENTS)
            prefetch_for(next, n * BF16_BYTES);
    }
    if (pace != PACE_COUNTED)
        prefetcher_end_step(next, pace, 4);
    else if (!prefetches_singly(num_heads) && n == PAIR_ELEMENTS)
        prefetch_for_constant(next, 4 * LINE_BYTES);
}

/* Lane sums of tokens first, first + 4, ... of the block, four in all. */
KERNEL_INLINE void pair_dot_tile(int num_heads, prefetch_pace pace, const logits_block *block,
                                 const uint16_t *query, int first, lanes sum[][LANES_KEY_HEADS])
{
    const char *row[4];
    prefetcher next = *block->next;

    KERNEL_UNROLL
    for (int t = 0; t < 4; t++) {
        row[t] = block->rows[first + 4 * t];
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            sum[t][h] = lanes_zero();
    }
    int64_t d = 0;
    for (; d + PAIR_ELEMENTS <= block->head_dim; d += PAIR_ELEMENTS)
        pair_dot_step(num_heads, PAIR_ELEMENTS, pace, row, d * BF16_BYTES, query + d * num_heads,
                      &next, sum);
    if (pace == PACE_COUNTED && d < block->head_dim)
        pair_dot_step(num_heads, block->head_dim - d, PACE_COUNTED, row, d * BF16_BYTES,
                      query + d * num_heads, &next, sum);
    *block->next = next;
}

KERNEL_INLINE void pair_block_logits(int num_heads, prefetch_pace pace, const logits_block *block,
                                     const uint16_t *query, float scale, float *logits)
{
    lanes folded[4][LANES_KEY_HEADS];
    for (int q = 0; q < 4; q++) {
        lanes sum[4][LANES_KEY_HEADS];
        pair_dot_tile(num_heads, pace, block, query, q, sum);
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            folded[q][h] = lanes_fold_8_4(sum[0][h], sum[1][h], sum[2][h], sum[3][h]);
    }
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++) {
        const lanes dot = lanes_fold_2_1(folded[0][h], folded[1][h], folded[2][h], folded[3][h]);
        lanes_store_f32(logits + h * PAGEATTN_LEAF_TOKENS, lanes_mul(dot, lanes_all(scale)));
    }
}

KERNEL_INLINE void pair_block_logits_of_heads(int64_t num_heads, prefetch_pace pace,
                                              const logits_block *block, const uint16_t *query,
                                              float scale, float *logits)
{
    switch (num_heads) {
    case 1:
        pair_block_logits(1, pace, block, query, scale, logits);
        return;
    case 2:
        pair_block_logits(2, pace, block, query, scale, logits);
        return;
    case 3:
        pair_block_logits(3, pace, block, query, scale, logits);
        return;
    case 4:
        pair_block_logits(4, pace, block, query, scale, logits);
        return;
    default:
        __builtin_unreachable();
    }
}

/* As leaf_logits. */
KERNEL_INLINE void pair_leaf_logits(prefetch_pace pace, const pageattn_leaf *leaf)
{
    const int64_t row_elements = pageattn_padded_pairs(leaf->head_dim);
    const char *const *rows = leaf->rows;
    prefetcher next = prefetch_beside_keys(PAGEATTN_BF16, leaf);

    for (int64_t token = leaf->begin / BLOCK_TOKENS * BLOCK_TOKENS; token < leaf->end;
         token += BLOCK_TOKENS, rows += BLOCK_TOKENS) {
        logits_block block = {.rows = rows, .next = &next, .head_dim = leaf->head_dim};
        for (int64_t head = 0; head < leaf->num_heads; head += LANES_KEY_HEADS) {
            const uint16_t *query =
                leaf->rounded_query + query_tile_offset(head, row_elements, PAIR_ELEMENTS);
            pair_block_logits_of_heads(query_tile_heads(leaf->num_heads, head), pace, &block, query,
                                       leaf->attn_scale,
                                       leaf->logits + head * PAGEATTN_LEAF_TOKENS + token);
        }
    }
}

/* ---- weights ---- */

#define PAIR_WEIGHTS_STRIDE (2 * PAGEATTN_LEAF_TOKENS) /* from head to head */

/* Beside each lane group of weights. They run ahead of what is read, too far ahead for L1. */
#define SOFTMAX_PREFETCHES (PREFETCH_FIRST_INTO_L1 ? 0 : 2)

/* Replaces the logits of some heads at tokens [from, to) by their weights, rounded to bf16;
 * both lie at the start of lane groups. The weights lie from the start of a head's array on: never
 * ahead of the logits. None is subnormal, and none outside [begin, end) but +0. It may make
 * prefetches, as logits and values take so little time here that the memory would be idle
 * meanwhile. */
KERNEL_INLINE void round_weights(int num_heads, int64_t head, float *tile_logits, const float *max,
                                 int64_t from, int64_t to, prefetcher *next)
{
    float *logits = tile_logits + head * PAGEATTN_LEAF_TOKENS;
    uint16_t *rounded = (uint16_t *)(void *)logits;
    lanes shift[LANES_SOFTMAX_HEADS], weight[LANES_SOFTMAX_HEADS];
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++)
        shift[h] = lanes_all(finite_shift(max[head + h]));
    for (int64_t t = from; t < to; t += PAGEATTN_LANES) {
        weigh_group(num_heads, logits, t, shift, weight);
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            pairs_store_rounded(rounded + h * PAIR_WEIGHTS_STRIDE + t, weight[h]);
        for (int i = 0; i < num_heads * SOFTMAX_PREFETCHES; i++)
            prefetch_line(next);
    }
}

/* A weight that counts in o as its rounding must count so in l, or the weights would no longer add
 * up to 1. */
KERNEL_INLINE void sum_rounded_weights(int num_heads, int64_t head, const pageattn_leaf *leaf,
                                       float *sum)
{
    const float *logits = leaf->logits + head * PAGEATTN_LEAF_TOKENS;
    const uint16_t *rounded = (const uint16_t *)(const void *)logits;
    lanes sum_lanes[LANES_SOFTMAX_HEADS];
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++)
        sum_lanes[h] = lanes_zero();
    for (int64_t t = leaf->begin / PAGEATTN_LANES * PAGEATTN_LANES; t < leaf->end;
         t += PAGEATTN_LANES) {
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            sum_lanes[h] =
                lanes_add(sum_lanes[h], lanes_load_bf16(rounded + h * PAIR_WEIGHTS_STRIDE + t));
    }
    sum_lanes_of_heads(num_heads, sum_lanes, sum + head);
}

/* ---- values ---- */

/* As values_block, but its tokens go by pairs: from_token is even. Of a pair that the leaf's
 * attended tokens cut, the other token is never read, and counts as zeros. */
typedef struct pair_values_block {
    const char *const *rows; /* from token `begin` on, the first of the leaf that is read */
    int64_t begin;
    int64_t from_token;
    int64_t to_token;
    prefetcher *next;
    const uint16_t *weights; /* [num_heads], 2 * PAGEATTN_LEAF_TOKENS apart, of token 0 */
    float *o;
    int64_t o_stride;
    int from_zero; /* the first tokens of the leaf */
    int to_end;    /* the last ones */
} pair_values_block;

#define PAIR_MAX_CHUNKS 4 /* in a tile */

/* Adds tokens t and t + 1; `tail` elements of each chunk count. */
KERNEL_INLINE void pair_values_step(int num_heads, int num_chunks, int64_t tail, prefetch_pace pace,
                                    const pair_values_block *block, int64_t t, int has_even,
                                    int has_odd, int64_t offset, prefetcher *next,
                                    lanes sum[][PAIR_MAX_CHUNKS][2])
{
    rows_ahead ahead;
    pairs low[PAIR_MAX_CHUNKS], high[PAIR_MAX_CHUNKS];
    const int64_t chunk_bytes = PAIR_ELEMENTS * BF16_BYTES;
    const char *const *row = block->rows + (t - block->begin);
    if (pace == PACE_COUNTED && tail == PAIR_ELEMENTS)
        prefetch_for_tokens(next, has_even + has_odd, num_chunks * chunk_bytes);
    for (int token = 0; token < has_even + has_odd && tail < PAIR_ELEMENTS; token++)
        prefetch_for(next, tail * BF16_BYTES);
    KERNEL_UNROLL
    for (int c = 0; c < num_chunks; c++) {
        const int64_t at = offset + c * chunk_bytes;
        const pairs even = has_even ? load_pairs(row[0] + at, tail) : pairs_zero();
        const pairs odd = has_odd ? load_pairs(row[1] + at, tail) : pairs_zero();
        low[c] = pairs_beside_low(even, odd);
        high[c] = pairs_beside_high(even, odd);
        if (pace != PACE_COUNTED) {
            prefetch_in_step(next, pace, num_heads, 2 * num_chunks, 2 * c, &ahead);
            prefetch_in_step(next, pace, num_heads, 2 * num_chunks, 2 * c + 1, &ahead);
        }
    }
    if (pace != PACE_COUNTED)
        prefetcher_end_step(next, pace, 2 * num_chunks);
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++) {
        const pairs weight = pairs_all(block->weights + h * PAIR_WEIGHTS_STRIDE + t);
        KERNEL_UNROLL
        for (int c = 0; c < num_chunks; c++) {
            sum[h][c][0] = pairs_dot(sum[h][c][0], weight, low[c]);
            sum[h][c][1] = pairs_dot(sum[h][c][1], weight, high[c]);
        }
    }
}

/* The sums of a head come from o and go there. Between the blocks of a leaf they stay in the order
 * in which they are computed, but in a row's last chunk, where o may end after the first 16. */
KERNEL_INLINE void pair_values_load(const float *o, int64_t tail, int from_zero, lanes sum[2])
{
    sum[0] = from_zero ? lanes_zero() : lanes_load_f32(o);
    sum[1] =
        from_zero || tail <= PAGEATTN_LANES ? lanes_zero() : lanes_load_f32(o + PAGEATTN_LANES);
    if (tail < PAIR_ELEMENTS)
        pairs_from_columns(&sum[0], &sum[1]);
}

KERNEL_INLINE void pair_values_store(float *o, int64_t tail, int to_end, lanes sum[2])
{
    if (to_end || tail < PAIR_ELEMENTS)
        pairs_to_columns(&sum[0], &sum[1]);
    lanes_store_f32(o, sum[0]);
    if (tail > PAGEATTN_LANES)
        lanes_store_f32(o + PAGEATTN_LANES, sum[1]);
}

KERNEL_INLINE void pair_values_tile(int num_heads, int num_chunks, int64_t tail, prefetch_pace pace,
                                    const pair_values_block *block, int64_t column)
{
    const int64_t offset = column * BF16_BYTES;
    float *o = block->o + column;
    lanes sum[LANES_VALUE_HEADS][PAIR_MAX_CHUNKS][2];
    prefetcher next = *block->next;
    int64_t t = block->from_token;
    const int64_t end = block->to_token;

    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++) {
        KERNEL_UNROLL
        for (int c = 0; c < num_chunks; c++)
            pair_values_load(o + h * block->o_stride + c * PAIR_ELEMENTS, tail, block->from_zero,
                             sum[h][c]);
    }
    if (t < block->begin) {
        pair_values_step(num_heads, num_chunks, tail, PACE_COUNTED, block, t, 0, 1, offset, &next,
                         sum);
        t += 2;
    }
    for (; t + 2 <= end; t += 2)
        pair_values_step(num_heads, num_chunks, tail, pace, block, t, 1, 1, offset, &next, sum);
    if (t < end)
        pair_values_step(num_heads, num_chunks, tail, PACE_COUNTED, block, t, 1, 0, offset, &next,
                         sum);
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++) {
        KERNEL_UNROLL
        for (int c = 0; c < num_chunks; c++)
            pair_values_store(o + h * block->o_stride + c * PAIR_ELEMENTS, tail, block->to_end,
                              sum[h][c]);
    }
    *block->next = next;
}

KERNEL_INLINE int64_t pair_values_tiles(int num_heads, int num_chunks, prefetch_pace pace,
                                        const pair_values_block *block, int64_t column,
                                        int64_t head_dim)
{
    for (; column + num_chunks * PAIR_ELEMENTS <= head_dim; column += num_chunks * PAIR_ELEMENTS)
        pair_values_tile(num_heads, num_chunks, PAIR_ELEMENTS, pace, block, column);
    return column;
}

/* As values_of_tile. */
KERNEL_INLINE void pair_values_of_tile(int num_heads, prefetch_pace pace,
                                       const pair_values_block *block, int64_t head_dim)
{
    const int num_chunks = LANES_VALUE_SUMS / 2 / num_heads;
    int64_t column = 0;
    if (pace != PACE_COUNTED) {
        const int row_chunks = pace_row_lines(pace);
        pair_values_tiles(num_heads, num_chunks < row_chunks ? 2 : row_chunks, pace, block, 0,
                          head_dim);
        return;
    }
    if (num_chunks >= PAIR_MAX_CHUNKS)
        column = pair_values_tiles(num_heads, PAIR_MAX_CHUNKS, pace, block, column, head_dim);
    column = pair_values_tiles(num_heads, 2, pace, block, column, head_dim);
    column = pair_values_tiles(num_heads, 1, pace, block, column, head_dim);
    if (column < head_dim)
        pair_values_tile(num_heads, 1, head_dim - column, pace, block, column);
}

KERNEL_INLINE void pair_values_of_heads(int64_t num_heads, prefetch_pace pace,
                                        const pair_values_block *block, int64_t value_head_dim)
{
    switch (num_heads) {
    case 1:
        pair_values_of_tile(1, pace, block, value_head_dim);
        return;
    case 2:
        pair_values_of_tile(2, pace, block, value_head_dim);
        return;
    case 3:
        pair_values_of_tile(3, pace, block, value_head_dim);
        return;
    case 4:
        pair_values_of_tile(4, pace, block, value_head_dim);
        return;
    default:
        __builtin_unreachable();
    }
}

/* As leaf_values. Blocks begin at even tokens, so that a pair is never cut.
 *
 * A tile's weights are made just before it takes them: all at once, before the first value, they
 * would take longer than prefetches can bridge. */
KERNEL_INLINE void pair_leaf_values(prefetch_pace pace, const pageattn_leaf *leaf, const float *max,
                                    float *o)
{
    const char *const *rows = value_rows(leaf);
    prefetcher next = prefetch_beside_values(PAGEATTN_BF16, leaf);
    int64_t num_weighted = leaf->begin / PAGEATTN_LANES * PAGEATTN_LANES;
    const int64_t first = leaf->begin / 2 * 2;
    const int64_t o_stride = pageattn_padded(leaf->value_head_dim);
    const int64_t tile_heads = values_tile_heads(leaf->num_heads, leaf->value_head_dim);
    const int64_t block_tokens = values_block_tokens(leaf->value_head_dim * BF16_BYTES);

    /* The prefetches that the weights make end so much earlier. */
    next.last = next.row + (leaf->end - leaf->begin) - 1;
    for (int64_t token = first; token < leaf->end; token += block_tokens) {
        const int64_t left = leaf->end - token;
        pair_values_block block = {.rows = rows,
                                   .begin = leaf->begin,
                                   .from_token = token,
                                   .to_token =
                                       left < block_tokens ? leaf->end : token + block_tokens,
                                   .next = &next,
                                   .o_stride = o_stride,
                                   .from_zero = token == first,
                                   .to_end = left <= block_tokens};
        for (int64_t head = 0; head < leaf->num_heads; head += tile_heads) {
            const int64_t heads_left = leaf->num_heads - head;
            const int64_t tile = heads_left < tile_heads ? heads_left : tile_heads;
            float *logits = leaf->logits + head * PAGEATTN_LEAF_TOKENS;
            FOR_HEADS_SIDE_BY_SIDE(tile, round_weights, logits, max + head, num_weighted,
                                   pageattn_padded(block.to_token), &next);
            block.weights = (const uint16_t *)(const void *)logits;
            block.o = o + head * o_stride;
            pair_values_of_heads(tile, pace, &block, leaf->value_head_dim);
        }
        num_weighted = pageattn_padded(block.to_token);
    }
}

/* ---- the leaf ---- */

/* As leaf_stages. */
typedef struct pair_leaf_stages {
    void (*logits)(const pageattn_leaf *leaf);
    void (*values)(const pageattn_leaf *leaf, const float *max, float *o);
} pair_leaf_stages;

#define PAIR_LEAF_STAGES(name, NAME, pace)                                                         \
    static KERNEL_NO_INLINE void pair_leaf_logits_##pace(const pageattn_leaf *leaf)                \
    {                                                                                              \
        if (type_has_pace(PAGEATTN_BF16, pace))                                                    \
            pair_leaf_logits(pace, leaf);                                                          \
    }                                                                                              \
    static KERNEL_NO_INLINE void pair_leaf_values_##pace(const pageattn_leaf *leaf,                \
                                                         const float *max, float *o)               \
    {                                                                                              \
        if (type_has_pace(PAGEATTN_BF16, pace))                                                    \
            pair_leaf_values(pace, leaf, max, o);                                                  \
    }
#define PAIR_LEAF_STAGES_ENTRY(name, NAME, pace)                                                   \
    [pace] = {pair_leaf_logits_##pace, pair_leaf_values_##pace},

AT_EACH_PACE(PAIR_LEAF_STAGES, bf16, BF16)
static const pair_leaf_stages pair_stages[NUM_PACES] = {
    AT_EACH_PACE(PAIR_LEAF_STAGES_ENTRY, bf16, BF16)};

static void attend_leaf_fast_bf16(const pageattn_leaf *leaf, float *state)
{
    float *max = pageattn_state_max(state, leaf->num_heads, leaf->value_head_dim);
    float *sum = pageattn_state_sum(state, leaf->num_heads, leaf->value_head_dim);

    pair_stages[pace_of_keys(PAGEATTN_BF16, leaf)].logits(leaf);
    mask_heads(leaf, max);
    pair_stages[pace_of_values(PAGEATTN_BF16, leaf)].values(leaf, max, state);
    FOR_HEADS_SIDE_BY_SIDE(leaf->num_heads, sum_rounded_weights, leaf, sum);
}

#endif
