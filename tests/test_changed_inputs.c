/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Block tables and context lengths that somebody changes while a call runs. That is the caller's
 * mistake, and the library's business only in that it must not lead outside the tensors: they end,
 * or begin, at memory that must not be touched.
 *
 * First the change comes at a chosen moment, from the caller's own code that a call runs: the
 * allocator, after the check and before the plan, and the executor, after the plan; the reference's
 * moment is its allocation, which is wrapped. Then another thread changes everything at any moment.
 *
 * A call that meets a page or a length that cannot be says so; every other returns right or
 * refuses.
 */
#define _DEFAULT_SOURCE

#include <pthread.h>
#include <stdatomic.h>

#include "paged_case.h"
#include "thread_sanitizer.h"

enum { MAX_ROWS = 16 * 16 * 32 };

/* ---- the call, and what becomes of it ---- */

static paged_case *paged;
static int64_t num_tables;  /* entries of block_tables */
static int32_t *good_table; /* as they should be */
static int32_t *good_lens;

static _Atomic int32_t *shared(const pageattn_tensor *tensor)
{
    return (_Atomic int32_t *)tensor->data;
}

static void put(const pageattn_tensor *tensor, int64_t index, int32_t value)
{
    atomic_store_explicit(shared(tensor) + index, value, memory_order_relaxed);
}

static void put_table(int32_t value)
{
    for (int64_t i = 0; i < num_tables; i++)
        put(&paged->args.block_tables, i, value);
}

static void put_lens(int32_t value)
{
    for (int64_t i = 0; i < paged->where.num_seqs; i++)
        put(&paged->args.context_lens, i, value);
}

static void restore(void)
{
    for (int64_t i = 0; i < num_tables; i++)
        put(&paged->args.block_tables, i, good_table[i]);
    for (int64_t i = 0; i < paged->where.num_seqs; i++)
        put(&paged->args.context_lens, i, good_lens[i]);
}

/* All pages are used to their last slot, so what is forbidden starts where the tensors end. */
static void draw_case(uint64_t *random, logical_case *logical, placement *where)
{
    static const int64_t page_sizes[] = {1, 4, 16, 300};
    *logical = logical_init();
    const int64_t page_size = page_sizes[check_random_int(random, 0, 3)];
    logical->num_seqs = 2 * check_random_int(random, 1, 3);
    logical->num_kv_heads = 2;
    logical->group_size = check_random_int(random, 1, 4);
    logical->head_dim = logical->value_head_dim = check_random_int(random, 1, 20);
    logical->kv_type = (pageattn_type)check_random_int(random, PAGEATTN_F32, PAGEATTN_F16);
    logical->seed = check_random(random);
    const int64_t max_blocks = 1 + 600 / page_size;
    for (int64_t seq = 0; seq < logical->num_seqs; seq++)
        logical->lens[seq] = page_size * check_random_int(random, 1, max_blocks);
    logical->lens[0] = logical->lens[logical->num_seqs - 1] = page_size * max_blocks;
    logical_fill(logical);
    *where = placement_init(logical, page_size);
    where->key_layout = (pageattn_kv_layout)check_random_int(random, 0, 2);
    where->value_layout = (pageattn_kv_layout)check_random_int(random, 0, 2);
    where->shuffle = check_random(random) | 1;
    where->guard_before = (int)check_random_int(random, 0, 1);
}

static void remember_inputs(void)
{
    const pageattn_args *args = &paged->args;
    num_tables = args->block_tables.shape[0] * args->block_tables.shape[1];
    good_table = check_allocate((size_t)num_tables * sizeof(int32_t));
    good_lens = check_allocate((size_t)paged->where.num_seqs * sizeof(int32_t));
    memcpy(good_table, args->block_tables.data, (size_t)num_tables * sizeof(int32_t));
    memcpy(good_lens, args->context_lens.data, (size_t)paged->where.num_seqs * sizeof(int32_t));
}

static void forget_inputs(void)
{
    free(good_table);
    free(good_lens);
}

