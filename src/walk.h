/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The leaves that one worker computes, one after the other: it claims a task, walks over its
 * pieces and their leaves, and claims the next. The order is known one leaf ahead, so that the next
 * leaf's rows can be prefetched while this one is computed, across pieces and tasks.
 */
#ifndef PAGEATTN_WALK_H
#define PAGEATTN_WALK_H

#include <stdatomic.h>

#include "kernel/kernels.h"
#include "plan.h"

typedef struct pageattn_leaf_place {
    int64_t seq;
    int64_t kv_head;
    int64_t piece;
    int64_t begin; /* positions [begin, end) of one leaf; none in an empty piece */
    int64_t end;
    int first_of_piece;
    int last_of_piece;
} pageattn_leaf_place;

typedef struct pageattn_walk {
    const pageattn_plan *plan;
    const pageattn_shard *shard;
    _Atomic int64_t *next_task; /* of the shard, shared with other workers */
    pageattn_piece piece;       /* the one that comes after the current one */
    int64_t num_pieces_left;    /* of the task */
    pageattn_leaf_place place;
    int64_t piece_end;
} pageattn_walk;

void pageattn_walk_start(pageattn_walk *walk, const pageattn_plan *plan,
                         const pageattn_shard *shard, _Atomic int64_t *next_task);

/* The next leaf; 0 when the shard has no more tasks. */
int pageattn_walk_next(pageattn_walk *walk, pageattn_leaf_place *place);

/* The rows of a leaf in the order of pageattn_leaf's stream, followed by those of the next leaf
 * (NULL: none) as far as prefetching reaches, rows_ahead. `place` and `next` are not empty, and
 * `rows` has room for PAGEATTN_STREAM_ROWS. Returns
 * 1 if a block table entry became wrong since the check, else 0. */
int pageattn_walk_rows(const pageattn_problem *problem, const pageattn_kernels *kernels,
                       const pageattn_leaf_place *place, const pageattn_leaf_place *next,
                       int64_t rows_ahead, const char **rows);

/* How many rows past a leaf kernels ask for that look so far ahead, from its keys or its values. */
int64_t pageattn_walk_rows_ahead(const pageattn_problem *problem, int64_t prefetch_bytes);

#endif
