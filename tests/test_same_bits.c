/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The same inputs give the same bits. Each logical case is computed once in the plainest way: each
 * sequence alone, in order, by one thread of the scalar code. That must be what docs/numerics.md
 * defines, which is written down here a second time; and every other way to call the library must
 * give the same bits. Fast calls must give the bits of the fast definition on contexts that have
 * it, and those of the exact one on all others.
 */
#define _DEFAULT_SOURCE /* mmap's flags */

#include <fenv.h>
#include <pthread.h>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "context.h"
#include "isa/lanes_scalar.h"
#include "kernel/exp.h"
#include "kernel/log.h"
#include "kernel/tanh.h"
#include "paged_case.h"

/* ---- the definition ---- */

#define MAX_DIM 256
#define LEAF_TOKENS 256

typedef struct state {
    int holds_something;
    float max;
    float sum;
    float o[MAX_DIM];
} state;

static float fold(const float *lane)
{
    float sum[16];
    memcpy(sum, lane, sizeof(sum));
    for (int step = 8; step > 0; step /= 2)
        for (int l = 0; l < step; l++)
            sum[l] += sum[l + step];
    return sum[0];
}

static float exp_of(float x)
{
    return lanes_exp(lanes_all(x)).lane[0];
}

static float shift_of(float max)
{
    return max == -INFINITY ? 0 : max;
}

/* ---- the fast definition, where it differs ---- */

static float flush(float x)
{
    return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
}

static float round_bf16(float x)
{
    return (float)round_to(PAGEATTN_BF16, (double)x);
}

/* The odd element first; neither operands nor results are subnormal. */
static float add_pair(float sum, float even_a, float even_b, float odd_a, float odd_b)
{
    sum = flush(fmaf(flush(odd_a), flush(odd_b), flush(sum)));
    return flush(fmaf(flush(even_a), flush(even_b), sum));
}

static float element_or_zero(pageattn_type type, const char *row, int64_t d, int64_t dim)
{
    return d < dim ? (float)decode(type, row + d * type_bytes(type)) : 0;
}

static float define_fast_dot(const logical_case *logical, const char *query, const char *key)
{
    const int64_t dim = logical->head_dim;
    const pageattn_type type = logical->query_type;
    float lane[16] = {0};
    for (int64_t d = 0; d < (dim + 31) / 32 * 32; d += 2)
        lane[d / 2 % 16] =
            add_pair(lane[d / 2 % 16], round_bf16(element_or_zero(type, query, d, dim)),
                     element_or_zero(PAGEATTN_BF16, key, d, dim),
                     round_bf16(element_or_zero(type, query, d + 1, dim)),
                     element_or_zero(PAGEATTN_BF16, key, d + 1, dim));
    return fold(lane);
}

/* The weight of token t is weight[t % LEAF_TOKENS]. */
static void define_fast_o(const logical_case *logical, int64_t seq, int64_t kv_head, int64_t begin,
                          int64_t end, const float *weight, float *o)
{
    const int64_t dim = logical->value_head_dim;
    for (int64_t t = begin / 2 * 2; t < end; t += 2) {
        const int has_even = t >= begin, has_odd = t + 1 < end;
        const char *even = value_row(logical, seq, kv_head, has_even ? t : t + 1);
        const char *odd = value_row(logical, seq, kv_head, has_odd ? t + 1 : t);
        for (int64_t d = 0; d < dim; d++)
            o[d] = add_pair(o[d], has_even ? weight[t % LEAF_TOKENS] : 0,
                            element_or_zero(PAGEATTN_BF16, even, d, has_even ? dim : 0),
                            has_odd ? weight[(t + 1) % LEAF_TOKENS] : 0,
                            element_or_zero(PAGEATTN_BF16, odd, d, has_odd ? dim : 0));
    }
}

/* ---- the definition, continued ---- */

static float define_dot(const logical_case *logical, const char *query, const char *key,
                        float scale)
{
    float lane[16] = {0};
    for (int64_t d = 0; d < logical->head_dim; d++) {
        const float q =
            (float)decode(logical->query_type, query + d * type_bytes(logical->query_type)) * scale;
        const float k = (float)decode(logical->kv_type, key + d * type_bytes(logical->kv_type));
        lane[d % 16] = fmaf(q, k, lane[d % 16]);
    }
    return fold(lane);
}

static float define_logit(const logical_case *logical, pageattn_numerics numerics, int64_t seq,
                          int64_t head, int64_t t)
{
    const char *query = query_row(logical, seq, head);
    const char *key = key_row(logical, seq, head / logical->group_size, t);
    const float scale = logical->attn_scale == PAGEATTN_DEFAULT_ATTN_SCALE
                            ? (float)(1 / sqrt((double)logical->head_dim))
                            : logical->attn_scale;
    float logit = numerics == PAGEATTN_NUMERICS_FAST ? define_fast_dot(logical, query, key) * scale
                                                     : define_dot(logical, query, key, scale);
    if (logical->soft_cap > 0)
        logit = logical->soft_cap * lanes_tanh(lanes_all(logit / logical->soft_cap)).lane[0];
    if (logical->window > 0 && t < logical->lens[seq] - logical->window)
        logit += logical->mask_value;
    return logit;
}

