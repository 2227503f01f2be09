/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefetches beside the commonest rows, which have two or four lines, or eight of floats, and are
 * read by one or two tiles of heads. There each step asks for as many lines as it pays for, and
 * which these are is known when it is compiled: nothing is counted, no step branches, and lines are
 * asked for one by one between the multiply-adds. Counting takes more instructions than the
 * arithmetic.
 *
 * So there is time to ask more often, and farther ahead. Only kernels that prefetch into L1 and
 * have many registers do all this: on the CPUs of the others it was not measured.
 * docs/performance.md has the figures.
 */
#ifndef PAGEATTN_KERNEL_PREFETCH_STEADILY_H
#define PAGEATTN_KERNEL_PREFETCH_STEADILY_H

#include "prefetch.h"

/* What must be known when a step is compiled: for each, the stages of a leaf are stamped. */
typedef enum prefetch_pace {
    PACE_COUNTED, /* not of this file: prefetch.h counts */
    PACE_2_LINES_1_TILE,
    PACE_2_LINES_2_TILES,
    PACE_4_LINES_1_TILE,
    PACE_4_LINES_2_TILES,
    PACE_8_LINES_1_TILE,
    PACE_8_LINES_2_TILES,
    NUM_PACES
} prefetch_pace;

#if PREFETCH_STEADILY
#define AT_EACH_PACE(STAMP, name, NAME)                                                            \
    STAMP(name, NAME, PACE_COUNTED)                                                                \
    STAMP(name, NAME, PACE_2_LINES_1_TILE)                                                         \
    STAMP(name, NAME, PACE_2_LINES_2_TILES)                                                        \
    STAMP(name, NAME, PACE_4_LINES_1_TILE)                                                         \
    STAMP(name, NAME, PACE_4_LINES_2_TILES)                                                        \
    STAMP(name, NAME, PACE_8_LINES_1_TILE)                                                         \
    STAMP(name, NAME, PACE_8_LINES_2_TILES)
#else
#define AT_EACH_PACE(STAMP, name, NAME) STAMP(name, NAME, PACE_COUNTED)
#endif

KERNEL_INLINE int pace_row_lines(prefetch_pace pace)
{
    if (pace == PACE_8_LINES_1_TILE || pace == PACE_8_LINES_2_TILES)
        return 8;
    return pace == PACE_4_LINES_1_TILE || pace == PACE_4_LINES_2_TILES ? 4 : 2;
}

KERNEL_INLINE int pace_tiles(prefetch_pace pace)
{
    return pace == PACE_2_LINES_1_TILE || pace == PACE_4_LINES_1_TILE || pace == PACE_8_LINES_1_TILE
               ? 1
               : 2;
}

#define PACE_MAX_GROUPS 8 /* of a row, which a tile of values can hold */

/* Eight lines of two lane groups each are too many. */
KERNEL_INLINE int type_has_pace(pageattn_type type, prefetch_pace pace)
{
    return pace == PACE_COUNTED || pace_row_lines(pace) * line_groups(type) <= PACE_MAX_GROUPS;
}

KERNEL_INLINE prefetch_pace pace_of(pageattn_type type, int64_t row_bytes, int64_t num_tiles)
{
    if (!PREFETCH_STEADILY || num_tiles > 2)
        return PACE_COUNTED;
    if (row_bytes == 2 * LINE_BYTES)
        return num_tiles == 1 ? PACE_2_LINES_1_TILE : PACE_2_LINES_2_TILES;
    if (row_bytes == 4 * LINE_BYTES)
        return num_tiles == 1 ? PACE_4_LINES_1_TILE : PACE_4_LINES_2_TILES;
    if (row_bytes == 8 * LINE_BYTES && type_has_pace(type, PACE_8_LINES_1_TILE))
        return num_tiles == 1 ? PACE_8_LINES_1_TILE : PACE_8_LINES_2_TILES;
    return PACE_COUNTED;
}

#define STEADY_MORE_TIMES 3
#define STEADY_MAX_TIMES (STEADY_MORE_TIMES + PREFETCH_TIMES)

/* How far ahead the requests are that come in front of prefetch.h's, where a step asks more often:
 * first the last of them, then the last two, then all. */
static const int64_t steady_more_bytes[STEADY_MORE_TIMES] = {14336, PREFETCH_MOST_BYTES, 22528};

/* The rows that a step asks for at the moment, one for each time. */
typedef struct rows_ahead {
    const char *of[STEADY_MAX_TIMES];
} rows_ahead;

KERNEL_INLINE int asks_for_whole_rows(prefetch_pace pace, int num_lines)
{
    return num_lines / pace_tiles(pace) >= pace_row_lines(pace);
}

/* The fewer multiply-adds for each line, the more memory limits, and the more time there is. */
KERNEL_INLINE int steady_times(prefetch_pace pace, int num_heads, int num_lines)
{
    const int whole_rows = asks_for_whole_rows(pace, num_lines);
    if (pace_row_lines(pace) == 8)
        return pace_tiles(pace) == 1 || whole_rows ? STEADY_MAX_TIMES : PREFETCH_TIMES + 1;
    if (!whole_rows)
        return PREFETCH_TIMES - 1;
    if (pace != PACE_4_LINES_1_TILE || num_heads > 2)
        return PREFETCH_TIMES;
    return num_heads == 1 ? PREFETCH_TIMES + 2 : PREFETCH_TIMES + 1;
}

/* How far before prefetcher.row the rows of one of STEADY_MAX_TIMES stand. */
KERNEL_INLINE int64_t steady_bytes_before(int time)
{
    if (time < STEADY_MORE_TIMES)
        return PREFETCH_FAR_BYTES - steady_more_bytes[time];
    return PREFETCH_FAR_BYTES - prefetch_bytes[time - STEADY_MORE_TIMES];
}

/* Comes after each line of num_lines that a step reads, four or eight. */
KERNEL_INLINE void prefetch_in_step(const prefetcher *next, prefetch_pace pace, int num_heads,
                                    int num_lines, int line, rows_ahead *rows)
{
    const int row_lines = pace_row_lines(pace), num_tiles = pace_tiles(pace);
    const int64_t row_bytes = row_lines * LINE_BYTES;
    const int whole_rows = asks_for_whole_rows(pace, num_lines);
    const int asked = line / num_tiles;
    if ((line + 1) % num_tiles != 0)
        return;
    KERNEL_UNROLL
    for (int i = STEADY_MAX_TIMES - steady_times(pace, num_heads, num_lines); i < STEADY_MAX_TIMES;
         i++) {
        if (asked % row_lines == 0)
            rows->of[i] = next->row[asked / row_lines - steady_bytes_before(i) / row_bytes] +
                          (whole_rows ? 0 : row_bytes + next->line);
        lanes_prefetch(rows->of[i] + asked % row_lines * LINE_BYTES);
    }
}

/* After a step, which has asked for whole rows or for half of one. */
KERNEL_INLINE void prefetcher_end_step(prefetcher *next, prefetch_pace pace, int num_lines)
{
    const int row_lines = pace_row_lines(pace);
    const int num_asked = num_lines / pace_tiles(pace);
    if (asks_for_whole_rows(pace, num_lines)) {
        next->row += num_asked / row_lines;
    } else {
        const int64_t half = num_asked * LINE_BYTES;
        next->line = -3 * half - next->line;
        next->row += next->line == -2 * half;
    }
}

#endif
