/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode attention waits for memory. Pages lie anywhere, so the hardware's prefetcher starts anew
 * on each; asking for the rows that come PAGEATTN_PREFETCH_BYTES later in the stream, a little with
 * every little work done, about doubles what one core reads. They are asked for in L2: L1 has too
 * few line fill buffers to hold that many misses. docs/performance.md has the figures.
 */
#ifndef PAGEATTN_KERNEL_PREFETCH_H
#define PAGEATTN_KERNEL_PREFETCH_H

#include "elements.h"

#define PREFETCH_LINE_BYTES 64

/* Where several tiles of heads go over the same rows, each prefetches its share of the lines that
 * come later: every num_tiles-th, from its own on. In bursts they would wait for one another. */
typedef struct prefetch_share {
    int64_t first_bytes;
    int64_t step_bytes;
} prefetch_share;

KERNEL_INLINE prefetch_share prefetch_share_of(int64_t head, int64_t num_heads, int64_t tile_heads)
{
    const int64_t num_tiles = (num_heads + tile_heads - 1) / tile_heads;
    return (prefetch_share){.first_bytes = head / tile_heads * PREFETCH_LINE_BYTES,
                            .step_bytes = num_tiles * PREFETCH_LINE_BYTES};
}

/* A prefetch never faults, so a row may end before the line that is asked for. */
KERNEL_INLINE void prefetch_line(const char *line)
{
    __builtin_prefetch(line, 0, 2);
}

KERNEL_INLINE void prefetch_bytes(const char *from, int64_t bytes, prefetch_share share)
{
    for (int64_t i = share.first_bytes; i < bytes; i += share.step_bytes)
        prefetch_line(from + i);
}

/* The same line of each row. */
KERNEL_INLINE void prefetch_rows(const char *const row[], int num_rows, int64_t offset_bytes)
{
    KERNEL_UNROLL
    for (int i = 0; i < num_rows; i++)
        prefetch_line(row[i] + offset_bytes);
}

#endif