static void define_leaf(const logical_case *logical, pageattn_numerics numerics, int64_t seq,
                        int64_t head, int64_t leaf, state *result)
{
    const int64_t start = leaf * LEAF_TOKENS, stop = start + LEAF_TOKENS;
    const int64_t first = first_position(logical, seq), len = logical->lens[seq];
    const int64_t begin = start > first ? start : first, end = stop < len ? stop : len;
    const int64_t kv_head = head / logical->group_size;
    const int fast = numerics == PAGEATTN_NUMERICS_FAST;
    float logit[LEAF_TOKENS], weight[LEAF_TOKENS], lane[16] = {0};

    *result = (state){.holds_something = begin < end, .max = -INFINITY};
    for (int64_t t = begin; t < end; t++) {
        logit[t - start] = define_logit(logical, numerics, seq, head, t);
        result->max = logit[t - start] > result->max ? logit[t - start] : result->max;
    }
    for (int64_t t = begin; t < end; t++) {
        const char *value = value_row(logical, seq, kv_head, t);
        const float exact = exp_of(logit[t - start] - shift_of(result->max));
        const float p = fast ? round_bf16(exact) : exact;
        weight[t - start] = p;
        lane[t % 16] += p;
        for (int64_t d = 0; d < logical->value_head_dim && !fast; d++)
            result->o[d] =
                fmaf(p, (float)decode(logical->kv_type, value + d * type_bytes(logical->kv_type)),
                     result->o[d]);
    }
    result->sum = fold(lane);
    if (fast && begin < end)
        define_fast_o(logical, seq, kv_head, begin, end, weight, result->o);
}

static void define_node(const logical_case *logical, pageattn_numerics numerics, int64_t seq,
                        int64_t head, int level, int64_t node, state *result)
{
    state right;
    if (node << level > (logical->lens[seq] - 1) / LEAF_TOKENS) {
        result->holds_something = 0;
        return;
    }
    if (level == 0) {
        define_leaf(logical, numerics, seq, head, node, result);
        return;
    }
    define_node(logical, numerics, seq, head, level - 1, 2 * node, result);
    define_node(logical, numerics, seq, head, level - 1, 2 * node + 1, &right);
    if (!right.holds_something)
        return;
    if (!result->holds_something) {
        *result = right;
        return;
    }
    const float max = right.max > result->max ? right.max : result->max;
    const float left_weight = exp_of(result->max - shift_of(max));
    const float right_weight = exp_of(right.max - shift_of(max));
    result->max = max;
    result->sum = fmaf(right_weight, right.sum, left_weight * result->sum);
    for (int64_t d = 0; d < logical->value_head_dim; d++)
        result->o[d] = fmaf(right_weight, right.o[d], left_weight * result->o[d]);
}

static float canonical(float x)
{
    return lanes_canonical_nan(lanes_all(x)).lane[0];
}

static void define_row(const logical_case *logical, pageattn_numerics numerics, int64_t seq,
                       int64_t head, char *out, float *lse)
{
    const pageattn_type type = logical->out_type;
    state root = {.sum = 1, .max = -INFINITY};
    int level = 0;
    while ((int64_t)LEAF_TOKENS << level < logical->lens[seq])
        level++;
    if (logical->lens[seq] > 0)
        define_node(logical, numerics, seq, head, level, 0, &root);
    for (int64_t d = 0; d < logical->value_head_dim; d++)
        encode(type, (double)canonical(root.o[d] / root.sum), out + d * type_bytes(type));
    *lse = canonical(root.max + lanes_log(lanes_all(root.sum)).lane[0]);
}

/* ---- the caller's floating-point mode ---- */

typedef enum float_mode {
    MODE_NORMAL,
    MODE_FLUSH, /* subnormal operands and results are taken for zero */
    MODE_UPWARD,
    MODE_DOWNWARD,
    MODE_TOWARD_ZERO,
    NUM_MODES
} float_mode;

#if defined(__x86_64__)
#define HAS_FLUSH_MODE 1
#define EXCEPTION_FLAGS 0x3fu
static const unsigned mode_bits[NUM_MODES] = {0x1f80, 0x9fc0, 0x5f80, 0x3f80, 0x7f80};

static unsigned get_mode(void)
{
    return _mm_getcsr() & ~EXCEPTION_FLAGS;
}

static void set_mode(unsigned bits)
{
    _mm_setcsr(bits);
}
#elif defined(__aarch64__)
#define HAS_FLUSH_MODE 1
/* RMode is bits 22 and 23; beside the flush to zero, FZ, there are those for f16, FZ16 and AHP. */
static const unsigned mode_bits[NUM_MODES] = {0, 1u << 24 | 1u << 19 | 1u << 26, 1u << 22, 2u << 22,
                                              3u << 22};

