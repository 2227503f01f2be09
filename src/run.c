/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Executes a plan. Each worker slot has working memory of its own and claims tasks until none is
 * left; whoever finishes the last piece of a split sequence's KV head merges its pieces' states. So
 * no slot ever waits for another, and an executor may run slots in any order, or one by one.
 */
#include "run.h"

#include <math.h>
#include <stdatomic.h>

#include "error.h"
#include "float_environment.h"
#include "plan.h"
#include "scratch.h"
#include "tree.h"
#include "walk.h"

struct run {
    const pageattn_context *context;
    const pageattn_problem *problem;
    const pageattn_scratch *layout;
    const pageattn_fast_kernels *fast; /* NULL: the exact ones */
    char *scratch;
    pageattn_plan plan;
    int64_t rows_ahead;           /* of what is read, that are listed to be prefetched */
    _Atomic int64_t next_task[2]; /* of each shard */
    _Atomic int64_t num_slots_run;
    _Atomic int slot_run_twice;
    _Atomic int inputs_changed;
};

/* Working memory of the worker in one slot. */
struct worker {
    struct run *run;
    float *query;      /* [group_size][padded head_dim], scaled, of the current piece; or its
                          bf16 roundings, as fast kernels take them */
    float *logits;     /* [group_size][PAGEATTN_LEAF_TOKENS] */
    float *states;     /* the tree's, one for each that may wait */
    const char **rows; /* [PAGEATTN_STREAM_ROWS] */
    pageattn_tree tree;
};

size_t pageattn_run_scratch_bytes(const pageattn_context *context, const pageattn_problem *problem)
{
    pageattn_scratch layout;
    return pageattn_scratch_lay_out(context, problem, &layout) ? layout.total : 0;
}

static const pageattn_plan_seq *plan_seq(const struct run *run, int64_t seq)
{
    return &run->plan.seqs[seq - run->plan.seq_begin];
}

/* The state of a split sequence's piece. */
static float *partial_state(const struct run *run, const pageattn_leaf_place *place, int64_t piece)
{
    const pageattn_plan_seq *seq = plan_seq(run, place->seq);
    float *partials = (float *)(run->scratch + run->layout->partials);
    const int64_t index =
        seq->first_partial * run->problem->num_kv_heads + place->kv_head * seq->num_pieces + piece;
    return partials + index * run->layout->state_floats;
}

static _Atomic int64_t *remaining_pieces(const struct run *run, int64_t split_index,
                                         int64_t kv_head)
{
    _Atomic int64_t *remaining = (_Atomic int64_t *)(run->scratch + run->layout->remaining);
    return remaining + split_index * run->problem->num_kv_heads + kv_head;
}

static uint16_t *rounded_query(const struct worker *worker)
{
    return (uint16_t *)(void *)worker->query;
}

static void load_query(struct worker *worker, const pageattn_leaf_place *place)
{
    const pageattn_problem *problem = worker->run->problem;
    const pageattn_rows *query = &problem->query;
    const int64_t first_head = place->kv_head * problem->group_size;

    for (int64_t h = 0; h < problem->group_size; h++) {
        const char *row =
            query->data + place->seq * query->seq_bytes + (first_head + h) * query->head_bytes;
        if (worker->run->fast)
            worker->run->fast->round_query[query->type](row, problem->head_dim, h,
                                                        problem->group_size, rounded_query(worker));
        else
            worker->run->context->kernels->scale_query[query->type](
                row, problem->head_dim, problem->attn_scale, h, problem->group_size, worker->query);
    }
}

static void compute_leaf(struct worker *worker, const pageattn_leaf_place *place,
                         const pageattn_leaf_place *next, float *state)
{
    const pageattn_problem *problem = worker->run->problem;
    const int64_t leaf_start = place->begin / PAGEATTN_LEAF_TOKENS * PAGEATTN_LEAF_TOKENS;
    int64_t soft_end = 0;
    if (problem->window && !problem->hard_mask)
        soft_end = plan_seq(worker->run, place->seq)->end - problem->window - leaf_start;

    const pageattn_leaf leaf = {
        .rows = worker->rows,
        .begin = place->begin - leaf_start,
        .end = place->end - leaf_start,
        .soft_end = soft_end < place->end - leaf_start ? soft_end : place->end - leaf_start,
        .soft_mask = problem->soft_mask,
        .soft_cap = problem->soft_cap,
        .num_heads = problem->group_size,
        .head_dim = problem->head_dim,
        .value_head_dim = problem->value_head_dim,
        .query = worker->query,
        .rounded_query = rounded_query(worker),
        .attn_scale = problem->attn_scale,
        .logits = worker->logits,
    };
    if (pageattn_walk_rows(problem, worker->run->context->kernels, place, next,
                           worker->run->rows_ahead, worker->rows))
        atomic_store(&worker->run->inputs_changed, 1);
    if (worker->run->fast)
        worker->run->fast->attend_leaf[problem->kv_type](&leaf, state);
    else
        worker->run->context->kernels->attend_leaf[problem->kv_type](&leaf, state);
}

