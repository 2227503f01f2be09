/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lists rows that lie evenly in runs. Memory waits while a leaf's rows are listed, so it is done a
 * vector at a time.
 */
#ifndef PAGEATTN_KERNEL_LIST_ROWS_H
#define PAGEATTN_KERNEL_LIST_ROWS_H

#include "kernels.h"

typedef uint64_t addresses
    __attribute__((vector_size(PAGEATTN_ROWS_AT_ONCE * sizeof(uint64_t)), aligned(8), may_alias));

/* Runs need not hold whole vectors: what is listed past a run's end is overwritten by the next. It
 * may be no address at all, so that they are computed modulo 2^64. */
static void list_rows(const pageattn_row_runs *from, int64_t count, const char **rows)
{
    const int64_t run_rows = from->num_rows;
    const uint64_t step = (uint64_t)from->step;
    const addresses steps = (addresses){0, 1, 2, 3, 4, 5, 6, 7} * step;
    const char *const *run = from->first;
    int64_t skip = from->skip;

    while (count > 0) {
        const int64_t left = run_rows - skip;
        const int64_t num_listed = left < count ? left : count;
        uint64_t row = (uintptr_t)*run++ + (uint64_t)skip * step;
        for (int64_t i = 0; i < num_listed; i += PAGEATTN_ROWS_AT_ONCE) {
            *(addresses *)(rows + i) = steps + row;
            row += PAGEATTN_ROWS_AT_ONCE * step;
        }
        rows += num_listed;
        count -= num_listed;
        skip = 0;
    }
}

#endif