static unsigned get_mode(void)
{
    uint64_t bits;
    __asm__ volatile("mrs %0, fpcr" : "=r"(bits));
    return (unsigned)bits;
}

static void set_mode(unsigned bits)
{
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)bits));
}
#else
#define HAS_FLUSH_MODE 0
static const unsigned mode_bits[NUM_MODES] = {FE_TONEAREST, FE_TONEAREST, FE_UPWARD, FE_DOWNWARD,
                                              FE_TOWARDZERO};

static unsigned get_mode(void)
{
    return (unsigned)fegetround();
}

static void set_mode(unsigned bits)
{
    fesetround((int)bits);
}
#endif

/* Returns what leave_mode needs. */
static unsigned enter_mode(float_mode mode)
{
    const unsigned before = get_mode();
    set_mode(mode_bits[mode]);
    return before;
}

/* Returns 1 if the mode was still the one that was entered. */
static int leave_mode(float_mode mode, unsigned before)
{
    const unsigned left = get_mode();
    enter_mode(mode); /* a processor may lack some of the bits */
    const unsigned entered = get_mode();
    set_mode(before);
    return left == entered;
}

/* ---- contexts ---- */

/* Workers: 1 to 8 threads of the context's own pool, then executors of the caller. */
enum { MAX_POOL = 8, INLINE = MAX_POOL, REVERSED, FRESH_THREADS, NUM_WORKERS };

/* One compilation of the kernels. */
typedef struct kernel_set {
    pageattn_isa isa;
    pageattn_prefetch prefetch;
} kernel_set;

#define MAX_SETS (MAX_ISAS * PAGEATTN_NUM_PREFETCHES)
static kernel_set sets[MAX_SETS];
static int num_sets;
static pageattn_context *contexts[MAX_SETS][NUM_WORKERS];
static long num_fast_calls;
static long num_parallel_jobs; /* of the executors, with more than one task */

static void run_in_order(void *context, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)context;
    num_parallel_jobs += num_tasks > 1;
    for (int64_t i = 0; i < num_tasks; i++)
        task(arg, i);
}

static void run_reversed(void *context, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)context;
    num_parallel_jobs += num_tasks > 1;
    for (int64_t i = num_tasks; i-- > 0;)
        task(arg, i);
}

typedef struct thread_task {
    pageattn_task task;
    void *arg;
    int64_t index;
} thread_task;

static void *thread_main(void *arg)
{
    const thread_task *task = arg;
    task->task(task->arg, task->index);
    return NULL;
}

#define EXECUTOR_WORKERS 5

static void run_on_fresh_threads(void *context, int64_t num_tasks, pageattn_task task, void *arg)
{
    pthread_t thread[EXECUTOR_WORKERS];
    thread_task tasks[EXECUTOR_WORKERS];
    (void)context;
    num_parallel_jobs += num_tasks > 1;
    for (int64_t i = 0; i < num_tasks; i++) {
        tasks[i] = (thread_task){task, arg, i};
        if (pthread_create(&thread[i], NULL, thread_main, &tasks[i]) != 0) {
            printf("FAILED pthread_create\n");
            exit(1);
        }
    }
    for (int64_t i = 0; i < num_tasks; i++)
        pthread_join(thread[i], NULL);
}

/* Those of this build that this CPU can run, whichever of them it does better with. */
static void find_kernel_sets(void)
{
    pageattn_isa isas[MAX_ISAS];
    const int num_isas = available_isas(isas);
    for (int isa = 0; isa < num_isas; isa++)
        for (int prefetch = 0; prefetch < PAGEATTN_NUM_PREFETCHES; prefetch++)
            if (pageattn_kernels_of(isas[isa], (pageattn_prefetch)prefetch) != NULL)
                sets[num_sets++] = (kernel_set){isas[isa], (pageattn_prefetch)prefetch};
}

static pageattn_context *create_context(kernel_set set, int workers)
{
    pageattn_executor executor = {.struct_size = sizeof(executor),
                                  .num_workers = EXECUTOR_WORKERS,
                                  .parallel_for = workers == INLINE     ? run_in_order
                                                  : workers == REVERSED ? run_reversed
                                                                        : run_on_fresh_threads};
    pageattn_context_options options;
    pageattn_context *context;
    pageattn_error error;
    pageattn_context_options_init(&options);
    options.isa = set.isa;
    options.min_bytes_per_worker = 1; /* so that these small calls run in parallel */
    options.num_threads = workers < MAX_POOL ? workers + 1 : 0;
    options.executor = workers < MAX_POOL ? NULL : &executor;
    if (pageattn_context_create(&options, &context, &error) != PAGEATTN_OK) {
        printf("FAILED context: %s\n", error.message);
        exit(1);
    }
    context->kernels = pageattn_kernels_of(set.isa, set.prefetch);
    context->fast_kernels = pageattn_fast_kernels_of(set.isa, set.prefetch);
    return context;
}

