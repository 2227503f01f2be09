/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dot products of a leaf's keys with the scaled query rows.
 *
 * Tokens go in blocks of 16, whose dot products fold together into one lane group. In a block the
 * register tile is LANES_KEY_TOKENS tokens x LANES_KEY_HEADS heads: a key, once widened, meets
 * all heads of the tile, and a lane group of the query, once loaded, all tokens.
 */
#ifndef PAGEATTN_KERNEL_LOGITS_H
#define PAGEATTN_KERNEL_LOGITS_H

#include "elements.h"
#include "prefetch_steadily.h"
#include "query_tiles.h"

#define BLOCK_TOKENS 16

/* What the tiles of a block share. */
typedef struct logits_block {
    const char *const *rows;
    prefetcher *next;
    int64_t head_dim;
    const float *query; /* of the tile */
} logits_block;

/* The next line of the rows meets the query. */
KERNEL_INLINE void dot_line(pageattn_type type, int num_tokens, int num_heads, prefetch_pace pace,
                            const char *const row[], int64_t offset_bytes, const float *query,
                            prefetcher *next, lanes sum[][LANES_KEY_HEADS])
{
    rows_ahead ahead;
    KERNEL_UNROLL
    for (int t = 0; t < num_tokens; t++) {
        lanes key[LINE_MAX_GROUPS];
        load_line(type, row[t] + offset_bytes, key);
        KERNEL_UNROLL
        for (int g = 0; g < line_groups(type); g++) {
            KERNEL_UNROLL
            for (int h = 0; h < num_heads; h++)
                sum[t][h] = lanes_fma(lanes_load_f32(query + (g * num_heads + h) * PAGEATTN_LANES),
                                      key[g], sum[t][h]);
        }
        if (pace != PACE_COUNTED) {
            prefetch_in_step(next, pace, num_heads, num_tokens, t, &ahead);
        } else if (prefetches_singly(num_heads)) {
            prefetch_for_constant(next, LINE_BYTES);
            KERNEL_IN_ORDER;
        }
    }
    if (pace != PACE_COUNTED)
        prefetcher_end_step(next, pace, num_tokens);
    else if (!prefetches_singly(num_heads))
        prefetch_for_constant(next, num_tokens * LINE_BYTES);
}

/* The next lane group, where less than a line is left; `n` < 16 at the end of a row. */
KERNEL_INLINE void dot_step(pageattn_type type, int num_tokens, int num_heads, int64_t n,
                            const char *const row[], int64_t offset_bytes, const float *query,
                            prefetcher *next, lanes sum[][LANES_KEY_HEADS])
{
    KERNEL_UNROLL
    for (int t = 0; t < num_tokens; t++) {
        const char *elements = row[t] + offset_bytes;
        const lanes key =
            n == PAGEATTN_LANES ? load_group(type, elements) : load_first(type, elements, n);
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            sum[t][h] = lanes_fma(lanes_load_f32(query + h * PAGEATTN_LANES), key, sum[t][h]);
        if (n < PAGEATTN_LANES)
            prefetch_for(next, n * element_bytes(type));
        else if (prefetches_singly(num_heads))
            prefetch_for_part(next, t * PAGEATTN_LANES * element_bytes(type),
                              PAGEATTN_LANES * element_bytes(type));
    }
}

/* Lane sums of tokens first, first + 4, ... of the block; acc[t][h] starts from +0. */
KERNEL_INLINE void dot_tile(pageattn_type type, int num_tokens, int num_heads, prefetch_pace pace,
                            const logits_block *block, int first, lanes acc[][LANES_KEY_HEADS])
{
    const int64_t line = LINE_BYTES / element_bytes(type); /* elements */
    const int64_t head_dim = block->head_dim;
    const int64_t tail = head_dim % PAGEATTN_LANES; /* elements of the last lane group */
    const float *query = block->query;
    const char *row[4];
    prefetcher next = *block->next;
    lanes sum[4][LANES_KEY_HEADS];

    KERNEL_UNROLL
    for (int t = 0; t < num_tokens; t++) {
        row[t] = block->rows[first + 4 * t];
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            sum[t][h] = lanes_zero();
    }
    int64_t d = 0;
    for (; d + line <= head_dim; d += line)
        dot_line(type, num_tokens, num_heads, pace, row, d * element_bytes(type),
                 query + d * num_heads, &next, sum);
    if (pace == PACE_COUNTED) {
        for (; d + PAGEATTN_LANES <= head_dim; d += PAGEATTN_LANES) {
            dot_step(type, num_tokens, num_heads, PAGEATTN_LANES, row, d * element_bytes(type),
                     query + d * num_heads, &next, sum);
            if (!prefetches_singly(num_heads))
                prefetch_for_constant(&next, num_tokens * PAGEATTN_LANES * element_bytes(type));
        }
        if (tail > 0)
            dot_step(type, num_tokens, num_heads, tail, row, d * element_bytes(type),
                     query + d * num_heads, &next, sum);
    }
    *block->next = next;
    KERNEL_UNROLL
    for (int t = 0; t < num_tokens; t++) {
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            acc[t][h] = sum[t][h];
    }
}

