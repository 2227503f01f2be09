/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The weighted sum of a leaf's values: o[d] = fma(weight[t], value[t][d], o[d]) in ascending t.
 *
 * The register tile is some heads x some lane groups of the row, LANES_VALUE_SUMS in all. What does
 * not fit a tile is read in several passes over a block of tokens, which stay in the L1 cache
 * meanwhile. Wide tiles of many heads widen each value less often; long tiles of few heads read and
 * prefetch whole rows, which is worth 5 to 10 % of the bandwidth. So groups that memory limits get
 * long tiles, unless a wide one holds the row as well; larger groups, which the multiply-adds
 * limit, get wide ones.
 */
#ifndef PAGEATTN_KERNEL_VALUES_H
#define PAGEATTN_KERNEL_VALUES_H

#include "elements.h"
#include "prefetch_steadily.h"

#define VALUES_MIN_TOKENS 8 /* in a block */
#define VALUES_MAX_TOKENS 32
#define VALUES_NEAR_BYTES 8192 /* of a block that stays behind the prefetches into L1 */
#define VALUES_MAX_GROUPS 8    /* in a tile */

_Static_assert(PACE_MAX_GROUPS <= VALUES_MAX_GROUPS, "rows that have a pace fit a tile");

/* How many tokens make a block, a power of two. All passes together prefetch as much as one reads,
 * so the first comes nearer to the prefetches, by half of the block or more. Those into L1 must not
 * be caught up with: there rows of more than 256 bytes make shorter blocks. */
KERNEL_INLINE int64_t values_block_tokens(int64_t row_bytes)
{
    int64_t tokens = VALUES_MAX_TOKENS;
    while (PREFETCH_FIRST_INTO_L1 && tokens > VALUES_MIN_TOKENS &&
           tokens * row_bytes > VALUES_NEAR_BYTES)
        tokens /= 2;
    return tokens;
}

/* What the tiles of a block share. */
typedef struct values_block {
    const char *const *rows;
    int64_t num_tokens;
    prefetcher *next;
    const float *weights; /* [num_heads], PAGEATTN_LEAF_TOKENS apart, of the first token */
    float *o;             /* of the tile's first head */
    int64_t o_stride;
    int from_zero; /* the first tokens of the leaf */
    int to_end;    /* the last ones */
} values_block;

/* Whether a tile holds each line of bf16 in the order in which it is widened with the least work.
 * Its sums stay in that order in o until the leaf's end. At one head this is no faster
 * (docs/performance.md). */
KERNEL_INLINE int values_are_unordered(pageattn_type type, int num_heads, int num_groups)
{
    return type == PAGEATTN_BF16 && num_heads > 1 && num_groups % line_groups(type) == 0;
}

KERNEL_INLINE void load_line_of_values(pageattn_type type, int unordered, const char *elements,
                                       lanes value[])
{
    if (unordered)
        lanes_load_two_bf16_unordered(elements, &value[0], &value[1]);
    else
        load_line(type, elements, value);
}

/* How many lines a step reads: two tokens, whole lane groups. */
KERNEL_INLINE int values_step_lines(pageattn_type type, int num_groups)
{
    return 2 * num_groups / line_groups(type);
}

/* `tail` elements of the last lane group count; 16 for a whole one. The step has read num_before
 * lane groups before. Line by line, so that few values have to be held beside the sums. */
KERNEL_INLINE void add_token(pageattn_type type, int num_heads, int num_groups, int64_t tail,
                             prefetch_pace pace, const char *row, const float *weights,
                             int num_before, prefetcher *next, rows_ahead *ahead,
                             lanes sum[][VALUES_MAX_GROUPS])
{
    const int64_t group_bytes = PAGEATTN_LANES * element_bytes(type);
    const int by_lines = num_groups % line_groups(type) == 0;
    lanes value[LINE_MAX_GROUPS];
    KERNEL_OPAQUE(row); /* or gcc keeps a pointer for each line, and spills them */
    KERNEL_UNROLL
    for (int g = 0; g < num_groups; g++) {
        const int i = by_lines ? g % line_groups(type) : 0;
        const char *elements = row + g * group_bytes;
        if (tail < PAGEATTN_LANES)
            value[0] = load_first(type, elements, tail);
        else if (!by_lines)
            value[0] = load_group(type, elements);
        else if (i == 0)
            load_line_of_values(type, values_are_unordered(type, num_heads, num_groups), elements,
                                value);
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            sum[h][g] =
                lanes_fma(lanes_all(weights[h * PAGEATTN_LEAF_TOKENS]), value[i], sum[h][g]);
        if (pace != PACE_COUNTED) {
            if (i == line_groups(type) - 1)
                prefetch_in_step(next, pace, num_heads, values_step_lines(type, num_groups),
                                 (num_before + g) / line_groups(type), ahead);
        } else if (tail < PAGEATTN_LANES)
            prefetch_for(next, tail * element_bytes(type));
        else if (prefetches_singly(num_heads))
            prefetch_for_part(next, (num_before + g) * group_bytes, group_bytes);
    }
}

