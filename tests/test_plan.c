/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The planner, looked at directly: every position is attended to exactly once, in aligned pieces;
 * what a plan holds stays within the room that was sized for it; and the work is balanced, which a
 * simulation of workers that claim tasks one after the other shows for any number of them.
 */
#include "check.h"
#include "kernel/kernels.h"
#include "plan.h"

#define MAX_SEQS 64
#define MAX_WORKERS 192

struct batch {
    pageattn_problem problem;
    int32_t lens[MAX_SEQS];
    int64_t num_workers;
    int64_t min_bytes;
    pageattn_plan_limits limits;
    pageattn_plan plan;
};

static void use_lens(struct batch *batch)
{
    batch->problem.context_lens.data = (const char *)batch->lens;
    batch->problem.context_lens.row_bytes = sizeof(int32_t);
    batch->problem.num_pages = 1; /* contexts have tokens only where there are pages */
    for (int64_t i = 0; i < batch->problem.num_seqs; i++)
        if (batch->problem.max_context_len < batch->lens[i])
            batch->problem.max_context_len = batch->lens[i];
}

/* Mostly short sequences, now and then long ones, so that sizes differ by orders of magnitude. */
static int32_t random_len(uint64_t *random)
{
    const int64_t longest = check_random_int(random, 0, 3) == 0 ? 100000 : 3000;
    const int64_t top = check_random_int(random, 1, longest);
    return (int32_t)check_random_int(random, 0, top);
}

static void make_batch(uint64_t *random, struct batch *batch)
{
    pageattn_problem *problem = &batch->problem;
    memset(batch, 0, sizeof(*batch));
    problem->num_seqs = check_random_int(random, 1, MAX_SEQS / 2) * 2;
    problem->num_kv_heads = check_random_int(random, 1, 8) * 2;
    problem->page_size = check_random_int(random, 1, 64);
    problem->keys.row_bytes = problem->values.row_bytes = 256;
    problem->megacore_mode = (pageattn_megacore_mode)check_random_int(random, 0, 2);
    problem->hard_mask = 1;
    if (check_random_int(random, 0, 2) == 0)
        problem->window = check_random_int(random, 1, 5000);
    if (check_random_int(random, 0, 2) == 0)
        problem->num_splits = check_random_int(random, 1, 40);
    if (check_random_int(random, 0, 2) == 0)
        problem->pages_per_compute_block = check_random_int(random, 1, 500);
    for (int64_t i = 0; i < problem->num_seqs; i++)
        batch->lens[i] = random_len(random);
    batch->num_workers = check_random_int(random, 1, 16);
    batch->min_bytes = check_random_int(random, 1, 1 << 20);
    use_lens(batch);
}

/* Room of exactly the promised size, so that a sanitizer sees a plan that takes more. */
static int plan_launch(struct batch *batch, int64_t seq_begin, int64_t seq_end)
{
    if (!pageattn_plan_limits_of(&batch->problem, seq_end - seq_begin, batch->num_workers,
                                 &batch->limits))
        return 0;
    batch->plan.seqs = malloc((size_t)(seq_end - seq_begin) * sizeof(pageattn_plan_seq));
    batch->plan.tasks = malloc((size_t)batch->limits.num_tasks * sizeof(pageattn_task_range));
    if (!batch->plan.seqs || !batch->plan.tasks)
        abort();
    pageattn_plan_make(&batch->problem, seq_begin, seq_end, batch->num_workers, batch->min_bytes,
                       &batch->plan);
    return 1;
}

static void free_plan(struct batch *batch)
{
    free(batch->plan.seqs);
    free(batch->plan.tasks);
}

/* ---- every position once ---- */

/* Where the next piece of a sequence's KV head must start, in the order of positions. */
typedef int64_t progress[MAX_SEQS][16];

static const char *walk_task(const struct batch *batch, const pageattn_shard *shard,
                             const pageattn_task_range *task, progress done)
{
    pageattn_piece piece = task->first;
    for (int64_t i = 0; i < task->num_pieces; i++) {
        if (piece.seq < shard->seq_begin || piece.seq >= shard->seq_end ||
            piece.kv_head < shard->kv_head_begin || piece.kv_head >= shard->kv_head_end)
            return "a piece outside its shard";
        const pageattn_plan_seq *seq = &batch->plan.seqs[piece.seq - batch->plan.seq_begin];
        const int64_t unit = (int64_t)PAGEATTN_LEAF_TOKENS << seq->piece_log2;
        int64_t begin, end;
        pageattn_piece_positions(seq, piece.piece, &begin, &end);
        if (begin != done[piece.seq][piece.kv_head])
            return "a piece that does not start where the one before ended";
        if (begin < end && begin / unit != (end - 1) / unit)
            return "a piece across an aligned edge";
        done[piece.seq][piece.kv_head] = end;
        pageattn_piece_next(&batch->plan, shard, &piece);
    }
    return NULL;
}