#ifdef LANES_FEW_REGISTERS
#include "logits_by_halves.h"
#else
/* 16 logits of each of num_heads heads, PAGEATTN_LEAF_TOKENS apart. */
KERNEL_INLINE void block_logits(pageattn_type type, int num_heads, prefetch_pace pace,
                                const logits_block *block, float *logits)
{
    lanes folded[4][LANES_KEY_HEADS];
    for (int q = 0; q < 4; q++) {
        lanes acc[4][LANES_KEY_HEADS];
        KERNEL_UNROLL
        for (int t = 0; t < 4; t += LANES_KEY_TOKENS)
            dot_tile(type, LANES_KEY_TOKENS, num_heads, pace, block, q + 4 * t, acc + t);
        KERNEL_UNROLL
        for (int h = 0; h < num_heads; h++)
            folded[q][h] = lanes_fold_8_4(acc[0][h], acc[1][h], acc[2][h], acc[3][h]);
    }
    KERNEL_UNROLL
    for (int h = 0; h < num_heads; h++)
        lanes_store_f32(logits + h * PAGEATTN_LEAF_TOKENS,
                        lanes_fold_2_1(folded[0][h], folded[1][h], folded[2][h], folded[3][h]));
}

KERNEL_INLINE void block_logits_of_heads(pageattn_type type, int64_t num_heads, prefetch_pace pace,
                                         const logits_block *block, float *logits)
{
    switch (num_heads) {
    case 1:
        block_logits(type, 1, pace, block, logits);
        return;
#if LANES_KEY_HEADS >= 2
    case 2:
        block_logits(type, 2, pace, block, logits);
        return;
#endif
#if LANES_KEY_HEADS >= 4
    case 3:
        block_logits(type, 3, pace, block, logits);
        return;
    case 4:
        block_logits(type, 4, pace, block, logits);
        return;
#endif
    default:
        __builtin_unreachable();
    }
}
#endif

/* In the blocks that hold [begin, end); the values come after them in the stream. */
KERNEL_INLINE int64_t num_key_rows(const pageattn_leaf *leaf)
{
    return pageattn_padded(leaf->end) - leaf->begin / BLOCK_TOKENS * BLOCK_TOKENS;
}

KERNEL_INLINE int64_t num_key_tiles(const pageattn_leaf *leaf)
{
    return (leaf->num_heads + LANES_KEY_HEADS - 1) / LANES_KEY_HEADS;
}

KERNEL_INLINE prefetch_pace pace_of_keys(pageattn_type type, const pageattn_leaf *leaf)
{
    const prefetch_pace pace =
        pace_of(type, leaf->head_dim * element_bytes(type), num_key_tiles(leaf));
    /* A step would ask for a quarter of a row: prefetcher_end_step knows halves. */
    return pace == PACE_8_LINES_2_TILES ? PACE_COUNTED : pace;
}

KERNEL_INLINE prefetcher prefetch_beside_keys(pageattn_type type, const pageattn_leaf *leaf)
{
    return prefetcher_start(leaf->rows, leaf->head_dim * element_bytes(type), num_key_tiles(leaf));
}

/* Logits of the blocks that hold [begin, end); those of a block's other tokens mean nothing. */
KERNEL_INLINE void leaf_logits(pageattn_type type, prefetch_pace pace, const pageattn_leaf *leaf)
{
    const int64_t row_elements = pageattn_padded(leaf->head_dim);
    const char *const *rows = leaf->rows;
    prefetcher next = prefetch_beside_keys(type, leaf);

    for (int64_t token = leaf->begin / BLOCK_TOKENS * BLOCK_TOKENS; token < leaf->end;
         token += BLOCK_TOKENS, rows += BLOCK_TOKENS) {
        logits_block block = {.rows = rows, .next = &next, .head_dim = leaf->head_dim};
        for (int64_t head = 0; head < leaf->num_heads; head += LANES_KEY_HEADS) {
            float *logits = leaf->logits + head * PAGEATTN_LEAF_TOKENS + token;
            block.query = leaf->query + query_tile_offset(head, row_elements, PAGEATTN_LANES);
            block_logits_of_heads(type, query_tile_heads(leaf->num_heads, head), pace, &block,
                                  logits);
        }
    }
}

#endif