/* ---- guises ---- */

/* One way to call the library. */
typedef struct guise {
    int set; /* of kernels */
    int workers;
    placement where;
    int32_t num_splits;
    int32_t pages_per_compute_block;
    pageattn_megacore_mode megacore_mode;
    int32_t inline_seq_dim;
    int64_t spare_context_len; /* max_context_len above the longest; -1: not given */
    int lend_scratch;
    float_mode mode;
    int fresh_context; /* made, with its threads, in the caller's floating-point mode */
} guise;

typedef struct baseline {
    const logical_case *logical;
    char *out[2]; /* of each numerics, [num_seqs][num_heads][value_head_dim] */
    float *lse[2];
} baseline;

static guise plain_guise(const logical_case *logical)
{
    return (guise){
        .where = placement_init(logical, 16), .inline_seq_dim = 1, .spare_context_len = -1};
}

static const char *describe_guise(const logical_case *logical, const guise *how, char *text,
                                  size_t bytes)
{
    static const char *const executors[] = {"inline", "reversed", "fresh threads"};
    char logical_text[700], where_text[400], workers[32];
    snprintf(workers, sizeof(workers), "%d threads", how->workers + 1);
    snprintf(text, bytes,
             "%s%s, %s, splits %d, block %d, megacore %d, inline %d, spare len %lld, scratch %d, "
             "float mode %d%s, %s, %s",
             pageattn_isa_name(sets[how->set].isa),
             sets[how->set].prefetch == PAGEATTN_PREFETCH_L1 ? " into L1" : "",
             how->workers < MAX_POOL ? workers : executors[how->workers - MAX_POOL],
             (int)how->num_splits, (int)how->pages_per_compute_block, (int)how->megacore_mode,
             (int)how->inline_seq_dim, (long long)how->spare_context_len, how->lend_scratch,
             (int)how->mode, how->fresh_context ? " fresh" : "",
             describe_placement(&how->where, where_text, sizeof(where_text)),
             describe_logical(logical, logical_text, sizeof(logical_text)));
    return text;
}

static void set_steering(const logical_case *logical, const guise *how, pageattn_args *args)
{
    args->num_splits = how->num_splits;
    args->pages_per_compute_block = how->pages_per_compute_block;
    args->megacore_mode = how->megacore_mode;
    args->inline_seq_dim = how->inline_seq_dim;
    if (how->spare_context_len >= 0) {
        args->max_context_len = how->spare_context_len;
        for (int64_t i = 0; i < how->where.num_seqs; i++) {
            const int64_t len = logical->lens[how->where.order[i]] + how->spare_context_len;
            args->max_context_len = len > args->max_context_len ? len : args->max_context_len;
        }
    }
}

/* Exactly as much as the call asks for, full of NaN, and guarded. */
static void lend_scratch(const pageattn_context *context, pageattn_args *args, region *memory)
{
    pageattn_error error;
    size_t bytes;
    if (pageattn_scratch_bytes(context, args, &bytes, &error) != PAGEATTN_OK) {
        check_failed("scratch", "%s", error.message);
        bytes = 0;
    }
    const extent all = {.high = (int64_t)bytes, .used_high = (int64_t)bytes};
    args->scratch = region_place(memory, &all, 0, 0xff);
    args->scratch_bytes = bytes;
}

static int compare(const baseline *expected, const guise *how, const char *out, const float *lse,
                   const char *name)
{
    const logical_case *logical = expected->logical;
    const int64_t num_heads = num_heads_of(logical), bytes = out_row_bytes(logical);
    const int fast = logical->numerics == PAGEATTN_NUMERICS_FAST &&
                     pageattn_context_has_fast(contexts[how->set][0], logical->kv_type);
    num_fast_calls += fast;
    for (int64_t row = 0; row < how->where.num_seqs * num_heads; row++) {
        const int64_t seq = how->where.order[row / num_heads], head = row % num_heads;
        const int64_t base = seq * num_heads + head;
        if (memcmp(out + row * bytes, expected->out[fast] + base * bytes, (size_t)bytes) != 0 ||
            memcmp(&lse[row], &expected->lse[fast][base], 4) != 0) {
            check_failed(name, "row [%lld][%lld] differs; lse %.9g, not %.9g",
                         (long long)(row / num_heads), (long long)head, (double)lse[row],
                         (double)expected->lse[fast][base]);
            return 0;
        }
    }
    return 1;
}

/* paged_attend in the caller's mode, with a context of that mode if need be. */
static int attend_in_mode(const guise *how, paged_case *paged, const char *name, char *out,
                          float *lse)
{
    const unsigned before = enter_mode(how->mode);
    pageattn_context *context = how->fresh_context ? create_context(sets[how->set], how->workers)
                                                   : contexts[how->set][how->workers];
    region scratch = {0};
    if (how->lend_scratch)
        lend_scratch(context, &paged->args, &scratch);
    const int done = paged_attend(paged, context, name, out, lse);
    if (how->fresh_context)
        pageattn_context_destroy(context);
    const int kept = leave_mode(how->mode, before);
    if (how->lend_scratch)
        munmap(scratch.base, scratch.bytes);
    if (!kept)
        check_failed(name, "the caller's floating-point mode was changed");
    return done && kept;
}