/* Nothing attended to: out = 0 / 1, lse = -inf + log(1). */
static void make_empty_state(const pageattn_problem *problem, float *state)
{
    float *max = pageattn_state_max(state, problem->group_size, problem->value_head_dim);
    float *sum = pageattn_state_sum(state, problem->group_size, problem->value_head_dim);
    for (float *o = state; o < max; o++)
        *o = 0.0f;
    for (int64_t h = 0; h < problem->group_size; h++) {
        max[h] = -INFINITY;
        sum[h] = 1.0f;
    }
}

static void write_rows(const struct run *run, const pageattn_leaf_place *place, float *state)
{
    const pageattn_problem *problem = run->problem;
    const pageattn_rows *out = &problem->out;
    const float *max = pageattn_state_max(state, problem->group_size, problem->value_head_dim);
    const float *sum = pageattn_state_sum(state, problem->group_size, problem->value_head_dim);
    const int64_t first_head = place->kv_head * problem->group_size;
    char *out_row = out->data + place->seq * out->seq_bytes + first_head * out->head_bytes;
    char *lse = problem->lse.data;
    if (lse)
        lse += place->seq * problem->lse.seq_bytes + first_head * problem->lse.head_bytes;

    for (int64_t h = 0; h < problem->group_size; h++)
        run->context->kernels->finish_row[out->type](
            state + h * pageattn_padded(problem->value_head_dim), max[h], sum[h],
            problem->value_head_dim, out_row + h * out->head_bytes,
            lse ? (float *)(lse + h * problem->lse.head_bytes) : NULL);
}

static void start_tree(const struct run *run, pageattn_tree *tree)
{
    tree->kernels = run->context->kernels;
    tree->num_heads = run->problem->group_size;
    tree->value_head_dim = run->problem->value_head_dim;
    tree->depth = 0;
}

static float *merge_pieces(const struct run *run, const pageattn_leaf_place *place)
{
    const pageattn_plan_seq *seq = plan_seq(run, place->seq);
    const int64_t first_node = seq->begin / PAGEATTN_LEAF_TOKENS >> seq->piece_log2;
    pageattn_tree tree;
    start_tree(run, &tree);
    for (int64_t piece = 0; piece < seq->num_pieces; piece++)
        pageattn_tree_push(&tree, first_node + piece, partial_state(run, place, piece));
    return pageattn_tree_root(&tree);
}

static void finish_piece(struct worker *worker, const pageattn_leaf_place *place)
{
    const struct run *run = worker->run;
    const int64_t split_index = plan_seq(run, place->seq)->split_index;
    float *state = pageattn_tree_root(&worker->tree);

    if (split_index >= 0) {
        /* Release this piece's state to whoever is last; if that is this worker, acquire theirs. */
        _Atomic int64_t *remaining = remaining_pieces(run, split_index, place->kv_head);
        if (atomic_fetch_sub_explicit(remaining, 1, memory_order_acq_rel) > 1)
            return;
        state = merge_pieces(run, place);
    }
    write_rows(run, place, state);
}

/* Where the next state of the tree goes: a split piece's first, in which all others end up, lies in
 * the shared memory already. */
static float *next_state(struct worker *worker, const pageattn_leaf_place *place)
{
    const int depth = worker->tree.depth;
    if (depth == 0 && plan_seq(worker->run, place->seq)->split_index >= 0)
        return partial_state(worker->run, place, place->piece);
    return worker->states + depth * worker->run->layout->state_floats;
}

static void compute_place(struct worker *worker, const pageattn_leaf_place *place,
                          const pageattn_leaf_place *next)
{
    if (place->first_of_piece) {
        load_query(worker, place);
        start_tree(worker->run, &worker->tree);
    }
    float *state = next_state(worker, place);
    if (place->begin < place->end)
        compute_leaf(worker, place, next, state);
    else
        make_empty_state(worker->run->problem, state);
    pageattn_tree_push(&worker->tree, place->begin / PAGEATTN_LEAF_TOKENS, state);
    if (place->last_of_piece)
        finish_piece(worker, place);
}

static void run_shard(struct worker *worker, int shard)
{
    struct run *run = worker->run;
    pageattn_walk walk;
    pageattn_leaf_place place, next;
    pageattn_walk_start(&walk, &run->plan, &run->plan.shard[shard], &run->next_task[shard]);

    int more = pageattn_walk_next(&walk, &next);
    while (more) {
        place = next;
        more = pageattn_walk_next(&walk, &next);
        compute_place(worker, &place, more && next.begin < next.end ? &next : NULL);
    }
}

static char *slot_memory(const struct run *run, int64_t slot)
{
    return run->scratch + run->layout->workers + (size_t)slot * run->layout->worker_total;
}