static int64_t first_position(const struct batch *batch, int64_t seq)
{
    return pageattn_problem_first_position(&batch->problem, batch->lens[seq]);
}

static const char *walk_plan(const struct batch *batch)
{
    progress done;
    for (int64_t s = batch->plan.seq_begin; s < batch->plan.seq_end; s++)
        for (int64_t h = 0; h < batch->problem.num_kv_heads; h++)
            done[s][h] = first_position(batch, s);
    for (int i = 0; i < batch->plan.num_shards; i++) {
        const pageattn_shard *shard = &batch->plan.shard[i];
        for (int64_t t = 0; t < shard->num_tasks; t++) {
            const char *wrong =
                walk_task(batch, shard, &batch->plan.tasks[shard->first_task + t], done);
            if (wrong)
                return wrong;
        }
    }
    for (int64_t s = batch->plan.seq_begin; s < batch->plan.seq_end; s++)
        for (int64_t h = 0; h < batch->problem.num_kv_heads; h++)
            if (done[s][h] != batch->lens[s])
                return "positions that no piece holds";
    return NULL;
}

/* ---- room ---- */

static const char *measure_plan(const struct batch *batch)
{
    const pageattn_plan *plan = &batch->plan;
    int64_t num_tasks = 0, num_partials = 0, num_split = 0;
    for (int i = 0; i < plan->num_shards; i++)
        num_tasks += plan->shard[i].num_tasks;
    for (int64_t s = 0; s < plan->seq_end - plan->seq_begin; s++) {
        const pageattn_plan_seq *seq = &plan->seqs[s];
        if (batch->problem.num_splits && seq->num_pieces > batch->problem.num_splits)
            return "more pieces than num_splits";
        if (seq->num_pieces == 1)
            continue;
        const int64_t unit = (int64_t)PAGEATTN_LEAF_TOKENS << seq->piece_log2;
        if (unit < batch->problem.pages_per_compute_block * batch->problem.page_size)
            return "a piece smaller than pages_per_compute_block";
        if (seq->first_partial != num_partials || seq->split_index != num_split)
            return "partial states that are numbered with a gap";
        num_partials += seq->num_pieces;
        num_split++;
    }
    if (num_tasks > batch->limits.num_tasks)
        return "more tasks than there is room for";
    if (num_partials * batch->problem.num_kv_heads > batch->limits.num_partials)
        return "more partial states than there is room for";
    if (num_split * batch->problem.num_kv_heads > batch->limits.num_split)
        return "more split sequences than there is room for";
    return NULL;
}

static void check_batch(struct batch *batch, int64_t seq_begin, int64_t seq_end, const char *name)
{
    const char *wrong = "limits that do not fit";
    if (plan_launch(batch, seq_begin, seq_end)) {
        wrong = walk_plan(batch);
        if (!wrong)
            wrong = measure_plan(batch);
        free_plan(batch);
    }
    if (wrong)
        check_failed(name, "%s", wrong);
    else
        check_passed(name);
}

static void random_batches(uint64_t *random)
{
    for (int i = 0; i < 3000; i++) {
        struct batch batch;
        char name[64];
        make_batch(random, &batch);
        snprintf(name, sizeof(name), "random batch %d", i);
        check_batch(&batch, 0, batch.problem.num_seqs, name);
        const int64_t alone = check_random_int(random, 0, batch.problem.num_seqs - 1);
        snprintf(name, sizeof(name), "random batch %d, launch of sequence %d", i, (int)alone);
        check_batch(&batch, alone, alone + 1, name);
    }
}

static void impossible_limits(void)
{
    const pageattn_problem problem = {.num_kv_heads = 4, .max_context_len = INT32_MAX};
    pageattn_plan_limits limits;
    check_that(!pageattn_plan_limits_of(&problem, INT64_MAX / 2, 4, &limits),
               "limits that do not fit are refused");
}

/* ---- balance ---- */

static int64_t task_tokens(const struct batch *batch, const pageattn_shard *shard,
                           const pageattn_task_range *task)
{
    pageattn_piece piece = task->first;
    int64_t tokens = 0;
    for (int64_t i = 0; i < task->num_pieces; i++) {
        int64_t begin, end;
        pageattn_piece_positions(&batch->plan.seqs[piece.seq], piece.piece, &begin, &end);
        tokens += end - begin;
        pageattn_piece_next(&batch->plan, shard, &piece);
    }
    return tokens;
}