static void check_guise(const baseline *expected, const guise *how)
{
    char name[1600];
    paged_case paged;
    const logical_case *logical = expected->logical;
    const size_t rows = (size_t)(how->where.num_seqs * num_heads_of(logical));
    char *out = check_allocate(rows * (size_t)out_row_bytes(logical));
    float *lse = check_allocate(rows * sizeof(float));
    describe_guise(logical, how, name, sizeof(name));
    paged_build(logical, &how->where, &paged);
    set_steering(logical, how, &paged.args);
    if (attend_in_mode(how, &paged, name, out, lse) && compare(expected, how, out, lse, name))
        check_passed(name);
    paged_free(&paged);
    free(out);
    free(lse);
}

/* Each sequence alone, then all of them by the definition. */
static baseline make_baseline(const logical_case *logical)
{
    const int64_t num_heads = num_heads_of(logical), bytes = out_row_bytes(logical);
    const size_t rows = (size_t)(logical->num_seqs * num_heads);
    baseline expected = {.logical = logical};
    for (int i = 0; i <= (int)logical->numerics; i++) {
        expected.out[i] = check_allocate(rows * (size_t)bytes);
        expected.lse[i] = check_allocate(rows * sizeof(float));
        for (int64_t row = 0; row < (int64_t)rows; row++)
            define_row(logical, (pageattn_numerics)i, row / num_heads, row % num_heads,
                       expected.out[i] + row * bytes, &expected.lse[i][row]);
    }
    for (int64_t seq = 0; seq < logical->num_seqs; seq++) {
        guise alone = plain_guise(logical);
        alone.where.num_seqs = 1;
        alone.where.order[0] = (int32_t)seq;
        check_guise(&expected, &alone);
    }
    return expected;
}

static void baseline_free(baseline *expected)
{
    for (int i = 0; i < 2; i++) {
        free(expected->out[i]);
        free(expected->lse[i]);
    }
}

/* ---- one thing at a time ---- */

static const int32_t splits[] = {0, 1, 2, 3, 7, 1000};
static const int32_t blocks[] = {0, 1, 3, 64};
static const int64_t page_sizes[] = {1, 5, 16, 32, 64, 256};
#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

static void check_steering(const baseline *expected, guise how)
{
    const logical_case *logical = expected->logical;
    for (how.workers = 0; how.workers < NUM_WORKERS; how.workers++)
        check_guise(expected, &how);
    how.workers = 2;
    for (int i = 0; i < COUNT(splits); i++)
        for (int j = 0; j < COUNT(blocks); j++) {
            guise split = how;
            split.num_splits = splits[i];
            split.pages_per_compute_block = blocks[j];
            check_guise(expected, &split);
        }
    for (int mode = 0; mode <= PAGEATTN_MEGACORE_BATCH; mode++)
        for (how.inline_seq_dim = 0; how.inline_seq_dim <= 1; how.inline_seq_dim++)
            for (how.workers = 0; how.workers < NUM_WORKERS; how.workers += 2) {
                how.megacore_mode = (pageattn_megacore_mode)mode;
                if ((mode == PAGEATTN_MEGACORE_KV_HEAD && logical->num_kv_heads % 2 != 0) ||
                    (mode == PAGEATTN_MEGACORE_BATCH && how.where.num_seqs % 2 != 0))
                    continue;
                check_guise(expected, &how);
            }
}

static void check_places(const baseline *expected, guise how, uint64_t *random)
{
    for (int i = 0; i < COUNT(page_sizes); i++) {
        how.where.page_size = page_sizes[i];
        check_guise(expected, &how);
    }
    for (int i = 0; i < 9; i++) {
        how.where.key_layout = (pageattn_kv_layout)(i % 3);
        how.where.value_layout = (pageattn_kv_layout)(i / 3);
        check_guise(expected, &how);
    }
    for (int i = 0; i < 6; i++) {
        placement_scatter(random, &how.where);
        check_guise(expected, &how);
    }
}

static void check_batches(const baseline *expected, guise how)
{
    const int64_t num_seqs = expected->logical->num_seqs;
    for (int64_t i = 0; i < num_seqs; i++)
        how.where.order[i] = (int32_t)(num_seqs - 1 - i);
    check_guise(expected, &how);
    for (how.where.num_seqs = 1; how.where.num_seqs < num_seqs; how.where.num_seqs++)
        check_guise(expected, &how);
    for (how.where.num_seqs = 0; how.where.num_seqs < 2 * num_seqs; how.where.num_seqs++)
        how.where.order[how.where.num_seqs] = (int32_t)(how.where.num_seqs * 7 % num_seqs);
    check_guise(expected, &how);
}