/* The first half of the slots owns shard 0, the others shard 1; a slot alone has both. */
static void run_slot(void *arg, int64_t slot)
{
    struct run *run = arg;
    const int64_t num_slots = run->plan.num_workers;
    if (slot < 0 || slot >= num_slots ||
        atomic_flag_test_and_set(&((pageattn_slot_header *)slot_memory(run, slot))->entered)) {
        atomic_store(&run->slot_run_twice, 1);
        return;
    }
    char *memory = slot_memory(run, slot);
    struct worker worker = {.run = run,
                            .query = (float *)(memory + run->layout->query),
                            .logits = (float *)(memory + run->layout->logits),
                            .states = (float *)(memory + run->layout->states),
                            .rows = (const char **)(memory + run->layout->rows)};

    const pageattn_float_environment before = pageattn_float_environment_enter();
    for (int shard = 0; shard < run->plan.num_shards; shard++)
        if (num_slots == 1 || run->plan.num_shards == 1 || shard == (slot >= num_slots / 2))
            run_shard(&worker, shard);
    pageattn_float_environment_leave(before);
    atomic_fetch_add(&run->num_slots_run, 1);
}

static void start_counters(struct run *run)
{
    for (int64_t seq = run->plan.seq_begin; seq < run->plan.seq_end; seq++) {
        const pageattn_plan_seq *planned = plan_seq(run, seq);
        for (int64_t h = 0; planned->split_index >= 0 && h < run->problem->num_kv_heads; h++)
            atomic_init(remaining_pieces(run, planned->split_index, h), planned->num_pieces);
    }
    for (int64_t slot = 0; slot < run->plan.num_workers; slot++)
        atomic_flag_clear(&((pageattn_slot_header *)slot_memory(run, slot))->entered);
    atomic_init(&run->next_task[0], 0);
    atomic_init(&run->next_task[1], 0);
    atomic_init(&run->num_slots_run, 0);
    atomic_init(&run->slot_run_twice, 0);
}

static pageattn_status run_slots(struct run *run, pageattn_error *error)
{
    const pageattn_context *context = run->context;
    const int64_t num_slots = run->plan.num_workers;
    if (num_slots == 1) {
        run_slot(run, 0);
        return PAGEATTN_OK;
    }
    if (context->pool)
        return pageattn_pool_parallel_for(context->pool, num_slots, run_slot, run, error);

    context->executor.parallel_for(context->executor.context, num_slots, run_slot, run);
    const int64_t num_run = atomic_load(&run->num_slots_run);
    if (num_run == num_slots && !atomic_load(&run->slot_run_twice))
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_EXECUTOR,
                         "the executor's parallel_for ran %lld of %lld tasks%s; it must run each "
                         "index in [0, num_tasks) exactly once before it returns, and out and lse "
                         "are incomplete now",
                         (long long)num_run, (long long)num_slots,
                         atomic_load(&run->slot_run_twice) ? ", and others twice or out of range"
                                                           : "");
}

static void plan_launch(struct run *run, int64_t seq_begin, int64_t seq_end)
{
    run->plan.seqs = (pageattn_plan_seq *)(run->scratch + run->layout->seqs);
    run->plan.tasks = (pageattn_task_range *)(run->scratch + run->layout->tasks);
    pageattn_plan_make(run->problem, seq_begin, seq_end, run->context->num_workers,
                       run->context->min_bytes_per_worker, &run->plan);
    if (run->plan.changed)
        atomic_store(&run->inputs_changed, 1);
}

/* Of several launches a later one must not fail for want of a thread when earlier ones have written
 * their rows: all threads that any launch needs are started before the first. */
static pageattn_status start_threads(struct run *run, int64_t num_seqs, pageattn_error *error)
{
    int64_t num_slots = 1;
    if (!run->context->pool || num_seqs == run->problem->num_seqs)
        return PAGEATTN_OK;
    for (int64_t seq = 0; seq < run->problem->num_seqs; seq += num_seqs) {
        plan_launch(run, seq, seq + num_seqs);
        num_slots = run->plan.num_workers > num_slots ? run->plan.num_workers : num_slots;
    }
    return num_slots > 1 ? pageattn_pool_start(run->context->pool, num_slots, error) : PAGEATTN_OK;
}

pageattn_status pageattn_run(const pageattn_context *context, const pageattn_problem *problem,
                             void *scratch, pageattn_error *error)
{
    pageattn_scratch layout;
    pageattn_scratch_lay_out(context, problem, &layout);
    struct run run = {.context = context,
                      .problem = problem,
                      .layout = &layout,
                      .scratch = scratch,
                      .rows_ahead =
                          pageattn_walk_rows_ahead(problem, context->kernels->prefetch_bytes)};
    const int64_t num_seqs = problem->inline_seq_dim ? problem->num_seqs : 1;
    if (problem->numerics == PAGEATTN_NUMERICS_FAST &&
        pageattn_context_has_fast(context, problem->kv_type))
        run.fast = context->fast_kernels;

    pageattn_status status = start_threads(&run, num_seqs, error);
    for (int64_t seq = 0; seq < problem->num_seqs && status == PAGEATTN_OK; seq += num_seqs) {
        plan_launch(&run, seq, seq + num_seqs);
        start_counters(&run);
        status = run_slots(&run, error);
    }
    if (status == PAGEATTN_OK && atomic_load(&run.inputs_changed))
        return pageattn_fail_changed(error);
    return status;
}