/* The slowest worker's tokens over the mean, when each claims the next task as it gets free. */
static double imbalance(const struct batch *batch)
{
    int64_t busy[MAX_WORKERS] = {0};
    int64_t total = 0, slowest = 0;
    const pageattn_shard *shard = &batch->plan.shard[0];
    for (int64_t t = 0; t < shard->num_tasks; t++) {
        int64_t next = 0;
        for (int64_t w = 1; w < batch->num_workers; w++)
            next = busy[w] < busy[next] ? w : next;
        const int64_t tokens = task_tokens(batch, shard, &batch->plan.tasks[t]);
        busy[next] += tokens;
        total += tokens;
    }
    for (int64_t w = 0; w < batch->num_workers; w++)
        slowest = busy[w] > slowest ? busy[w] : slowest;
    return (double)slowest * (double)batch->num_workers / (double)total;
}

/* One sequence of 100,000 tokens beside thirty of 50 uses all workers. */
static void lopsided_batch(int64_t num_kv_heads, int64_t num_workers, double limit)
{
    struct batch batch;
    char name[96];
    memset(&batch, 0, sizeof(batch));
    batch.problem.num_seqs = 31;
    batch.problem.num_kv_heads = num_kv_heads;
    batch.problem.page_size = 16;
    batch.problem.keys.row_bytes = batch.problem.values.row_bytes = 256;
    batch.lens[7] = 100000;
    for (int i = 0; i < 31; i++)
        batch.lens[i] = i == 7 ? 100000 : 50;
    batch.num_workers = num_workers;
    batch.min_bytes = 1;
    use_lens(&batch);
    snprintf(name, sizeof(name), "100,000 tokens beside thirty of 50, %d KV heads, %d workers",
             (int)num_kv_heads, (int)num_workers);
    if (!plan_launch(&batch, 0, batch.problem.num_seqs)) {
        check_failed(name, "limits that do not fit");
        return;
    }
    const double ratio = imbalance(&batch);
    free_plan(&batch);
    if (ratio <= limit)
        check_passed(name);
    else
        check_failed(name, "the slowest worker has %.3f times the mean, more than %.3f", ratio,
                     limit);
}

/* ---- balance over many batches ---- */

#define MAX_BALANCE_BATCHES 10000
/* A task is 1/16 of a worker's share; with fewer leaves than that, pieces cannot be so small. */
#define ENOUGH_LEAVES_PER_WORKER 16

static int64_t num_leaves(const struct batch *batch)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < batch->problem.num_seqs; i++)
        sum += (batch->lens[i] + PAGEATTN_LEAF_TOKENS - 1) / PAGEATTN_LEAF_TOKENS;
    return sum * batch->problem.num_kv_heads;
}

static void make_server_batch(uint64_t *random, int64_t num_workers, struct batch *batch)
{
    do {
        memset(batch, 0, sizeof(*batch));
        batch->problem.num_seqs = check_random_int(random, 1, MAX_SEQS);
        batch->problem.num_kv_heads = check_random_int(random, 1, 8);
        batch->problem.page_size = 16;
        batch->problem.keys.row_bytes = batch->problem.values.row_bytes = 256;
        for (int64_t i = 0; i < batch->problem.num_seqs; i++)
            batch->lens[i] = random_len(random);
        batch->num_workers = num_workers;
        batch->min_bytes = 1;
        use_lens(batch);
    } while (num_leaves(batch) < ENOUGH_LEAVES_PER_WORKER * num_workers);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void balanced_batches(uint64_t *random, int64_t num_workers, double limit)
{
    static double ratios[MAX_BALANCE_BATCHES];
    const int num_batches = getenv("PAGEATTN_TEST_REDUCED") ? 300 : MAX_BALANCE_BATCHES;
    char name[96];
    snprintf(name, sizeof(name), "imbalance of %d random batches, %d workers", num_batches,
             (int)num_workers);
    for (int i = 0; i < num_batches; i++) {
        struct batch batch;
        make_server_batch(random, num_workers, &batch);
        if (!plan_launch(&batch, 0, batch.problem.num_seqs)) {
            check_failed(name, "limits that do not fit");
            return;
        }
        ratios[i] = imbalance(&batch);
        free_plan(&batch);
    }
    qsort(ratios, num_batches, sizeof(*ratios), ascending);
    const double p99 = ratios[num_batches * 99 / 100];
    printf("%s: median %.3f, p99 %.3f, worst %.3f\n", name, ratios[num_batches / 2], p99,
           ratios[num_batches - 1]);
    if (p99 < limit)
        check_passed(name);
    else
        check_failed(name, "p99 is %.3f, not under %.3f", p99, limit);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    uint64_t random = check.seed;
    random_batches(&random);
    impossible_limits();
    lopsided_batch(1, 2, 1.02);
    lopsided_batch(1, 3, 1.04);
    lopsided_batch(8, 2, 1.01);
    lopsided_batch(8, 16, 1.04);
    lopsided_batch(8, 64, 1.06);
    balanced_batches(&random, 16, 1.06);
    balanced_batches(&random, 64, 1.06);
    balanced_batches(&random, 192, 1.06);
    return check_finish();
}
