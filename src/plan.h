/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cuts a launch (all sequences, or one) into pieces and deals them to tasks.
 *
 * A piece is an aligned run of 2^k leaves of one sequence for one KV head, so that one worker folds
 * it into one state of the tree by itself. A task is a row of neighbouring pieces; tasks are about
 * equally long, the last ones shorter, and there are several for each worker, who takes one after
 * the other: whoever is held up takes fewer. A shard is a set of tasks that belongs to some of the
 * workers.
 */
#ifndef PAGEATTN_PLAN_H
#define PAGEATTN_PLAN_H

#include "problem.h"

typedef struct pageattn_plan_seq {
    int64_t begin; /* positions [begin, end) are attended to */
    int64_t end;
    int64_t num_pieces;    /* for each KV head; at least 1, which may be empty */
    int64_t first_partial; /* how many partial states of a KV head come before this sequence's */
    int64_t split_index;   /* how many split sequences come before this one; -1: not split */
    int piece_log2;        /* leaves in a piece */
} pageattn_plan_seq;

typedef struct pageattn_piece {
    int64_t seq;
    int64_t kv_head;
    int64_t piece;
} pageattn_piece;

typedef struct pageattn_task_range {
    pageattn_piece first;
    int64_t num_pieces;
} pageattn_task_range;

/* Pieces are numbered sequence by sequence, in it KV head by KV head. */
typedef struct pageattn_shard {
    int64_t seq_begin;
    int64_t seq_end;
    int64_t kv_head_begin;
    int64_t kv_head_end;
    int64_t first_task;
    int64_t num_tasks;
} pageattn_shard;

typedef struct pageattn_plan {
    int num_shards; /* 1 or 2 */
    pageattn_shard shard[2];
    int64_t num_workers;
    int64_t seq_begin; /* the launch */
    int64_t seq_end;
    int changed;             /* a context length became wrong since the check */
    pageattn_plan_seq *seqs; /* of the launch: index seq - seq_begin */
    pageattn_task_range *tasks;
} pageattn_plan;

/* Room that any launch of `num_seqs` sequences needs, whatever their lengths. */
typedef struct pageattn_plan_limits {
    int64_t num_tasks;
    int64_t num_partials; /* partial states, of all KV heads */
    int64_t num_split;    /* sequences that are split, times KV heads */
} pageattn_plan_limits;

/* Returns 0 if a number does not fit. */
int pageattn_plan_limits_of(const pageattn_problem *problem, int64_t num_seqs, int64_t num_workers,
                            pageattn_plan_limits *limits);

/* plan->seqs and plan->tasks are room lent by the caller; everything else is written.
 * A call that reads less than min_bytes for each worker gets fewer workers. */
void pageattn_plan_make(const pageattn_problem *problem, int64_t seq_begin, int64_t seq_end,
                        int64_t num_workers, int64_t min_bytes, pageattn_plan *plan);

/* The positions of a piece, [begin, end). */
void pageattn_piece_positions(const pageattn_plan_seq *seq, int64_t piece, int64_t *begin,
                              int64_t *end);

/* The next piece of the shard. */
static inline void pageattn_piece_next(const pageattn_plan *plan, const pageattn_shard *shard,
                                       pageattn_piece *piece)
{
    if (++piece->piece < plan->seqs[piece->seq - plan->seq_begin].num_pieces)
        return;
    piece->piece = 0;
    if (++piece->kv_head < shard->kv_head_end)
        return;
    piece->kv_head = shard->kv_head_begin;
    piece->seq++;
}

#endif
