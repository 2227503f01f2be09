/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes add up here, with every overflow noticed. */
#include "scratch.h"

#include "plan.h"
#include "tree.h"

/* Appends `count` elements at *end; *end becomes SIZE_MAX, and stays so, if that does not fit. */
static size_t reserve(size_t *end, int64_t count, size_t element_bytes)
{
    const size_t start = *end;
    size_t bytes;
    if (start == SIZE_MAX || __builtin_mul_overflow((size_t)count, element_bytes, &bytes) ||
        __builtin_add_overflow(bytes, PAGEATTN_SCRATCH_ALIGNMENT - 1, &bytes) ||
        __builtin_add_overflow(start, bytes & ~(size_t)(PAGEATTN_SCRATCH_ALIGNMENT - 1), end))
        *end = SIZE_MAX;
    return start;
}

/* floats[rows][columns] */
static size_t reserve_floats(size_t *end, int64_t rows, int64_t columns)
{
    int64_t count;
    if (__builtin_mul_overflow(rows, columns, &count))
        *end = SIZE_MAX;
    else
        return reserve(end, count, sizeof(float));
    return 0;
}

int pageattn_scratch_lay_out(const pageattn_context *context, const pageattn_problem *problem,
                             pageattn_scratch *scratch)
{
    const int64_t num_seqs = problem->inline_seq_dim ? problem->num_seqs : 1;
    const int64_t num_leaves = problem->max_context_len / PAGEATTN_LEAF_TOKENS + 1;
    const int64_t group_size = problem->group_size;
    pageattn_plan_limits limits;
    int64_t o_floats;

    if (__builtin_mul_overflow(group_size, pageattn_padded(problem->value_head_dim), &o_floats) ||
        o_floats > INT64_MAX / 8 - 2 * group_size ||
        !pageattn_plan_limits_of(problem, num_seqs, context->num_workers, &limits))
        return 0;
    scratch->state_floats = pageattn_state_floats(group_size, problem->value_head_dim);

    size_t end = 0;
    reserve(&end, 1, sizeof(pageattn_slot_header));
    scratch->query = reserve_floats(&end, group_size, pageattn_padded(problem->head_dim));
    scratch->logits = reserve_floats(&end, group_size, PAGEATTN_LEAF_TOKENS);
    scratch->states =
        reserve_floats(&end, pageattn_tree_max_depth(num_leaves), scratch->state_floats);
    scratch->rows = reserve(&end, PAGEATTN_STREAM_ROWS, sizeof(const char *));
    scratch->worker_total = end;

    end = 0;
    scratch->seqs = reserve(&end, num_seqs, sizeof(pageattn_plan_seq));
    scratch->tasks = reserve(&end, limits.num_tasks, sizeof(pageattn_task_range));
    scratch->remaining = reserve(&end, limits.num_split, sizeof(_Atomic int64_t));
    scratch->partials = reserve_floats(&end, limits.num_partials, scratch->state_floats);
    scratch->workers = reserve(&end, context->num_workers, scratch->worker_total);
    scratch->total = end;
    return scratch->worker_total != SIZE_MAX && scratch->total != SIZE_MAX;
}