static int rows_are_finite(void)
{
    static char out[MAX_ROWS * sizeof(float)];
    take_rows(&paged->args.out, out_row_bytes(paged->logical), out);
    const int64_t count =
        paged->where.num_seqs * num_heads_of(paged->logical) * paged->logical->value_head_dim;
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(((const float *)(const void *)out)[i]))
            return 0;
    return 1;
}

/* NULL, or what is wrong with how a call ended whose inputs were changed. */
static const char *judge(pageattn_status status)
{
    switch (status) {
    case PAGEATTN_OK:
        return rows_are_finite() ? NULL : "a call that succeeds returned numbers that are none";
    case PAGEATTN_ERROR_CONTEXT_LEN:
    case PAGEATTN_ERROR_BLOCK_TABLE:
        return region_is_untouched(&paged->out) ? NULL : "a refused call wrote to out";
    case PAGEATTN_ERROR_CHANGED:
        rows_are_finite(); /* for their side effect: what was written is taken out again */
        return NULL;
    default:
        return pageattn_status_name(status);
    }
}

/* ---- at a chosen moment ---- */

typedef struct change {
    const char *name;
    void (*put)(int32_t value);
    int64_t value;
    pageattn_status status;            /* if the change comes before the plan */
    pageattn_status status_after_plan; /* one launch a sequence plans its later ones later */
} change;

#define NUM_PAGES INT64_MAX /* stands for the number of pages */

static const change changes[] = {
    {"pages of INT32_MAX", put_table, INT32_MAX, PAGEATTN_ERROR_CHANGED, PAGEATTN_ERROR_CHANGED},
    {"pages of INT32_MIN", put_table, INT32_MIN, PAGEATTN_ERROR_CHANGED, PAGEATTN_ERROR_CHANGED},
    {"pages of -1", put_table, -1, PAGEATTN_ERROR_CHANGED, PAGEATTN_ERROR_CHANGED},
    {"pages one past the end", put_table, NUM_PAGES, PAGEATTN_ERROR_CHANGED,
     PAGEATTN_ERROR_CHANGED},
    {"pages of 2^24", put_table, 1 << 24, PAGEATTN_ERROR_CHANGED, PAGEATTN_ERROR_CHANGED},
    {"page 0 everywhere", put_table, 0, PAGEATTN_OK, PAGEATTN_OK},
    {"lengths of INT32_MAX", put_lens, INT32_MAX, PAGEATTN_ERROR_CHANGED, PAGEATTN_OK},
    {"lengths of INT32_MIN", put_lens, INT32_MIN, PAGEATTN_ERROR_CHANGED, PAGEATTN_OK},
    {"lengths of -1", put_lens, -1, PAGEATTN_ERROR_CHANGED, PAGEATTN_OK},
    {"lengths of 0", put_lens, 0, PAGEATTN_OK, PAGEATTN_OK},
    {"lengths of 1", put_lens, 1, PAGEATTN_OK, PAGEATTN_OK},
};

enum { NUM_CHANGES = sizeof(changes) / sizeof(*changes) };

/* The change to make when the moment comes; NULL: none. */
static const change *at_allocation, *at_tasks, *at_calloc;

static void make_change(const change **pending)
{
    if (*pending != NULL)
        (*pending)->put((*pending)->value == NUM_PAGES ? (int32_t)paged->args.key_cache.shape[1]
                                                       : (int32_t)(*pending)->value);
    *pending = NULL;
}

