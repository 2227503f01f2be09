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

/* A prefetch never faults, so a row may end before the line that is asked for. */
KERNEL_INLINE void prefetch_line(const char *line)
{
    __builtin_prefetch(line, 0, 2);
}

/* The same line of each row. */
KERNEL_INLINE void prefetch_rows(const char *const row[], int num_rows, int64_t offset_bytes)
{
    KERNEL_UNROLL
    for (int i = 0; i < num_rows; i++)
        prefetch_line(row[i] + offset_bytes);
}

KERNEL_INLINE void prefetch_bytes(const char *from, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += PREFETCH_LINE_BYTES)
        prefetch_line(from + i);
}

#endif
