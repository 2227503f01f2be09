/* SPDX-License-Identifier: Apache-2.0 */
/* Only lengths and sizes decide a plan; what it decides never changes the bits. */
#include "plan.h"

#include "kernel/kernels.h"

/* A worker that is held up costs one task's time at most. */
#define TASKS_PER_WORKER 16

/* The last tasks are smaller, so that the workers end together: each is what is left, divided by
 * twice the workers, but no less than a quarter of a usual one. */
#define LAST_TASKS_PER_WORKER 2
#define SMALLEST_TASK_PART 4

/* Pieces of this size hold any sequence whole: context lengths are int32. */
#define WHOLE_LOG2 32

/* What a piece costs beside its tokens, in tokens: query, merge, output. */
#define PIECE_TOKENS 16

/* Work is counted in int64_t; a hostile call that claims more than that plans badly, not wrongly.
 */
static int64_t saturating_add(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static int64_t saturating_mul(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return a / b + (a % b != 0);
}

static int64_t num_leaves_of(int64_t begin, int64_t end)
{
    return begin < end ? (end - 1) / PAGEATTN_LEAF_TOKENS - begin / PAGEATTN_LEAF_TOKENS + 1 : 0;
}

static int64_t num_pieces_of(const pageattn_plan_seq *seq)
{
    if (seq->begin == seq->end)
        return 1;
    const int64_t first = seq->begin / PAGEATTN_LEAF_TOKENS >> seq->piece_log2;
    const int64_t last = (seq->end - 1) / PAGEATTN_LEAF_TOKENS >> seq->piece_log2;
    return last - first + 1;
}

void pageattn_piece_positions(const pageattn_plan_seq *seq, int64_t piece, int64_t *begin,
                              int64_t *end)
{
    const int64_t first = seq->begin / PAGEATTN_LEAF_TOKENS >> seq->piece_log2;
    const int64_t start = ((first + piece) << seq->piece_log2) * PAGEATTN_LEAF_TOKENS;
    const int64_t stop = ((first + piece + 1) << seq->piece_log2) * PAGEATTN_LEAF_TOKENS;
    *begin = start > seq->begin ? start : seq->begin;
    *end = stop < seq->end ? stop : seq->end;
}

/* The smallest piece that the options allow: log2 of its leaves. */
static int min_piece_log2(const pageattn_problem *problem)
{
    int log2 = 0;
    int64_t tokens;
    if (__builtin_mul_overflow(problem->pages_per_compute_block, problem->page_size, &tokens))
        tokens = INT64_MAX;
    while (log2 < WHOLE_LOG2 && ((int64_t)PAGEATTN_LEAF_TOKENS << log2) < tokens)
        log2++;
    return log2;
}

/* The largest piece of at most `tokens` tokens, but at least `smallest`. */
static int piece_log2_for(int64_t tokens, int smallest)
{
    int log2 = smallest;
    while (log2 < WHOLE_LOG2 && ((int64_t)PAGEATTN_LEAF_TOKENS << (log2 + 1)) <= tokens)
        log2++;
    return log2;
}

/* 14 usual tasks for each worker; then, with the work of two more left, less than 3 (2 ln 4) until
 * a quarter of that is left, and 2 of the smallest. Where a shard ends, or a shard's workers are
 * rounded up, there are a few more. */
static int64_t max_tasks(int64_t num_workers)
{
    return num_workers * (TASKS_PER_WORKER + 3) + 8;
}

int pageattn_plan_limits_of(const pageattn_problem *problem, int64_t num_seqs, int64_t num_workers,
                            pageattn_plan_limits *limits)
{
    const int64_t num_leaves = num_leaves_of(0, problem->max_context_len);
    int64_t num_rows; /* sequences times KV heads */
    int64_t num_pieces;
    if (__builtin_mul_overflow(num_seqs, problem->num_kv_heads, &num_rows) ||
        __builtin_mul_overflow(num_rows, num_leaves, &num_pieces))
        return 0;

    limits->num_tasks = max_tasks(num_workers);
    limits->num_split = num_rows;
    if (problem->num_splits == 0) {
        /* Of W tokens a task gets W / tasks, and a piece is longer than half of that. So less than
         * 2 tasks rows are longer than a piece and split; together they have less than 2 tasks
         * whole pieces, and two broken ones each. */
        const int64_t tasks = num_workers * TASKS_PER_WORKER;
        limits->num_split = num_rows < 2 * tasks ? num_rows : 2 * tasks;
        const int64_t most = 2 * tasks + 2 * limits->num_split;
        num_pieces = num_pieces < most ? num_pieces : most;
        if (num_workers == 1)
            num_pieces = limits->num_split = 0;
    } else if (problem->num_splits < num_leaves) {
        num_pieces = num_rows * problem->num_splits;
    }
    limits->num_partials = num_pieces;
    return 1;
}

/* The positions that are attended to; returns their number. */
static int64_t place_seq(const pageattn_problem *problem, int64_t index, pageattn_plan_seq *seq,
                         int *changed)
{
    seq->end = pageattn_problem_context_len(problem, index, changed);
    seq->begin = pageattn_problem_first_position(problem, seq->end);
    return seq->end - seq->begin;
}

/* With num_splits, pieces grow until there are no more than that. Without, a sequence that is no
 * longer than a piece stays whole, even if it lies across a piece's edge. */
static void split_seq(const pageattn_problem *problem, int smallest, int automatic,
                      pageattn_plan_seq *seq)
{
    const int64_t piece_tokens = (int64_t)PAGEATTN_LEAF_TOKENS << automatic;
    seq->piece_log2 = problem->num_splits                    ? smallest
                      : seq->end - seq->begin > piece_tokens ? automatic
                                                             : WHOLE_LOG2;
    seq->num_pieces = num_pieces_of(seq);
    while (problem->num_splits && seq->num_pieces > problem->num_splits) {
        seq->piece_log2++;
        seq->num_pieces = num_pieces_of(seq);
    }
}

/* Whole sequences where there is one worker and nobody asked for splits. */
static void split_seqs(const pageattn_problem *problem, int64_t target_tokens, pageattn_plan *plan)
{
    const int smallest = min_piece_log2(problem);
    const int automatic =
        plan->num_workers == 1 ? WHOLE_LOG2 : piece_log2_for(target_tokens, smallest);
    int64_t num_partials = 0;
    int64_t num_split = 0;

    for (int64_t i = 0; i < plan->seq_end - plan->seq_begin; i++) {
        pageattn_plan_seq *seq = &plan->seqs[i];
        split_seq(problem, smallest, automatic, seq);
        seq->first_partial = num_partials;
        seq->split_index = seq->num_pieces > 1 ? num_split++ : -1;
        num_partials += seq->num_pieces > 1 ? seq->num_pieces : 0;
    }
}

static void make_shards(const pageattn_problem *problem, pageattn_plan *plan)
{
    const pageattn_shard all = {.seq_begin = plan->seq_begin,
                                .seq_end = plan->seq_end,
                                .kv_head_end = problem->num_kv_heads};
    plan->num_shards = problem->megacore_mode == PAGEATTN_MEGACORE_NONE ? 1 : 2;
    plan->shard[0] = plan->shard[1] = all;
    if (problem->megacore_mode == PAGEATTN_MEGACORE_KV_HEAD) {
        plan->shard[0].kv_head_end = problem->num_kv_heads / 2;
        plan->shard[1].kv_head_begin = problem->num_kv_heads / 2;
    }
    if (problem->megacore_mode == PAGEATTN_MEGACORE_BATCH) {
        /* Half of the call's sequences, of which the launch may hold only one. */
        const int64_t half = problem->num_seqs / 2;
        if (half > plan->seq_begin && half < plan->seq_end)
            plan->shard[0].seq_end = plan->shard[1].seq_begin = half;
        else if (half <= plan->seq_begin)
            plan->shard[0].seq_end = plan->seq_begin;
        else
            plan->shard[1].seq_begin = plan->seq_end;
    }
}

static int64_t piece_cost(const pageattn_plan *plan, const pageattn_piece *piece)
{
    int64_t begin, end;
    pageattn_piece_positions(&plan->seqs[piece->seq - plan->seq_begin], piece->piece, &begin, &end);
    return end - begin + PIECE_TOKENS;
}

static int64_t shard_cost(const pageattn_plan *plan, const pageattn_shard *shard)
{
    int64_t cost = 0;
    for (int64_t i = shard->seq_begin; i < shard->seq_end; i++) {
        const pageattn_plan_seq *seq = &plan->seqs[i - plan->seq_begin];
        cost = saturating_add(cost, seq->end - seq->begin + seq->num_pieces * PIECE_TOKENS);
    }
    return saturating_mul(cost, shard->kv_head_end - shard->kv_head_begin);
}

/* What the next task is to cost, where `left` is to be dealt to num_workers. */
static int64_t task_cost(int64_t usual, int64_t left, int64_t num_workers)
{
    const int64_t part = left / (LAST_TASKS_PER_WORKER * num_workers);
    const int64_t smallest = usual / SMALLEST_TASK_PART;
    return part >= usual ? usual : part > smallest ? part : smallest;
}

/* Neighbouring pieces go together until they cost what a task is to; all of them cost `left`. Task
 * last_task, if it comes to that, takes everything that is left. */
static void deal_shard(int64_t left, int64_t usual_cost, int64_t num_workers, int64_t first_task,
                       int64_t last_task, pageattn_shard *shard, pageattn_plan *plan)
{
    pageattn_piece piece = {.seq = shard->seq_begin, .kv_head = shard->kv_head_begin};
    pageattn_task_range *task = NULL;
    int64_t num_tasks = 0;
    int64_t room = 0; /* in the task */

    for (; piece.seq < shard->seq_end && shard->kv_head_begin < shard->kv_head_end;
         pageattn_piece_next(plan, shard, &piece)) {
        if (num_tasks == 0 || (room <= 0 && first_task + num_tasks - 1 < last_task)) {
            task = &plan->tasks[first_task + num_tasks++];
            *task = (pageattn_task_range){.first = piece};
            room = task_cost(usual_cost, left, num_workers);
        }
        const int64_t cost = piece_cost(plan, &piece);
        room -= cost;
        left -= cost;
        task->num_pieces++;
    }
    shard->first_task = first_task;
    shard->num_tasks = num_tasks;
}

void pageattn_plan_make(const pageattn_problem *problem, int64_t seq_begin, int64_t seq_end,
                        int64_t num_workers, int64_t min_bytes, pageattn_plan *plan)
{
    int64_t num_tokens = 0;
    plan->seq_begin = seq_begin;
    plan->seq_end = seq_end;
    plan->changed = 0;
    for (int64_t seq = seq_begin; seq < seq_end; seq++)
        num_tokens = saturating_add(
            num_tokens, place_seq(problem, seq, &plan->seqs[seq - seq_begin], &plan->changed));
    num_tokens = saturating_mul(num_tokens, problem->num_kv_heads);

    const int64_t token_bytes = problem->keys.row_bytes + problem->values.row_bytes;
    const int64_t worth = num_tokens / ceil_div(min_bytes, token_bytes);
    plan->num_workers = worth < 1 ? 1 : worth < num_workers ? worth : num_workers;

    const int64_t num_tasks = plan->num_workers * TASKS_PER_WORKER;
    split_seqs(problem, ceil_div(num_tokens, num_tasks), plan);
    make_shards(problem, plan);

    int64_t cost[2], all = 0;
    for (int i = 0; i < plan->num_shards; i++) {
        cost[i] = shard_cost(plan, &plan->shard[i]);
        all = saturating_add(all, cost[i]);
    }
    const int64_t last_task = max_tasks(plan->num_workers) - plan->num_shards;
    int64_t first_task = 0;
    for (int i = 0; i < plan->num_shards; i++) {
        deal_shard(cost[i], ceil_div(all, num_tasks), ceil_div(plan->num_workers, plan->num_shards),
                   first_task, last_task + i, &plan->shard[i], plan);
        first_task += plan->shard[i].num_tasks;
    }
}