static void check_rest(const baseline *expected, guise how)
{
    for (how.spare_context_len = 0; how.spare_context_len < 2000; how.spare_context_len += 777)
        check_guise(expected, &how);
    how.spare_context_len = -1;
    how.lend_scratch = 1;
    for (int i = 0; i < COUNT(splits); i++) {
        how.num_splits = splits[i];
        check_guise(expected, &how);
    }
    how.lend_scratch = how.num_splits = 0;
    for (int mode = 0; mode < NUM_MODES; mode++) {
        how.mode = (float_mode)mode;
        for (how.fresh_context = 0; how.fresh_context <= 1; how.fresh_context++)
            for (how.workers = 0; how.workers < NUM_WORKERS; how.workers += 5)
                check_guise(expected, &how);
    }
}

/* ---- everything at once ---- */

static guise random_guise(const logical_case *logical, uint64_t *random)
{
    guise how = plain_guise(logical);
    how.set = (int)check_random_int(random, 0, num_sets - 1);
    how.workers = (int)check_random_int(random, 0, NUM_WORKERS - 1);
    placement_scatter(random, &how.where);
    how.where.page_size = page_sizes[check_random_int(random, 0, COUNT(page_sizes) - 1)];
    how.where.num_seqs = check_random_int(random, 1, logical->num_seqs + 2);
    for (int64_t i = 0; i < how.where.num_seqs; i++)
        how.where.order[i] = (int32_t)check_random_int(random, 0, logical->num_seqs - 1);
    how.num_splits = splits[check_random_int(random, 0, COUNT(splits) - 1)];
    how.pages_per_compute_block = blocks[check_random_int(random, 0, COUNT(blocks) - 1)];
    how.megacore_mode = (pageattn_megacore_mode)check_random_int(random, 0, 2);
    if ((how.megacore_mode == PAGEATTN_MEGACORE_KV_HEAD && logical->num_kv_heads % 2 != 0) ||
        (how.megacore_mode == PAGEATTN_MEGACORE_BATCH && how.where.num_seqs % 2 != 0))
        how.megacore_mode = PAGEATTN_MEGACORE_NONE;
    how.inline_seq_dim = (int32_t)check_random_int(random, 0, 1);
    how.spare_context_len = check_random_int(random, -1, 1) * check_random_int(random, 1, 3000);
    how.lend_scratch = (int)check_random_int(random, 0, 1);
    how.mode = (float_mode)check_random_int(random, 0, NUM_MODES - 1);
    return how;
}

static void check_case(const logical_case *logical, uint64_t *random)
{
    baseline expected = make_baseline(logical);
    static int num_cases;
    const int only = reduced_matrix() ? num_cases++ % num_sets : -1;
    for (int set = 0; set < num_sets; set++) {
        guise how = plain_guise(logical);
        if (only >= 0 && set != only)
            continue;
        how.set = set;
        how.workers = 1;
        check_steering(&expected, how);
        check_places(&expected, how, random);
        check_batches(&expected, how);
        check_rest(&expected, how);
    }
    const int num_random = reduced_matrix() ? 60 : 200;
    for (int i = 0; i < num_random; i++) {
        const guise how = random_guise(logical, random);
        check_guise(&expected, &how);
    }
    baseline_free(&expected);
}

/* ---- the logical cases ---- */

static logical_case mixed_lengths(uint64_t seed)
{
    static const int64_t lens[] = {0, 1, 5, 16, 17, 255, 256, 257, 600, 1000};
    logical_case logical = logical_init();
    logical.num_seqs = COUNT(lens);
    memcpy(logical.lens, lens, sizeof(lens));
    logical.num_kv_heads = 2;
    logical.group_size = 3;
    logical.head_dim = 40;
    logical.value_head_dim = 24;
    logical.seed = seed;
    return logical;
}

static logical_case long_and_short(uint64_t seed)
{
    static const int64_t lens[] = {3001, 20, 515, 1};
    logical_case logical = logical_init();
    logical.num_seqs = COUNT(lens);
    memcpy(logical.lens, lens, sizeof(lens));
    logical.head_dim = 33;
    logical.value_head_dim = 18;
    logical.seed = seed;
    return logical;
}

static void run_case(logical_case logical, uint64_t *random)
{
    logical_fill(&logical);
    check_case(&logical, random);
    logical_free(&logical);
}