static void *allocate(void *opaque, size_t bytes, size_t alignment)
{
    (void)opaque;
    make_change(&at_allocation);
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void deallocate(void *opaque, void *pointer, size_t bytes)
{
    (void)opaque, (void)bytes;
    free(pointer);
}

static void run_in_order(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    make_change(&at_tasks);
    for (int64_t i = 0; i < num_tasks; i++)
        task(arg, i);
}

void *__real_calloc(size_t count, size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);

void *__wrap_calloc(size_t count, size_t bytes)
{
    make_change(&at_calloc);
    return __real_calloc(count, bytes);
}

static pageattn_context *create_context(pageattn_context_options *options)
{
    pageattn_context *context = NULL;
    pageattn_error error;
    if (pageattn_context_create(options, &context, &error) != PAGEATTN_OK) {
        check_failed("a context", "%s", error.message);
        exit(check_finish());
    }
    return context;
}

static pageattn_context *context_of_moments(void)
{
    const pageattn_executor executor = {sizeof(executor), NULL, 3, run_in_order};
    const pageattn_allocator allocator = {sizeof(allocator), NULL, allocate, deallocate};
    pageattn_context_options options;
    pageattn_context_options_init(&options);
    options.executor = &executor;
    options.allocator = &allocator;
    options.min_bytes_per_worker = 1;
    return create_context(&options);
}

static void expect_status(const char *moment, const change *what, pageattn_status status,
                          pageattn_status wanted, const char *message)
{
    char name[128];
    snprintf(name, sizeof(name), "%s, %s", what->name, moment);
    const char *wrong = judge(status);
    if (wrong != NULL)
        check_failed(name, "%s", wrong);
    else if (status != wanted)
        check_failed(name, "ended with \"%s\" (%s), not \"%s\"", pageattn_status_name(status),
                     message, pageattn_status_name(wanted));
    else
        check_passed(name);
}

static void change_before_plan(const change *what)
{
    pageattn_error error;
    pageattn_context *context = context_of_moments();
    at_allocation = what;
    const pageattn_status status = pageattn_attend(context, &paged->args, &error);
    expect_status("before the plan", what, status, what->status, error.message);
    pageattn_context_destroy(context);
    restore();
}

static void change_after_plan(const change *what)
{
    pageattn_error error;
    pageattn_context *context = context_of_moments();
    at_tasks = what;
    pageattn_status status = pageattn_attend(context, &paged->args, &error);
    expect_status("after the plan", what, status,
                  paged->args.inline_seq_dim ? what->status_after_plan : what->status,
                  error.message);
    restore();
    status = pageattn_attend(context, &paged->args, &error);
    expect_status("and the next call", what, status, PAGEATTN_OK, error.message);
    pageattn_context_destroy(context);
}

static void change_under_reference(const change *what)
{
    static double out[MAX_ROWS];
    pageattn_error error;
    at_calloc = what;
    const pageattn_status status = pageattn_reference(&paged->args, out, NULL, &error);
    expect_status("under the reference", what, status, what->status, error.message);
    restore();
}

static void put_good(int32_t unused)
{
    (void)unused;
    restore();
}

/* The reference has working memory for the lengths that it saw first. */
static void grow_under_reference(void)
{
    static const change growth = {"lengths that grow", put_good, 0, PAGEATTN_ERROR_CHANGED,
                                  PAGEATTN_ERROR_CHANGED};
    current_case = growth.name;
    put_lens(1);
    change_under_reference(&growth);
}

static void test_moments(uint64_t *random)
{
    logical_case logical;
    placement where;
    paged_case built;
    draw_case(random, &logical, &where);
    paged_build(&logical, &where, &built);
    built.args.inline_seq_dim = (int32_t)check_random_int(random, 0, 1);
    built.args.num_splits = (int32_t)check_random_int(random, 0, 2);
    paged = &built;
    remember_inputs();
    for (int i = 0; i < NUM_CHANGES; i++) {
        current_case = changes[i].name;
        change_before_plan(&changes[i]);
        change_after_plan(&changes[i]);
        change_under_reference(&changes[i]);
    }
    grow_under_reference();
    forget_inputs();
    paged_free(&built);
    logical_free(&logical);
}

/* ---- at any moment ---- */

static atomic_int scribbling;

/* Mostly right values, so that calls pass the check and meet the wrong ones later. */
static void *scribble(void *seed)
{
    static const int32_t wild[] = {INT32_MAX, INT32_MIN, -1, 1 << 24, 0, 1, 700, -4096};
    uint64_t random = *(const uint64_t *)seed;
    while (atomic_load(&scribbling)) {
        const int32_t value = wild[check_random_int(&random, 0, 7)];
        const int64_t entry = check_random_int(&random, 0, num_tables - 1);
        const int64_t seq = check_random_int(&random, 0, paged->where.num_seqs - 1);
        put(&paged->args.block_tables, entry, value);
        if (check_random_int(&random, 0, 3) == 0)
            put(&paged->args.context_lens, seq, value);
        for (int64_t pause = check_random_int(&random, 0, 200); pause > 0; pause--)
            atomic_signal_fence(memory_order_seq_cst);
        restore();
        for (int64_t pause = check_random_int(&random, 0, 20000); pause > 0; pause--)
            atomic_signal_fence(memory_order_seq_cst);
    }
    return NULL;
}

static pageattn_context *context_of_threads(pageattn_isa isa, int32_t num_threads)
{
    pageattn_context_options options;
    pageattn_context_options_init(&options);
    options.isa = isa;
    options.num_threads = num_threads;
    options.min_bytes_per_worker = 1;
    return create_context(&options);
}

static long num_ended[PAGEATTN_ERROR_CHANGED + 1];

static void call_while_scribbled(const char *name, pageattn_context *context, int num_calls)
{
    pageattn_args *args = &paged->args;
    for (int i = 0; i < num_calls; i++) {
        args->inline_seq_dim = i % 3 != 0;
        args->num_splits = i % 5 == 0 ? 3 : 0;
        args->megacore_mode = (pageattn_megacore_mode)(i % 7 % 3);
        const pageattn_status status = pageattn_attend(context, args, NULL);
        const char *wrong = judge(status);
        if (wrong != NULL) {
            check_failed(name, "call %d: %s", i, wrong);
            return;
        }
        num_ended[status]++;
    }
    check_passed(name);
}

static void test_scribbled(uint64_t *random, pageattn_isa isa, int32_t num_threads, int num_calls)
{
    char name[128];
    pthread_t thread;
    logical_case logical;
    placement where;
    paged_case built;
    uint64_t seed = check_random(random);
    draw_case(random, &logical, &where);
    paged_build(&logical, &where, &built);
    paged = &built;
    remember_inputs();
    snprintf(name, sizeof(name), "scribbled over, %s, %d threads, pages of %lld tokens",
             pageattn_isa_name(isa), (int)num_threads, (long long)where.page_size);
    current_case = name;
    pageattn_context *context = context_of_threads(isa, num_threads);
    atomic_store(&scribbling, 1);
    if (pthread_create(&thread, NULL, scribble, &seed) == 0) {
        call_while_scribbled(name, context, num_calls);
        atomic_store(&scribbling, 0);
        pthread_join(thread, NULL);
    } else {
        check_failed(name, "no thread");
    }
    pageattn_context_destroy(context);
    forget_inputs();
    paged_free(&built);
    logical_free(&logical);
}

/* The thread sanitizer is right to call this a race; it is the caller's. */
static void test_any_moment(uint64_t *random)
{
    if (UNDER_THREAD_SANITIZER) {
        printf("not under the thread sanitizer: changes by another thread\n");
        return;
    }
    const int num_rounds = reduced_matrix() ? 2 : 5, num_calls = reduced_matrix() ? 50 : 200;
    pageattn_isa isas[MAX_ISAS];
    const int num_isas = available_isas(isas);
    for (int round = 0; round < num_rounds; round++)
        for (int i = 0; i < num_isas; i++)
            for (int32_t num_threads = 1; num_threads <= 3; num_threads += 2)
                test_scribbled(random, isas[i], num_threads, num_calls);
    printf("scribbled over: %ld calls went through, %ld were refused, %ld noticed a change\n",
           num_ended[PAGEATTN_OK],
           num_ended[PAGEATTN_ERROR_CONTEXT_LEN] + num_ended[PAGEATTN_ERROR_BLOCK_TABLE],
           num_ended[PAGEATTN_ERROR_CHANGED]);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    name_crashes();
    uint64_t random = check.seed;
    for (int round = 0; round < 8; round++)
        test_moments(&random);
    test_any_moment(&random);
    return check_finish();
}