/* All tokens of a block, at `offset` of their rows: two at a time, which halves what it takes to go
 * from one to the next. What a last token alone reads less than a whole line is never paid: only a
 * leaf's end has one, and the next leaf starts a prefetcher of its own. At several heads,
 * prefetches in front of a step do better than one after each line that is read
 * (docs/performance.md). */
KERNEL_INLINE void add_tokens(pageattn_type type, int num_heads, int num_groups, int64_t tail,
                              prefetch_pace pace, const values_block *block, int64_t offset,
                              prefetcher *next, lanes sum[][VALUES_MAX_GROUPS])
{
    const int64_t token_bytes = num_groups * PAGEATTN_LANES * element_bytes(type);
    const int in_front =
        pace == PACE_COUNTED && !prefetches_singly(num_heads) && tail == PAGEATTN_LANES;
    rows_ahead ahead;
    int64_t t = 0;
    for (; t + 2 <= block->num_tokens; t += 2) {
        if (in_front)
            prefetch_for_tokens(next, 2, token_bytes);
        KERNEL_UNROLL
        for (int i = 0; i < 2; i++)
            add_token(type, num_heads, num_groups, tail, pace, block->rows[t + i] + offset,
                      block->weights + t + i, i * num_groups, next, &ahead, sum);
        if (pace != PACE_COUNTED)
            prefetcher_end_step(next, pace, values_step_lines(type, num_groups));
    }
    if (t == block->num_tokens)
        return;
    if (in_front)
        prefetch_for_tokens(next, 1, token_bytes);
    add_token(type, num_heads, num_groups, tail, pace, block->rows[t] + offset, block->weights + t,
              0, next, &ahead, sum);
}

KERNEL_INLINE void values_tile(pageattn_type type, int num_heads, int num_groups, int64_t tail,
                               prefetch_pace pace, const values_block *block, int64_t column)
{
    const int64_t offset = column * element_bytes(type);
    lanes sum[LANES_VALUE_HEADS][VALUES_MAX_GROUPS];
    prefetcher next = *block->next;

    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++) {
        const float *o = block->o + h * block->o_stride + column;
        KERNEL_UNROLL
        for (int g = 0; g < num_groups; g++)
            sum[h][g] = block->from_zero ? lanes_zero() : lanes_load_f32(o + PAGEATTN_LANES * g);
    }
    add_tokens(type, num_heads, num_groups, tail, pace, block, offset, &next, sum);
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++) {
        float *o = block->o + h * block->o_stride + column;
        if (values_are_unordered(type, num_heads, num_groups) && block->to_end) {
            KERNEL_UNROLL
            for (int g = 0; g + 2 <= num_groups; g += 2)
                lanes_put_in_order(&sum[h][g], &sum[h][g + 1]);
        }
        KERNEL_UNROLL
        for (int g = 0; g < num_groups; g++)
            lanes_store_f32(o + PAGEATTN_LANES * g, sum[h][g]);
    }
    *block->next = next;
}

/* As many whole tiles of the row as fit from `column` on; returns the column after them. */
KERNEL_INLINE int64_t values_tiles(pageattn_type type, int num_heads, int num_groups,
                                   prefetch_pace pace, const values_block *block, int64_t column,
                                   int64_t head_dim)
{
    for (; column + num_groups * PAGEATTN_LANES <= head_dim; column += num_groups * PAGEATTN_LANES)
        values_tile(type, num_heads, num_groups, PAGEATTN_LANES, pace, block, column);
    return column;
}