static void test_cases(uint64_t *random)
{
    logical_case logical = mixed_lengths(1);
    run_case(logical, random);
    logical.query_type = logical.kv_type = logical.out_type = PAGEATTN_BF16;
    logical.num_kv_heads = 1;
    logical.group_size = 8;
    logical.head_dim = logical.value_head_dim = 64;
    run_case(logical, random);

    logical = long_and_short(2);
    logical.kv_type = PAGEATTN_F16;
    logical.num_kv_heads = 4;
    run_case(logical, random);
    logical.num_kv_heads = 2;
    logical.kv_type = PAGEATTN_F32;
    logical.out_type = PAGEATTN_F16;
    logical.soft_cap = 5;
    logical.attn_scale = -0.7f;
    logical.window = 700;
    run_case(logical, random);
    logical.mask_value = -3;
    logical.group_size = 5;
    run_case(logical, random);
    logical.attn_scale = 500; /* most weights are exactly 0 */
    logical.soft_cap = 0;
    logical.query_type = PAGEATTN_F16;
    run_case(logical, random);
}

/* ---- shapes of tiles ---- */

/* Group, head_dim, value_head_dim: each shape of register tile, with and without a tail; and rows
 * of whole lines, two, four or eight of them, which kernels may read and prefetch in a way of their
 * own. */
static void test_shapes(pageattn_type kv_type, pageattn_numerics numerics, uint64_t *random)
{
    static const int64_t shapes[][3] = {{1, 1, 1},    {1, 128, 256}, {2, 15, 160}, {3, 32, 47},
                                        {4, 256, 97}, {5, 128, 128}, {7, 80, 80},  {8, 40, 208},
                                        {8, 64, 33},  {71, 64, 64},  {1, 64, 64},  {2, 64, 128},
                                        {3, 64, 64},  {4, 128, 128}, {6, 64, 32},  {8, 128, 128},
                                        {1, 32, 128}, {3, 128, 64},  {4, 32, 32},  {9, 128, 128}};
    for (int i = 0; i < COUNT(shapes); i++) {
        logical_case logical = logical_init();
        logical.numerics = numerics;
        logical.kv_type = kv_type;
        logical.query_type = (pageattn_type)(1 + i % 3);
        logical.group_size = shapes[i][0];
        logical.head_dim = shapes[i][1];
        logical.value_head_dim = shapes[i][2];
        logical.num_seqs = 3;
        logical.lens[0] = 300 + i;
        logical.lens[1] = 1 + i % 2;
        logical.lens[2] = 257;
        logical.window = i % 3 == 2 ? 31 + i : 0;
        logical.seed = (uint64_t)(100 + i);
        logical_fill(&logical);
        baseline expected = make_baseline(&logical);
        for (int j = 0; j < 12; j++) {
            const guise how = random_guise(&logical, random);
            check_guise(&expected, &how);
        }
        baseline_free(&expected);
        logical_free(&logical);
    }
}

/* ---- fast ---- */

static int fast_exists(void)
{
    int exists = 0;
    for (int set = 0; set < num_sets; set++)
        exists |= pageattn_context_has_fast(contexts[set][0], PAGEATTN_BF16);
    return exists;
}

/* Every way to call it, and f32 and f16 caches, for which fast is exact. */
static void test_fast(uint64_t *random)
{
    logical_case logical = mixed_lengths(21);
    logical.numerics = PAGEATTN_NUMERICS_FAST;
    for (int type = PAGEATTN_F32; type <= PAGEATTN_F16; type++) {
        logical.kv_type = (pageattn_type)type;
        run_case(logical, random);
    }
    logical = long_and_short(22);
    logical.numerics = PAGEATTN_NUMERICS_FAST;
    logical.kv_type = logical.query_type = PAGEATTN_BF16;
    logical.soft_cap = 5;
    logical.window = 701;
    logical.group_size = 5;
    run_case(logical, random);
    logical.mask_value = -3;
    run_case(logical, random);
    test_shapes(PAGEATTN_BF16, PAGEATTN_NUMERICS_FAST, random);
    printf("fast arithmetic: %s\n", fast_exists() ? "compared" : "this CPU has none");
    check_that((num_fast_calls > 100) == fast_exists(), "fast calls were fast where they can be");
}

/* ---- subnormal numbers ---- */

static void multiply(pageattn_type type, double factor, int64_t count, char *elements)
{
    for (int64_t i = 0; i < count; i++) {
        char *element = elements + i * type_bytes(type);
        encode(type, decode(type, element) * factor, element);
    }
}

static void multiply_all(logical_case *logical, double query, double key, double value)
{
    multiply(logical->query_type, query,
             logical->num_seqs * num_heads_of(logical) * logical->head_dim, logical->query);
    for (int64_t seq = 0; seq < logical->num_seqs; seq++) {
        const int64_t rows = logical->num_kv_heads * logical->lens[seq];
        multiply(logical->kv_type, key, rows * logical->head_dim, logical->keys[seq]);
        multiply(logical->kv_type, value, rows * logical->value_head_dim, logical->values[seq]);
    }
}

/* A case proves something about the caller's mode only if its plain arithmetic, done in that mode,
 * gives other bits. */
