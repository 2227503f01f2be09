/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decode attention waits for memory. Pages lie anywhere, so the hardware's prefetcher starts anew
 * on each; asking for rows that come later in the stream, a little with every little work done,
 * about doubles what one core reads. Each line is asked for again when it is nearer, into L1: the
 * loads of a tile come in bursts, and arithmetic that fills the core leaves no room to wait for L2.
 *
 * The first time it is asked for in L2, as the L1 of most CPUs can't wait for so many lines at
 * once. Where it can, L1 from the start does better. It seems to drop what is too much, as asking
 * more often helps; and the distances differ modulo 4 KiB, or all that is asked for at one time
 * would share a set of L1. Kernels for such a CPU are another compilation, with
 * PREFETCH_INTO_L1: choosing at each line would take 1 to 9 % of a call in cache.
 * docs/performance.md has the figures.
 */
#ifndef PAGEATTN_KERNEL_PREFETCH_H
#define PAGEATTN_KERNEL_PREFETCH_H

#include "elements.h"

/* How often a line is asked for, and how far ahead each time, in bytes of the stream. Where an
 * instruction set has few registers the arithmetic takes so long that asking often costs more than
 * it gives. */
#if defined(PREFETCH_INTO_L1) && !defined(LANES_FEW_REGISTERS)
#define PREFETCH_STEADILY 1 /* prefetch_steadily.h */
#define PREFETCH_FIRST_INTO_L1 1
#define PREFETCH_FAR_BYTES 24576
#define PREFETCH_MOST_BYTES 32768 /* once more, in prefetch_steadily.h */
#define PREFETCH_TIMES 4
static const int64_t prefetch_bytes[PREFETCH_TIMES] = {PREFETCH_FAR_BYTES, 18432, 11264, 5120};
#elif defined(PREFETCH_INTO_L1)
#define PREFETCH_STEADILY 0
#define PREFETCH_FIRST_INTO_L1 1
#define PREFETCH_FAR_BYTES 18432
#define PREFETCH_MOST_BYTES PREFETCH_FAR_BYTES
#define PREFETCH_TIMES 2
static const int64_t prefetch_bytes[PREFETCH_TIMES] = {PREFETCH_FAR_BYTES, 9216};
#else
#define PREFETCH_STEADILY 0
#define PREFETCH_FIRST_INTO_L1 0
#define PREFETCH_FAR_BYTES 12288
#define PREFETCH_MOST_BYTES PREFETCH_FAR_BYTES
#define PREFETCH_TIMES 2
static const int64_t prefetch_bytes[PREFETCH_TIMES] = {PREFETCH_FAR_BYTES, 4096};
#endif

/*
 * Where in the stream the next line to prefetch lies. It moves through the rows in order and line
 * by line, whatever order they are read in: within a page that is the order that the hardware's
 * prefetcher knows, so that it helps.
 */
typedef struct prefetcher {
    const char *const *row;
    const char *const *last;         /* where it stops, asking for the same row again; or NULL */
    const char *end[PREFETCH_TIMES]; /* of *row, and of the rows that are due again */
    int64_t line;                    /* the next one of each, counted from its end: negative */
    int64_t before[PREFETCH_TIMES];  /* so many rows before *row come those that are due again */
    int64_t row_bytes;
    int64_t num_tiles;    /* of heads; each of them reads the rows once */
    int64_t unpaid_bytes; /* that were read, and not answered by a prefetch yet */
} prefetcher;

KERNEL_INLINE void prefetcher_enter_row(prefetcher *next)
{
    next->end[0] = *next->row + next->row_bytes;
    KERNEL_UNROLL
    for (int i = 1; i < PREFETCH_TIMES; i++)
        next->end[i] = next->row[-next->before[i]] + next->row_bytes;
    next->line = -next->row_bytes;
}

/* How many rows before the farthest come those `bytes` away, which is one row at least. */
KERNEL_INLINE int64_t rows_before(int64_t far_rows, int64_t bytes, int64_t row_bytes)
{
    const int64_t rows = bytes / row_bytes;
    if (rows < 1)
        return far_rows - 1;
    return rows < far_rows ? far_rows - rows : 0;
}

/* For `rows` that are read now, num_tiles times each, 1 at least. */
KERNEL_INLINE prefetcher prefetcher_start(const char *const *rows, int64_t row_bytes,
                                          int64_t num_tiles)
{
    const int64_t far_rows = pageattn_prefetch_rows(PREFETCH_FAR_BYTES, row_bytes);
    prefetcher next = {.row = rows + far_rows, .row_bytes = row_bytes, .num_tiles = num_tiles};
    KERNEL_UNROLL
    for (int i = 1; i < PREFETCH_TIMES; i++)
        next.before[i] = rows_before(far_rows, prefetch_bytes[i], row_bytes);
    prefetcher_enter_row(&next);
    return next;
}