/* Rows that have a pace consist of tiles of one width. */
KERNEL_INLINE void values_of_tile(pageattn_type type, int num_heads, prefetch_pace pace,
                                  const values_block *block, int64_t head_dim)
{
    const int num_groups = LANES_VALUE_SUMS / num_heads;
    int64_t column = 0;
    if (pace != PACE_COUNTED) {
        const int row_groups = pace_row_lines(pace) * line_groups(type);
        values_tiles(type, num_heads, num_groups < row_groups ? 4 : row_groups, pace, block, 0,
                     head_dim);
        return;
    }
    if (num_groups >= VALUES_MAX_GROUPS)
        column = values_tiles(type, num_heads, VALUES_MAX_GROUPS, pace, block, column, head_dim);
    if (num_groups >= 4)
        column = values_tiles(type, num_heads, 4, pace, block, column, head_dim);
    if (num_groups >= 2)
        column = values_tiles(type, num_heads, 2, pace, block, column, head_dim);
    column = values_tiles(type, num_heads, 1, pace, block, column, head_dim);
    if (column < head_dim)
        values_tile(type, num_heads, 1, head_dim - column, pace, block, column);
}

KERNEL_INLINE void values_of_heads(pageattn_type type, int64_t num_heads, prefetch_pace pace,
                                   const values_block *block, int64_t value_head_dim)
{
    switch (num_heads) {
    case 1:
        values_of_tile(type, 1, pace, block, value_head_dim);
        return;
#if LANES_VALUE_HEADS >= 2
    case 2:
        values_of_tile(type, 2, pace, block, value_head_dim);
        return;
#endif
#if LANES_VALUE_HEADS >= 4
    case 3:
        values_of_tile(type, 3, pace, block, value_head_dim);
        return;
    case 4:
        values_of_tile(type, 4, pace, block, value_head_dim);
        return;
#endif
    default:
        __builtin_unreachable();
    }
}

KERNEL_INLINE int64_t values_tile_heads(int64_t num_heads, int64_t value_head_dim)
{
    const int64_t many = LANES_VALUE_HEADS, few = LANES_VALUE_HEADS / 2;
    const int wide_holds_row = value_head_dim <= LANES_VALUE_SUMS / many * PAGEATTN_LANES;
    const int long_holds_row = value_head_dim <= LANES_VALUE_SUMS / few * PAGEATTN_LANES;
    if (num_heads == 1)
        return few;
    return num_heads <= many && long_holds_row && !wide_holds_row ? few : many;
}

KERNEL_INLINE int64_t num_value_tiles(const pageattn_leaf *leaf)
{
    const int64_t tile_heads = values_tile_heads(leaf->num_heads, leaf->value_head_dim);
    return (leaf->num_heads + tile_heads - 1) / tile_heads;
}

KERNEL_INLINE prefetch_pace pace_of_values(pageattn_type type, const pageattn_leaf *leaf)
{
    return pace_of(type, leaf->value_head_dim * element_bytes(type), num_value_tiles(leaf));
}

/* The values come after the keys in the stream. */
KERNEL_INLINE const char *const *value_rows(const pageattn_leaf *leaf)
{
    return leaf->rows + num_key_rows(leaf);
}

KERNEL_INLINE prefetcher prefetch_beside_values(pageattn_type type, const pageattn_leaf *leaf)
{
    return prefetcher_start(value_rows(leaf), leaf->value_head_dim * element_bytes(type),
                            num_value_tiles(leaf));
}

/* o is written whole. */
KERNEL_INLINE void leaf_values(pageattn_type type, prefetch_pace pace, const pageattn_leaf *leaf,
                               float *o)
{
    const char *const *rows = value_rows(leaf);
    const int64_t o_stride = pageattn_padded(leaf->value_head_dim);
    const int64_t tile_heads = values_tile_heads(leaf->num_heads, leaf->value_head_dim);
    const int64_t block_tokens = values_block_tokens(leaf->value_head_dim * element_bytes(type));
    prefetcher next = prefetch_beside_values(type, leaf);

    for (int64_t token = leaf->begin; token < leaf->end; token += block_tokens) {
        const int64_t left = leaf->end - token;
        values_block block = {.rows = rows + (token - leaf->begin),
                              .num_tokens = left < block_tokens ? left : block_tokens,
                              .next = &next,
                              .o_stride = o_stride,
                              .from_zero = token == leaf->begin,
                              .to_end = left <= block_tokens};
        for (int64_t head = 0; head < leaf->num_heads; head += tile_heads) {
            const int64_t heads_left = leaf->num_heads - head;
            const int64_t tile = heads_left < tile_heads ? heads_left : tile_heads;
            block.weights = leaf->logits + head * PAGEATTN_LEAF_TOKENS + token;
            block.o = o + head * o_stride;
            values_of_heads(type, tile, pace, &block, leaf->value_head_dim);
        }
    }
}

#endif