static void check_mode_shows(const logical_case *logical, float_mode mode, const char *name)
{
    char row[2][4 * MAX_DIM];
    float lse[2];
    int differs = 0;
    for (int64_t seq = 0; seq < logical->num_seqs; seq++) {
        define_row(logical, PAGEATTN_NUMERICS_EXACT, seq, 0, row[0], &lse[0]);
        const unsigned before = enter_mode(mode);
        define_row(logical, PAGEATTN_NUMERICS_EXACT, seq, 0, row[1], &lse[1]);
        leave_mode(mode, before);
        differs |= memcmp(row[0], row[1], (size_t)out_row_bytes(logical)) != 0 ||
                   memcmp(&lse[0], &lse[1], sizeof(float)) != 0;
    }
    check_that(differs, name);
}

static void run_subnormal_case(logical_case logical, double query, double key, double value,
                               uint64_t *random)
{
    logical_fill(&logical);
    multiply_all(&logical, query, key, value);
#if HAS_FLUSH_MODE
    check_mode_shows(&logical, MODE_FLUSH, "flush-to-zero would show");
#endif
    check_mode_shows(&logical, MODE_UPWARD, "rounding upward would show");
    check_case(&logical, random);
    logical_free(&logical);
}

static void test_subnormals(uint64_t *random)
{
    logical_case logical = mixed_lengths(7);
    logical.num_seqs = 8; /* up to 257 tokens */
    logical.num_kv_heads = 1;
    run_subnormal_case(logical, 1e36, 3e-39, 1e-39, random); /* subnormal keys and values */
    logical.kv_type = PAGEATTN_F16;
    logical.out_type = PAGEATTN_F16;
    logical.attn_scale = 3e38f;
    run_subnormal_case(logical, 3e-39, 0x1p-15, 0x1p-16, random); /* subnormal everything */
    logical.attn_scale = 1e-38f;                                  /* subnormal scaled queries */
    logical.kv_type = PAGEATTN_BF16;
    logical.out_type = PAGEATTN_BF16;
    run_subnormal_case(logical, 1e-2, 1e37, 1e-39, random);
    logical.numerics = PAGEATTN_NUMERICS_FAST; /* which takes subnormal values for 0 */
    run_subnormal_case(logical, 1e-2, 1e37, 1e-38, random);
}

/* ---- NaN and infinity ---- */

static void test_not_finite(pageattn_type kv_type, pageattn_numerics numerics, uint64_t *random)
{
    logical_case logical = long_and_short(9);
    logical.kv_type = kv_type;
    logical.numerics = numerics;
    logical_fill(&logical);
    for (int64_t t = 256; t < 700; t++)
        set_key(&logical, 0, 0, t, 3, -(double)INFINITY);
    set_query(&logical, 0, 0, 3, 1);
    set_value(&logical, 0, 0, 2999, 5, (double)INFINITY);
    set_key(&logical, 2, 0, 300, 7, (double)NAN);
    set_value(&logical, 1, 0, 4, 2, (double)NAN);
    check_case(&logical, random);
    logical_free(&logical);
}

/* ---- windows ---- */

/* The first leaf is cut anywhere, and the tree starts at any leaf. */
static void check_window(int64_t start, uint64_t *random)
{
    logical_case logical = logical_init();
    logical.head_dim = 3;
    logical.value_head_dim = 5;
    logical.lens[0] = start + check_random_int(random, 1, 5000 - start);
    logical.window = (int32_t)(logical.lens[0] - start);
    logical.seed = (uint64_t)start;
    logical_fill(&logical);
    baseline expected = make_baseline(&logical);
    for (int i = 0; i < 4; i++) {
        guise how = random_guise(&logical, random);
        if (i == 0)
            how.num_splits = 1000;
        check_guise(&expected, &how);
    }
    baseline_free(&expected);
    logical_free(&logical);
}

static void test_windows(uint64_t *random)
{
    const int64_t step = reduced_matrix() ? 31 : 1;
    for (int64_t start = 1; start <= 600; start += step)
        check_window(start, random);
    for (int64_t start = 601; start < 4900; start += 37 * step)
        check_window(start, random);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    name_crashes();
    uint64_t random = check.seed;
    find_kernel_sets();
    for (int set = 0; set < num_sets; set++)
        for (int workers = 0; workers < NUM_WORKERS; workers++)
            contexts[set][workers] = create_context(sets[set], workers);
    test_cases(&random);
    for (int type = PAGEATTN_F32; type <= PAGEATTN_F16; type++)
        test_shapes((pageattn_type)type, PAGEATTN_NUMERICS_EXACT, &random);
    test_subnormals(&random);
    test_not_finite(PAGEATTN_F32, PAGEATTN_NUMERICS_EXACT, &random);
    test_not_finite(PAGEATTN_BF16, PAGEATTN_NUMERICS_FAST, &random);
    test_fast(&random);
    test_windows(&random);
    for (int set = 0; set < num_sets; set++)
        for (int workers = 0; workers < NUM_WORKERS; workers++)
            pageattn_context_destroy(contexts[set][workers]);
    check_that(num_parallel_jobs > 100, "work was really dealt to several workers");
    return check_finish();
}