/* A prefetch never faults, so a row may end within a line; what lies past its end is not paid. */
KERNEL_INLINE void prefetcher_leave_row(prefetcher *next)
{
    next->unpaid_bytes += next->line * next->num_tiles;
    if (next->last == NULL || next->row < next->last)
        next->row++;
    prefetcher_enter_row(next);
}

KERNEL_INLINE void prefetch_each_time(prefetcher *next)
{
    if (PREFETCH_FIRST_INTO_L1)
        __builtin_prefetch(next->end[0] + next->line, 0, 3);
    else
        __builtin_prefetch(next->end[0] + next->line, 0, 2);
    KERNEL_UNROLL
    for (int i = 1; i < PREFETCH_TIMES; i++)
        __builtin_prefetch(next->end[i] + next->line, 0, 3);
    next->line += LINE_BYTES;
}

KERNEL_INLINE void prefetch_line(prefetcher *next)
{
    prefetch_each_time(next);
    if (next->line >= 0)
        prefetcher_leave_row(next);
}

/* A constant number of lines, which most often lie in one row; says if they do not. */
KERNEL_INLINE int prefetch_lines_of_row(prefetcher *next, int64_t num_lines)
{
    if (next->line + num_lines * LINE_BYTES > 0)
        return 0;
    KERNEL_UNROLL
    for (int64_t i = 0; i < num_lines; i++) {
        prefetch_each_time(next);
        KERNEL_OPAQUE(next->line); /* or gcc asks for them in another order */
    }
    if (next->line == 0)
        prefetcher_leave_row(next);
    return 1;
}

/* Several, a constant number. Rows of two lines, 64 of bf16 or f16, are common, too. */
KERNEL_INLINE void prefetch_lines(prefetcher *next, int64_t num_lines)
{
    int64_t done = 0;
    if (prefetch_lines_of_row(next, num_lines))
        return;
    if (num_lines % 4 == 0)
        while (done < num_lines && prefetch_lines_of_row(next, 2))
            done += 2;
    for (; done < num_lines; done++)
        prefetch_line(next);
}

/* As many bytes are prefetched as are read, so that neither runs away from the other. For a line at
 * most: what a row's end leaves over is paid by the next call, and a row has a call for each line.
 */
KERNEL_INLINE void prefetch_for(prefetcher *next, int64_t bytes)
{
    next->unpaid_bytes += bytes;
    if (next->unpaid_bytes >= LINE_BYTES * next->num_tiles) {
        next->unpaid_bytes -= LINE_BYTES * next->num_tiles;
        prefetch_line(next);
    }
}

/* The same for a constant number of bytes. If they are several lines, these are asked for together,
 * as soon as the price of all is there: counting each by itself takes more instructions than a
 * step's multiply-adds. */
KERNEL_INLINE void prefetch_for_constant(prefetcher *next, int64_t bytes)
{
    const int64_t lines = bytes / LINE_BYTES;
    if (lines == 1) {
        if (next->num_tiles == 1)
            prefetch_line(next);
        else
            prefetch_for(next, LINE_BYTES);
    } else if (lines > 1) {
        const int64_t price = lines * LINE_BYTES * next->num_tiles;
        next->unpaid_bytes += lines * LINE_BYTES;
        if (next->unpaid_bytes >= price) {
            next->unpaid_bytes -= price;
            prefetch_lines(next, lines);
        }
    }
    if (bytes % LINE_BYTES != 0)
        prefetch_for(next, bytes % LINE_BYTES);
}

/* For some of the bytes that a step reads, whose sizes and number are constants: `before` of them
 * were paid already. Steps read whole lines, but for the last of a row or leaf. */
KERNEL_INLINE void prefetch_for_part(prefetcher *next, int64_t before, int64_t bytes)
{
    const int64_t lines = (before + bytes) / LINE_BYTES - before / LINE_BYTES;
    prefetch_for_constant(next, lines * LINE_BYTES);
}

#define PREFETCH_LINES_AT_ONCE 4

/* For `bytes` of each of one or two tokens, at once if these are a few lines. */
KERNEL_INLINE void prefetch_for_tokens(prefetcher *next, int num_tokens, int64_t bytes)
{
    const int together = num_tokens * bytes <= PREFETCH_LINES_AT_ONCE * LINE_BYTES;
    prefetch_for_constant(next, together ? num_tokens * bytes : bytes);
    if (!together && num_tokens == 2)
        prefetch_for_constant(next, bytes);
}

/* How often prefetches are made. Prefetches wait for one another in bursts: where nothing but
 * memory limits, at one head in the tile, every few elements pay for themselves. With more heads
 * the multiply-adds have no time for that, and a few lines together do no harm. */
KERNEL_INLINE int prefetches_singly(int num_heads)
{
    return num_heads == 1;
}

#endif
