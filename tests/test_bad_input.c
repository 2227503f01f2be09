/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wrong calls: each is refused with its status and message, changes nothing, and leaves the context
 * as good as before. Odd but right calls work. Memory: every allocation is made to fail once, none
 * is leaked, and none at all happens once a context is warm.
 *
 * A wrong call is a row of a table: a right call with a few fields set to something else. A `*` in
 * an expected message stands for any text (addresses).
 *
 * Linked with --wrap for malloc and its kin, so that the library's own calls are counted, and for
 * pthread_create, so that it can fail.
 */
#define _GNU_SOURCE /* setenv */

#include <errno.h>
#include <pthread.h>

#include <pageattn/pageattn.h>

#include "check.h"

enum {
    NUM_SEQS = 4,
    NUM_HEADS = 4,
    NUM_KV_HEADS = 2,
    HEAD_DIM = 8,
    VALUE_HEAD_DIM = 6,
    PAGE_SIZE = 4,
    NUM_PAGES = 16,
    MAX_BLOCKS = 5,
    NUM_OUT = NUM_SEQS * NUM_HEADS * VALUE_HEAD_DIM,
    NUM_LSE = NUM_SEQS * NUM_HEADS,
    GUARD = 16,
    SCRATCH_BYTES = 1 << 20,
};

/* A call with all that it refers to, so that one memcmp shows whether anything was written. */
typedef struct fixture {
    pageattn_args args;
    pageattn_context_options options;
    pageattn_executor executor;
    pageattn_allocator allocator;
    _Alignas(64) float query[NUM_SEQS * NUM_HEADS * HEAD_DIM];
    float keys[NUM_KV_HEADS * NUM_PAGES * PAGE_SIZE * HEAD_DIM];
    float values[NUM_KV_HEADS * NUM_PAGES * PAGE_SIZE * VALUE_HEAD_DIM];
    int32_t lens[NUM_SEQS];
    int32_t tables[NUM_SEQS][MAX_BLOCKS];
    float before_out[GUARD];
    float out[NUM_OUT];
    float after_out[GUARD];
    float lse[NUM_LSE];
    float after_lse[GUARD];
    _Alignas(64) char scratch[SCRATCH_BYTES];
} fixture;

static fixture call, call_before;
static pageattn_context *context;

/* ---- Counting allocations ---- */

static long num_libc_allocations;

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *pointer, size_t bytes);
void *__real_aligned_alloc(size_t alignment, size_t bytes);
int __real_posix_memalign(void **pointer, size_t alignment, size_t bytes);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *pointer, size_t bytes);
void *__wrap_aligned_alloc(size_t alignment, size_t bytes);
int __wrap_posix_memalign(void **pointer, size_t alignment, size_t bytes);

static void count_libc_allocation(void)
{
    __atomic_fetch_add(&num_libc_allocations, 1, __ATOMIC_RELAXED);
}

void *__wrap_malloc(size_t bytes)
{
    count_libc_allocation();
    return __real_malloc(bytes);
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    count_libc_allocation();
    return __real_calloc(count, bytes);
}

void *__wrap_realloc(void *pointer, size_t bytes)
{
    count_libc_allocation();
    return __real_realloc(pointer, bytes);
}

void *__wrap_aligned_alloc(size_t alignment, size_t bytes)
{
    count_libc_allocation();
    return __real_aligned_alloc(alignment, bytes);
}

int __wrap_posix_memalign(void **pointer, size_t alignment, size_t bytes)
{
    count_libc_allocation();
    return __real_posix_memalign(pointer, alignment, bytes);
}

static int threads_fail;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*start)(void *), void *arg)
{
    return threads_fail ? EAGAIN : __real_pthread_create(thread, attributes, start, arg);
}

/* An allocator that counts, and fails at the allocation number `fail_at` (0: never). */
typedef struct ledger {
    long num_allocations;
    long fail_at;
    int64_t bytes_held;
} ledger;

static void *ledger_allocate(void *opaque, size_t bytes, size_t alignment)
{
    ledger *book = opaque;
    if (++book->num_allocations == book->fail_at)
        return NULL;
    book->bytes_held += (int64_t)bytes;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void ledger_deallocate(void *opaque, void *pointer, size_t bytes)
{
    ledger *book = opaque;
    book->bytes_held -= (int64_t)bytes;
    free(pointer);
}

static pageattn_allocator ledger_allocator(ledger *book)
{
    return (pageattn_allocator){
        .struct_size = sizeof(pageattn_allocator),
        .context = book,
        .allocate = ledger_allocate,
        .deallocate = ledger_deallocate,
    };
}

/* ---- The right call ---- */

static void run_in_order(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = 0; i < num_tasks; i++)
        task(arg, i);
}

static void fill_normal(uint64_t *random, float *numbers, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        numbers[i] = (float)check_random_normal(random);
}

static void fill_tables(uint64_t *random)
{
    static const int32_t lens[NUM_SEQS] = {20, 0, 7, 13};
    int32_t pages[NUM_PAGES];
    int used = 0;
    check_random_permutation(random, pages, NUM_PAGES);
    memcpy(call.lens, lens, sizeof(lens));
    memset(call.tables, -1, sizeof(call.tables));
    for (int seq = 0; seq < NUM_SEQS; seq++) {
        for (int block = 0; block * PAGE_SIZE < lens[seq]; block++)
            call.tables[seq][block] = pages[used++];
    }
}

static void set_args(void)
{
    pageattn_args *args = &call.args;
    pageattn_args_init(args);
    args->query = pageattn_tensor_3d(call.query, PAGEATTN_F32, NUM_SEQS, NUM_HEADS, HEAD_DIM);
    args->key_cache = pageattn_cache(call.keys, PAGEATTN_F32, PAGEATTN_HND_PAGES, NUM_KV_HEADS,
                                     NUM_PAGES, PAGE_SIZE, HEAD_DIM);
    args->value_cache = pageattn_cache(call.values, PAGEATTN_F32, PAGEATTN_HND_PAGES, NUM_KV_HEADS,
                                       NUM_PAGES, PAGE_SIZE, VALUE_HEAD_DIM);
    args->context_lens = pageattn_tensor_1d(call.lens, PAGEATTN_I32, NUM_SEQS);
    args->block_tables = pageattn_tensor_2d(call.tables, PAGEATTN_I32, NUM_SEQS, MAX_BLOCKS);
    args->out = pageattn_tensor_3d(call.out, PAGEATTN_F32, NUM_SEQS, NUM_HEADS, VALUE_HEAD_DIM);
    args->lse = pageattn_tensor_2d(call.lse, PAGEATTN_F32, NUM_SEQS, NUM_HEADS);
}

static void set_creation(void)
{
    static ledger book;
    pageattn_context_options_init(&call.options);
    call.executor = (pageattn_executor){
        .struct_size = sizeof(pageattn_executor),
        .num_workers = 2,
        .parallel_for = run_in_order,
    };
    call.allocator = ledger_allocator(&book);
}

static void reset(void)
{
    uint64_t random = check.seed;
    memset(&call, 0xa5, sizeof(call));
    fill_normal(&random, call.query, sizeof(call.query) / sizeof(float));
    fill_normal(&random, call.keys, sizeof(call.keys) / sizeof(float));
    fill_normal(&random, call.values, sizeof(call.values) / sizeof(float));
    fill_tables(&random);
    set_args();
    set_creation();
}

static void remember(void)
{
    memcpy(&call_before, &call, sizeof(call));
}

static int unchanged(void)
{
    return memcmp(&call_before, &call, sizeof(call)) == 0;
}

/* ---- Right calls give the reference's answer ---- */

static float *element(const pageattn_tensor *tensor, int64_t i, int64_t j, int64_t k)
{
    const int64_t last = tensor->rank > 2 ? k * tensor->stride[2] : 0;
    return (float *)tensor->data + i * tensor->stride[0] + j * tensor->stride[1] + last;
}

static int near(double got, double wanted)
{
    if (isnan(wanted) || isinf(wanted))
        return isnan(wanted) ? isnan(got) : got == wanted;
    return fabs(got - wanted) <= 1e-5;
}

static int agrees(const char *name, const double *out, const double *lse)
{
    const pageattn_args *args = &call.args;
    const int64_t *shape = args->out.shape;
    for (int64_t row = 0; row < shape[0] * shape[1]; row++) {
        const int64_t seq = row / shape[1], head = row % shape[1];
        for (int64_t d = 0; d < shape[2]; d++) {
            const double got = (double)*element(&args->out, seq, head, d);
            const double wanted = out[row * shape[2] + d];
            if (!near(got, wanted)) {
                check_failed(name, "out[%d][%d][%d] is %.9g; the reference says %.9g", (int)seq,
                             (int)head, (int)d, got, wanted);
                return 0;
            }
        }
        if (args->lse.type != PAGEATTN_NO_TYPE &&
            !near((double)*element(&args->lse, seq, head, 0), lse[row])) {
            check_failed(name, "lse[%d][%d] is %.9g; the reference says %.9g", (int)seq, (int)head,
                         (double)*element(&args->lse, seq, head, 0), lse[row]);
            return 0;
        }
    }
    return 1;
}

static int guards_intact(void)
{
    return memcmp(call.before_out, call_before.before_out, sizeof(call.before_out)) == 0 &&
           memcmp(call.after_out, call_before.after_out, sizeof(call.after_out)) == 0 &&
           memcmp(call.after_lse, call_before.after_lse, sizeof(call.after_lse)) == 0;
}

static int inputs_intact(void)
{
    return memcmp(&call, &call_before, offsetof(fixture, before_out)) == 0;
}

/* Makes the call that stands in the fixture; 1 if it succeeds and is right. */
static int succeeds(const char *name, pageattn_context *on)
{
    double out[NUM_OUT], lse[NUM_LSE];
    pageattn_error error;
    remember();
    if (pageattn_attend(on, &call.args, &error) != PAGEATTN_OK) {
        check_failed(name, "refused: %s", error.message);
        return 0;
    }
    if (error.status != PAGEATTN_OK || error.message[0] != '\0') {
        check_failed(name, "success is recorded as %d, \"%s\"", (int)error.status, error.message);
        return 0;
    }
    if (!guards_intact() || !inputs_intact()) {
        check_failed(name, "wrote outside of out and lse");
        return 0;
    }
    if (pageattn_reference(&call.args, out, lse, &error) != PAGEATTN_OK) {
        check_failed(name, "the reference refused: %s", error.message);
        return 0;
    }
    return agrees(name, out, lse);
}

static int right_call_succeeds(const char *name, pageattn_context *on)
{
    reset();
    return succeeds(name, on);
}

/* ---- Wrong calls ---- */

/* Sets one field of the fixture. */
typedef struct poke {
    size_t offset;
    size_t bytes; /* 0: no more */
    union {
        int64_t integer; /* its first bytes are the narrower integers */
        float number;
        void *pointer;
    } value;
} poke;

#define AT(field) offsetof(fixture, field), sizeof(((fixture *)0)->field)
#define SET(field, x)                                                                              \
    {                                                                                              \
        AT(field),                                                                                 \
        {                                                                                          \
            .integer = (int64_t)(x)                                                                \
        }                                                                                          \
    }
#define SET_FLOAT(field, x)                                                                        \
    {                                                                                              \
        AT(field),                                                                                 \
        {                                                                                          \
            .number = (x)                                                                          \
        }                                                                                          \
    }
#define SET_POINTER(field, x)                                                                      \
    {                                                                                              \
        AT(field),                                                                                 \
        {                                                                                          \
            .pointer = (void *)(x)                                                                 \
        }                                                                                          \
    }
#define MAX_POKES 8

static void apply(const poke *pokes)
{
    for (int i = 0; i < MAX_POKES && pokes[i].bytes != 0; i++)
        memcpy((char *)&call + pokes[i].offset, &pokes[i].value, pokes[i].bytes);
}

static void unknown_layout(void)
{
    call.args.key_cache = pageattn_cache(call.keys, PAGEATTN_F32, (pageattn_kv_layout)3,
                                         NUM_KV_HEADS, NUM_PAGES, PAGE_SIZE, HEAD_DIM);
}

static void saturated_cache(void)
{
    const int64_t huge = (int64_t)1 << 40;
    call.args.key_cache = pageattn_cache(call.keys, PAGEATTN_F32, PAGEATTN_PAGES_NHD, NUM_KV_HEADS,
                                         huge, huge, HEAD_DIM);
    call.args.value_cache = pageattn_cache(call.values, PAGEATTN_F32, PAGEATTN_PAGES_NHD,
                                           NUM_KV_HEADS, huge, huge, VALUE_HEAD_DIM);
}

static void saturated_query(void)
{
    const int64_t huge = (int64_t)1 << 62;
    call.args.query = pageattn_tensor_3d(call.query, PAGEATTN_F32, NUM_SEQS, huge, HEAD_DIM);
    call.args.out = pageattn_tensor_3d(call.out, PAGEATTN_F32, NUM_SEQS, huge, VALUE_HEAD_DIM);
    call.args.lse = pageattn_tensor_2d(call.lse, PAGEATTN_F32, NUM_SEQS, huge);
}

static void lend_too_little(void)
{
    size_t needed = 0;
    pageattn_scratch_bytes(context, &call.args, &needed, NULL);
    call.args.scratch = call.scratch;
    call.args.scratch_bytes = needed - 1;
}

typedef struct wrong_call {
    const char *name;
    pageattn_status status;
    const char *message;
    poke pokes[MAX_POKES];
    void (*change)(void); /* for what a poke can't say */
} wrong_call;

#define ARGS_BYTES sizeof(pageattn_args)
#define HUGE_SIZE ((int64_t)1 << 62)
#define A_NAN ((float)NAN)
#define AN_INF ((float)INFINITY)

#define ALL_SEQS(n)                                                                                \
    SET(args.query.shape[0], n), SET(args.context_lens.shape[0], n),                               \
        SET(args.block_tables.shape[0], n), SET(args.out.shape[0], n), SET(args.lse.shape[0], n)
#define ALL_HEADS(n)                                                                               \
    SET(args.query.shape[1], n), SET(args.out.shape[1], n), SET(args.lse.shape[1], n)
#define ALL_KV_HEADS(n) SET(args.key_cache.shape[0], n), SET(args.value_cache.shape[0], n)
#define ALL_PAGES(n) SET(args.key_cache.shape[1], n), SET(args.value_cache.shape[1], n)

static const wrong_call wrong_structs[] = {
    {"struct_size 0", PAGEATTN_ERROR_STRUCT_SIZE,
     "args->struct_size = 0; this library (version *) knows *: call pageattn_args_init first",
     .pokes = {SET(args.struct_size, 0)}},
    {"struct_size too small", PAGEATTN_ERROR_STRUCT_SIZE, "args->struct_size = *",
     .pokes = {SET(args.struct_size, ARGS_BYTES - 1)}},
    {"struct_size too large", PAGEATTN_ERROR_STRUCT_SIZE, "args->struct_size = *",
     .pokes = {SET(args.struct_size, ARGS_BYTES + 8)}},
    {"struct_size -1", PAGEATTN_ERROR_STRUCT_SIZE, "args->struct_size = 18446744073709551615; *",
     .pokes = {SET(args.struct_size, -1)}},
};

static const wrong_call wrong_types[] = {
    {"query without type", PAGEATTN_ERROR_TYPE, "query has type none; it must be f32, bf16 or f16",
     .pokes = {SET(args.query.type, 0)}},
    {"query i32", PAGEATTN_ERROR_TYPE, "query has type i32; it must be f32, bf16 or f16",
     .pokes = {SET(args.query.type, PAGEATTN_I32)}},
    {"query of unknown type", PAGEATTN_ERROR_TYPE,
     "query has type 99, which is no pageattn_type; it must be f32, bf16 or f16",
     .pokes = {SET(args.query.type, 99)}},
    {"key_cache i32", PAGEATTN_ERROR_TYPE, "key_cache has type i32; it must be f32, bf16 or f16",
     .pokes = {SET(args.key_cache.type, PAGEATTN_I32)}},
    {"key_cache without type", PAGEATTN_ERROR_TYPE,
     "key_cache has type none; it must be f32, bf16 or f16",
     .pokes = {SET(args.key_cache.type, 0)}},
    {"value_cache unlike key_cache", PAGEATTN_ERROR_TYPE,
     "value_cache has type bf16; it must be f32, as key_cache",
     .pokes = {SET(args.value_cache.type, PAGEATTN_BF16)}},
    {"value_cache of unknown type", PAGEATTN_ERROR_TYPE,
     "value_cache has type 5, which is no pageattn_type; it must be f32, as key_cache",
     .pokes = {SET(args.value_cache.type, 5)}},
    {"context_lens f32", PAGEATTN_ERROR_TYPE, "context_lens has type f32; it must be i32",
     .pokes = {SET(args.context_lens.type, PAGEATTN_F32)}},
    {"block_tables f16", PAGEATTN_ERROR_TYPE, "block_tables has type f16; it must be i32",
     .pokes = {SET(args.block_tables.type, PAGEATTN_F16)}},
    {"out i32", PAGEATTN_ERROR_TYPE, "out has type i32; it must be f32, bf16 or f16",
     .pokes = {SET(args.out.type, PAGEATTN_I32)}},
    {"out without type", PAGEATTN_ERROR_TYPE, "out has type none; it must be f32, bf16 or f16",
     .pokes = {SET(args.out.type, 0)}},
    {"lse bf16", PAGEATTN_ERROR_TYPE,
     "lse has type bf16; it must be f32, or none if it is not wanted",
     .pokes = {SET(args.lse.type, PAGEATTN_BF16)}},
};

static const wrong_call wrong_shapes[] = {
    {"query of rank 2", PAGEATTN_ERROR_SHAPE,
     "query has rank 2; it must have rank 3: [num_seqs, num_heads, head_dim]",
     .pokes = {SET(args.query.rank, 2)}},
    {"query of rank INT32_MAX", PAGEATTN_ERROR_SHAPE, "query has rank 2147483647; *",
     .pokes = {SET(args.query.rank, INT32_MAX)}},
    {"key_cache of rank 3", PAGEATTN_ERROR_SHAPE,
     "key_cache has rank 3; it must have rank 4: [num_kv_heads, num_pages, page_size, head_dim]",
     .pokes = {SET(args.key_cache.rank, 3)}},
    {"cache of an unknown layout", PAGEATTN_ERROR_SHAPE, "key_cache has rank 0; *",
     .change = unknown_layout},
    {"value_cache of rank 5", PAGEATTN_ERROR_SHAPE,
     "value_cache has rank 5; it must have rank 4: "
     "[num_kv_heads, num_pages, page_size, value_head_dim]",
     .pokes = {SET(args.value_cache.rank, 5)}},
    {"context_lens of rank 2", PAGEATTN_ERROR_SHAPE,
     "context_lens has rank 2; it must have rank 1: [num_seqs]",
     .pokes = {SET(args.context_lens.rank, 2)}},
    {"block_tables of rank 1", PAGEATTN_ERROR_SHAPE,
     "block_tables has rank 1; it must have rank 2: [num_seqs, max_blocks]",
     .pokes = {SET(args.block_tables.rank, 1)}},
    {"out of rank -1", PAGEATTN_ERROR_SHAPE,
     "out has rank -1; it must have rank 3: [num_seqs, num_heads, value_head_dim]",
     .pokes = {SET(args.out.rank, -1)}},
    {"lse of rank 3", PAGEATTN_ERROR_SHAPE,
     "lse has rank 3; it must have rank 2: [num_seqs, num_heads]",
     .pokes = {SET(args.lse.rank, 3)}},

    {"num_seqs -1", PAGEATTN_ERROR_SHAPE, "query's axis 0 (num_seqs) is -1; it must be at least 0",
     .pokes = {ALL_SEQS(-1)}},
    {"num_heads 0", PAGEATTN_ERROR_SHAPE, "query's axis 1 (num_heads) is 0; it must be at least 1",
     .pokes = {ALL_HEADS(0)}},
    {"head_dim 0", PAGEATTN_ERROR_SHAPE, "query's axis 2 (head_dim) is 0; it must be at least 1",
     .pokes = {SET(args.query.shape[2], 0), SET(args.key_cache.shape[3], 0)}},
    {"head_dim INT64_MIN", PAGEATTN_ERROR_SHAPE,
     "query's axis 2 (head_dim) is -9223372036854775808; it must be at least 1",
     .pokes = {SET(args.query.shape[2], INT64_MIN)}},
    {"num_kv_heads 0", PAGEATTN_ERROR_SHAPE,
     "key_cache's axis 0 (num_kv_heads) is 0; it must be at least 1", .pokes = {ALL_KV_HEADS(0)}},
    {"num_pages -1", PAGEATTN_ERROR_SHAPE,
     "key_cache's axis 1 (num_pages) is -1; it must be at least 0", .pokes = {ALL_PAGES(-1)}},
    {"page_size 0", PAGEATTN_ERROR_SHAPE,
     "key_cache's axis 2 (page_size) is 0; it must be at least 1",
     .pokes = {SET(args.key_cache.shape[2], 0), SET(args.value_cache.shape[2], 0)}},
    {"value_head_dim 0", PAGEATTN_ERROR_SHAPE,
     "value_cache's axis 3 (value_head_dim) is 0; it must be at least 1",
     .pokes = {SET(args.value_cache.shape[3], 0), SET(args.out.shape[2], 0)}},
    {"max_blocks -5", PAGEATTN_ERROR_SHAPE,
     "block_tables's axis 1 (max_blocks) is -5; it must be at least 0",
     .pokes = {SET(args.block_tables.shape[1], -5)}},

    {"head_dim of key_cache", PAGEATTN_ERROR_SHAPE,
     "key_cache's axis 3 (head_dim) is 9; it must be 8, as query's axis 2",
     .pokes = {SET(args.key_cache.shape[3], 9)}},
    {"KV heads of value_cache", PAGEATTN_ERROR_SHAPE,
     "value_cache's axis 0 (num_kv_heads) is 1; it must be 2, as key_cache's axis 0",
     .pokes = {SET(args.value_cache.shape[0], 1)}},
    {"pages of value_cache", PAGEATTN_ERROR_SHAPE,
     "value_cache's axis 1 (num_pages) is 15; it must be 16, as key_cache's axis 1",
     .pokes = {SET(args.value_cache.shape[1], 15)}},
    {"page size of value_cache", PAGEATTN_ERROR_SHAPE,
     "value_cache's axis 2 (page_size) is 5; it must be 4, as key_cache's axis 2",
     .pokes = {SET(args.value_cache.shape[2], 5)}},
    {"length of context_lens", PAGEATTN_ERROR_SHAPE,
     "context_lens's axis 0 (num_seqs) is 3; it must be 4, as query's axis 0",
     .pokes = {SET(args.context_lens.shape[0], 3)}},
    {"rows of block_tables", PAGEATTN_ERROR_SHAPE,
     "block_tables's axis 0 (num_seqs) is 5; it must be 4, as query's axis 0",
     .pokes = {SET(args.block_tables.shape[0], 5)}},
    {"sequences of out", PAGEATTN_ERROR_SHAPE,
     "out's axis 0 (num_seqs) is 3; it must be 4, as query's axis 0",
     .pokes = {SET(args.out.shape[0], 3)}},
    {"heads of out", PAGEATTN_ERROR_SHAPE,
     "out's axis 1 (num_heads) is 8; it must be 4, as query's axis 1",
     .pokes = {SET(args.out.shape[1], 8)}},
    {"value_head_dim of out", PAGEATTN_ERROR_SHAPE,
     "out's axis 2 (value_head_dim) is 8; it must be 6, as value_cache's axis 3",
     .pokes = {SET(args.out.shape[2], 8)}},
    {"sequences of lse", PAGEATTN_ERROR_SHAPE,
     "lse's axis 0 (num_seqs) is 0; it must be 4, as query's axis 0",
     .pokes = {SET(args.lse.shape[0], 0)}},
    {"heads of lse", PAGEATTN_ERROR_SHAPE,
     "lse's axis 1 (num_heads) is 2; it must be 4, as query's axis 1",
     .pokes = {SET(args.lse.shape[1], 2)}},
    {"7 heads over 2", PAGEATTN_ERROR_SHAPE,
     "num_heads = 7 (query's axis 1) is not a multiple of num_kv_heads = 2 (key_cache's axis 0)",
     .pokes = {ALL_HEADS(7)}},
    {"fewer heads than KV heads", PAGEATTN_ERROR_SHAPE,
     "num_heads = 1 (query's axis 1) is not a multiple of num_kv_heads = 2 (key_cache's axis 0)",
     .pokes = {ALL_HEADS(1)}},
};

static const wrong_call wrong_options[] = {
    {"attn_scale NaN", PAGEATTN_ERROR_ARGUMENT, "attn_scale = *nan; it must be finite",
     .pokes = {SET_FLOAT(args.attn_scale, A_NAN)}},
    {"attn_scale inf", PAGEATTN_ERROR_ARGUMENT, "attn_scale = inf; it must be finite",
     .pokes = {SET_FLOAT(args.attn_scale, AN_INF)}},
    {"attn_scale -inf", PAGEATTN_ERROR_ARGUMENT, "attn_scale = -inf; it must be finite",
     .pokes = {SET_FLOAT(args.attn_scale, -AN_INF)}},
    {"soft cap NaN", PAGEATTN_ERROR_ARGUMENT,
     "attn_logits_soft_cap = *nan; it must be finite and > 0, or 0 for none",
     .pokes = {SET_FLOAT(args.attn_logits_soft_cap, A_NAN)}},
    {"soft cap inf", PAGEATTN_ERROR_ARGUMENT, "attn_logits_soft_cap = inf; *",
     .pokes = {SET_FLOAT(args.attn_logits_soft_cap, AN_INF)}},
    {"soft cap -30", PAGEATTN_ERROR_ARGUMENT, "attn_logits_soft_cap = -30; *",
     .pokes = {SET_FLOAT(args.attn_logits_soft_cap, -30.0f)}},
    {"mask_value NaN", PAGEATTN_ERROR_ARGUMENT,
     "mask_value = *nan; it must be <= 0, and may be -inf",
     .pokes = {SET_FLOAT(args.mask_value, A_NAN)}},
    {"mask_value 0.5", PAGEATTN_ERROR_ARGUMENT,
     "mask_value = 0.5; it must be <= 0, and may be -inf",
     .pokes = {SET_FLOAT(args.mask_value, 0.5f)}},
    {"mask_value inf", PAGEATTN_ERROR_ARGUMENT, "mask_value = inf; *",
     .pokes = {SET_FLOAT(args.mask_value, AN_INF)}},
    {"sliding_window -1", PAGEATTN_ERROR_ARGUMENT,
     "sliding_window = -1; it must be at least 1, or 0 for no window",
     .pokes = {SET(args.sliding_window, -1)}},
    {"num_splits -2", PAGEATTN_ERROR_ARGUMENT,
     "num_splits = -2; it must be at least 1, or 0 for the library's choice",
     .pokes = {SET(args.num_splits, -2)}},
    {"pages_per_compute_block INT32_MIN", PAGEATTN_ERROR_ARGUMENT,
     "pages_per_compute_block = -2147483648; it must be at least 1, or 0 for the library's choice",
     .pokes = {SET(args.pages_per_compute_block, INT32_MIN)}},
    {"max_context_len -2", PAGEATTN_ERROR_ARGUMENT,
     "max_context_len = -2; it must be at least 0, or -1 for max_blocks * page_size",
     .pokes = {SET(args.max_context_len, -2)}},
    {"max_context_len INT64_MIN", PAGEATTN_ERROR_ARGUMENT,
     "max_context_len = -9223372036854775808; *", .pokes = {SET(args.max_context_len, INT64_MIN)}},
    {"inline_seq_dim 2", PAGEATTN_ERROR_ARGUMENT, "inline_seq_dim = 2; it must be 0 or 1",
     .pokes = {SET(args.inline_seq_dim, 2)}},
    {"inline_seq_dim -1", PAGEATTN_ERROR_ARGUMENT, "inline_seq_dim = -1; it must be 0 or 1",
     .pokes = {SET(args.inline_seq_dim, -1)}},
    {"numerics 2", PAGEATTN_ERROR_ARGUMENT,
     "numerics = 2 is not a value of pageattn_numerics; it must be 0 (exact) or 1 (fast)",
     .pokes = {SET(args.numerics, 2)}},
    {"numerics -1", PAGEATTN_ERROR_ARGUMENT, "numerics = -1 is not a value of pageattn_numerics; *",
     .pokes = {SET(args.numerics, -1)}},
    {"megacore_mode 3", PAGEATTN_ERROR_ARGUMENT,
     "megacore_mode = 3 is not a value of pageattn_megacore_mode",
     .pokes = {SET(args.megacore_mode, 3)}},
    {"megacore kv_head, 1 KV head", PAGEATTN_ERROR_ARGUMENT,
     "megacore_mode = kv_head needs an even num_kv_heads, not 1 (key_cache's axis 0)",
     .pokes = {SET(args.megacore_mode, PAGEATTN_MEGACORE_KV_HEAD), ALL_KV_HEADS(1)}},
    {"megacore batch, 3 sequences", PAGEATTN_ERROR_ARGUMENT,
     "megacore_mode = batch needs an even num_seqs, not 3 (query's axis 0)",
     .pokes = {SET(args.megacore_mode, PAGEATTN_MEGACORE_BATCH), ALL_SEQS(3)}},
};

static const wrong_call wrong_strides[] = {
    {"query's head_dim stride 2", PAGEATTN_ERROR_STRIDE,
     "query's axis 2 (head_dim) has stride 2; it must be 1",
     .pokes = {SET(args.query.stride[2], 2)}},
    {"key_cache's head_dim stride 0", PAGEATTN_ERROR_STRIDE,
     "key_cache's axis 3 (head_dim) has stride 0; it must be 1",
     .pokes = {SET(args.key_cache.stride[3], 0)}},
    {"value_cache's head_dim stride -1", PAGEATTN_ERROR_STRIDE,
     "value_cache's axis 3 (value_head_dim) has stride -1; it must be 1",
     .pokes = {SET(args.value_cache.stride[3], -1)}},
    {"out's value_head_dim stride 24", PAGEATTN_ERROR_STRIDE,
     "out's axis 2 (value_head_dim) has stride 24; it must be 1",
     .pokes = {SET(args.out.stride[2], 24)}},

    {"query's stride INT64_MAX", PAGEATTN_ERROR_OVERFLOW,
     "query does not fit the address space: shape [4, 4, 8], "
     "strides [9223372036854775807, 8, 1], elements of 4 bytes",
     .pokes = {SET(args.query.stride[0], INT64_MAX)}},
    {"key_cache's stride INT64_MIN", PAGEATTN_ERROR_OVERFLOW,
     "key_cache does not fit the address space: *",
     .pokes = {SET(args.key_cache.stride[1], INT64_MIN)}},
    {"value_cache's strides add up to too much", PAGEATTN_ERROR_OVERFLOW,
     "value_cache does not fit the address space: *",
     .pokes = {SET(args.value_cache.stride[0], INT64_MAX / 8),
               SET(args.value_cache.stride[1], INT64_MAX / 64),
               SET(args.value_cache.stride[2], INT64_MAX / 16)}},
    {"query spans the address space both ways", PAGEATTN_ERROR_OVERFLOW,
     "query does not fit the address space: *",
     .pokes = {SET(args.query.stride[0], INT64_MAX / 16),
               SET(args.query.stride[1], INT64_MIN / 16)}},
    {"context_lens's stride INT64_MIN", PAGEATTN_ERROR_OVERFLOW,
     "context_lens does not fit the address space: *",
     .pokes = {SET(args.context_lens.stride[0], INT64_MIN)}},
    {"block_tables's stride INT64_MAX / 4", PAGEATTN_ERROR_OVERFLOW,
     "block_tables does not fit the address space: *",
     .pokes = {SET(args.block_tables.stride[0], INT64_MAX / 4)}},
    {"out's stride 2^61", PAGEATTN_ERROR_OVERFLOW, "out does not fit the address space: *",
     .pokes = {SET(args.out.stride[0], HUGE_SIZE / 2)}},
    {"lse's stride -2^62", PAGEATTN_ERROR_OVERFLOW, "lse does not fit the address space: *",
     .pokes = {SET(args.lse.stride[1], -HUGE_SIZE)}},
    {"2^62 broadcast pages", PAGEATTN_ERROR_OVERFLOW,
     "key_cache does not fit the address space: shape [2, 4611686018427387904, 4, 8], *",
     .pokes = {ALL_PAGES(HUGE_SIZE), SET(args.key_cache.stride[1], 0),
               SET(args.value_cache.stride[1], 0)}},
    {"2^62 broadcast blocks", PAGEATTN_ERROR_OVERFLOW,
     "block_tables does not fit the address space: *",
     .pokes = {SET(args.block_tables.shape[1], HUGE_SIZE), SET(args.block_tables.stride[0], 0),
               SET(args.block_tables.stride[1], 0)}},
    {"saturated strides of a cache", PAGEATTN_ERROR_OVERFLOW,
     "key_cache does not fit the address space: *", .change = saturated_cache},
    {"saturated strides of query", PAGEATTN_ERROR_OVERFLOW,
     "query does not fit the address space: *", .change = saturated_query},
    {"max_blocks * page_size", PAGEATTN_ERROR_OVERFLOW,
     "max_blocks * page_size = 1099511627776 * 1099511627776 tokens do not fit 64 bits",
     .pokes = {SET(args.block_tables.shape[1], (int64_t)1 << 40),
               SET(args.block_tables.stride[1], 0), SET(args.key_cache.shape[2], (int64_t)1 << 40),
               SET(args.key_cache.stride[2], 0), SET(args.value_cache.shape[2], (int64_t)1 << 40),
               SET(args.value_cache.stride[2], 0)}},

    {"out broadcast over sequences", PAGEATTN_ERROR_STRIDE,
     "out overlaps itself: axis 0 (num_seqs) has stride 0, less than the 1 elements that a step "
     "must pass over",
     .pokes = {SET(args.out.stride[0], 0)}},
    {"out's heads overlap", PAGEATTN_ERROR_STRIDE,
     "out overlaps itself: axis 1 (num_heads) has stride 5, less than the 6 elements that a step "
     "must pass over",
     .pokes = {SET(args.out.stride[1], 5)}},
    {"out's heads overlap backwards", PAGEATTN_ERROR_STRIDE,
     "out overlaps itself: axis 1 (num_heads) has stride -5, less than the 6 elements *",
     .pokes = {SET(args.out.stride[1], -5)}},
    {"out's sequences overlap", PAGEATTN_ERROR_STRIDE,
     "out overlaps itself: axis 0 (num_seqs) has stride 23, less than the 24 elements *",
     .pokes = {SET(args.out.stride[0], 23)}},
    {"out's sequences are its heads", PAGEATTN_ERROR_STRIDE, "out overlaps itself: *",
     .pokes = {SET(args.out.stride[0], 6)}},
    {"lse broadcast", PAGEATTN_ERROR_STRIDE,
     "lse overlaps itself: axis 1 (num_heads) has stride 0, less than the 1 elements *",
     .pokes = {SET(args.lse.stride[1], 0)}},
    {"lse's sequences overlap", PAGEATTN_ERROR_STRIDE,
     "lse overlaps itself: axis 0 (num_seqs) has stride -3, less than the 4 elements *",
     .pokes = {SET(args.lse.stride[0], -3)}},
};

static const wrong_call wrong_memory[] = {
    {"query NULL", PAGEATTN_ERROR_ARGUMENT,
     "query.data is NULL, but its shape [4, 4, 8] is not empty",
     .pokes = {SET_POINTER(args.query.data, NULL)}},
    {"key_cache NULL", PAGEATTN_ERROR_ARGUMENT,
     "key_cache.data is NULL, but its shape [2, 16, 4, 8] is not empty",
     .pokes = {SET_POINTER(args.key_cache.data, NULL)}},
    {"value_cache NULL", PAGEATTN_ERROR_ARGUMENT,
     "value_cache.data is NULL, but its shape [2, 16, 4, 6] is not empty",
     .pokes = {SET_POINTER(args.value_cache.data, NULL)}},
    {"context_lens NULL", PAGEATTN_ERROR_ARGUMENT,
     "context_lens.data is NULL, but its shape [4] is not empty",
     .pokes = {SET_POINTER(args.context_lens.data, NULL)}},
    {"block_tables NULL", PAGEATTN_ERROR_ARGUMENT,
     "block_tables.data is NULL, but its shape [4, 5] is not empty",
     .pokes = {SET_POINTER(args.block_tables.data, NULL)}},
    {"out NULL", PAGEATTN_ERROR_ARGUMENT, "out.data is NULL, but its shape [4, 4, 6] is not empty",
     .pokes = {SET_POINTER(args.out.data, NULL)}},
    {"lse NULL", PAGEATTN_ERROR_ARGUMENT, "lse.data is NULL, but its shape [4, 4] is not empty",
     .pokes = {SET_POINTER(args.lse.data, NULL)}},

    {"query misaligned", PAGEATTN_ERROR_ALIGNMENT,
     "query.data = 0x* is not a multiple of 4, the size of its elements in bytes",
     .pokes = {SET_POINTER(args.query.data, (char *)call.query + 1)}},
    {"key_cache misaligned", PAGEATTN_ERROR_ALIGNMENT, "key_cache.data = 0x* of 4, *",
     .pokes = {SET_POINTER(args.key_cache.data, (char *)call.keys + 2)}},
    {"value_cache misaligned", PAGEATTN_ERROR_ALIGNMENT, "value_cache.data = 0x* of 4, *",
     .pokes = {SET_POINTER(args.value_cache.data, (char *)call.values + 3)}},
    {"bf16 cache misaligned", PAGEATTN_ERROR_ALIGNMENT, "key_cache.data = 0x* of 2, *",
     .pokes = {SET(args.key_cache.type, PAGEATTN_BF16), SET(args.value_cache.type, PAGEATTN_BF16),
               SET_POINTER(args.key_cache.data, (char *)call.keys + 1)}},
    {"context_lens misaligned", PAGEATTN_ERROR_ALIGNMENT, "context_lens.data = 0x* of 4, *",
     .pokes = {SET_POINTER(args.context_lens.data, (char *)call.lens + 2)}},
    {"block_tables misaligned", PAGEATTN_ERROR_ALIGNMENT, "block_tables.data = 0x* of 4, *",
     .pokes = {SET_POINTER(args.block_tables.data, (char *)call.tables + 1)}},
    {"out misaligned", PAGEATTN_ERROR_ALIGNMENT, "out.data = 0x* of 4, *",
     .pokes = {SET_POINTER(args.out.data, (char *)call.out + 1)}},
    {"lse misaligned", PAGEATTN_ERROR_ALIGNMENT, "lse.data = 0x* of 4, *",
     .pokes = {SET_POINTER(args.lse.data, (char *)call.lse + 2)}},

    {"query at the end of the address space", PAGEATTN_ERROR_OVERFLOW,
     "query.data = 0xfffffffffffffffc leaves no room: its elements lie from byte 0 to byte 512 of "
     "it, beyond the address space",
     .pokes = {SET_POINTER(args.query.data, (char *)UINTPTR_MAX - 3)}},
    {"key_cache before the address space", PAGEATTN_ERROR_OVERFLOW,
     "key_cache.data = 0x40 leaves no room: its elements lie from byte -1920 to byte *",
     .pokes = {SET_POINTER(args.key_cache.data, 64), SET(args.key_cache.stride[1], -32)}},

    {"out is query", PAGEATTN_ERROR_OVERLAP, "out [0x*, 0x*) shares memory with query [0x*, 0x*)",
     .pokes = {SET_POINTER(args.out.data, call.query)}},
    {"out ends in key_cache", PAGEATTN_ERROR_OVERLAP, "out [*) shares memory with key_cache [*)",
     .pokes = {SET_POINTER(args.out.data, call.keys + 4)}},
    {"out starts in value_cache's last element", PAGEATTN_ERROR_OVERLAP,
     "out [*) shares memory with value_cache [*)",
     .pokes = {SET_POINTER(
         args.out.data, call.values + NUM_KV_HEADS * NUM_PAGES * PAGE_SIZE * VALUE_HEAD_DIM - 1)}},
    {"out on context_lens", PAGEATTN_ERROR_OVERLAP, "out [*) shares memory with context_lens [*)",
     .pokes = {SET_POINTER(args.out.data, call.lens)}},
    {"out on block_tables", PAGEATTN_ERROR_OVERLAP, "out [*) shares memory with block_tables [*)",
     .pokes = {SET_POINTER(args.out.data, (int32_t *)call.tables + 1)}},
    {"lse is query", PAGEATTN_ERROR_OVERLAP, "lse [*) shares memory with query [*)",
     .pokes = {SET_POINTER(args.lse.data, call.query)}},
    {"lse in out's last element", PAGEATTN_ERROR_OVERLAP, "out [*) shares memory with lse [*)",
     .pokes = {SET_POINTER(args.lse.data, call.out + NUM_OUT - 1)}},
    {"lse runs back into out", PAGEATTN_ERROR_OVERLAP, "out [*) shares memory with lse [*)",
     .pokes = {SET_POINTER(args.lse.data, call.after_out), SET(args.lse.stride[0], -4)}},
};

static const wrong_call wrong_values[] = {
    {"context_lens 70", PAGEATTN_ERROR_CONTEXT_LEN,
     "context_lens[2] = 70 is outside [0, 20], the 5 blocks of 4 tokens that block_tables has room "
     "for",
     .pokes = {SET(lens[2], 70)}},
    {"context_lens one too many", PAGEATTN_ERROR_CONTEXT_LEN,
     "context_lens[0] = 21 is outside [0, 20], *", .pokes = {SET(lens[0], 21)}},
    {"context_lens -1", PAGEATTN_ERROR_CONTEXT_LEN, "context_lens[1] = -1 is outside [0, 20], *",
     .pokes = {SET(lens[1], -1)}},
    {"context_lens INT32_MAX", PAGEATTN_ERROR_CONTEXT_LEN,
     "context_lens[3] = 2147483647 is outside [0, 20], *", .pokes = {SET(lens[3], INT32_MAX)}},
    {"context_lens INT32_MIN", PAGEATTN_ERROR_CONTEXT_LEN,
     "context_lens[3] = -2147483648 is outside [0, 20], *", .pokes = {SET(lens[3], INT32_MIN)}},
    {"a context longer than max_context_len", PAGEATTN_ERROR_CONTEXT_LEN,
     "context_lens[0] = 20 is outside [0, 19], as max_context_len = 19 demands",
     .pokes = {SET(args.max_context_len, 19)}},
    {"max_context_len 0", PAGEATTN_ERROR_CONTEXT_LEN,
     "context_lens[0] = 20 is outside [0, 0], as max_context_len = 0 demands",
     .pokes = {SET(args.max_context_len, 0)}},
    {"contexts without blocks", PAGEATTN_ERROR_CONTEXT_LEN,
     "context_lens[0] = 20 is outside [0, 0], the 0 blocks of 4 tokens *",
     .pokes = {SET(args.block_tables.shape[1], 0)}},
    {"context_lens through a stride", PAGEATTN_ERROR_CONTEXT_LEN,
     "context_lens[3] = 99 is outside [0, 20], *",
     .pokes = {SET(args.context_lens.stride[0], -1),
               SET_POINTER(args.context_lens.data, call.lens + 3), SET(lens[0], 99)}},

    {"block_tables -1", PAGEATTN_ERROR_BLOCK_TABLE, "block_tables[0][0] = -1 is outside [0, 16)",
     .pokes = {SET(tables[0][0], -1)}},
    {"block_tables num_pages", PAGEATTN_ERROR_BLOCK_TABLE,
     "block_tables[0][4] = 16 is outside [0, 16)", .pokes = {SET(tables[0][4], 16)}},
    {"block_tables INT32_MAX", PAGEATTN_ERROR_BLOCK_TABLE,
     "block_tables[2][1] = 2147483647 is outside [0, 16)", .pokes = {SET(tables[2][1], INT32_MAX)}},
    {"block_tables INT32_MIN", PAGEATTN_ERROR_BLOCK_TABLE,
     "block_tables[3][3] = -2147483648 is outside [0, 16)",
     .pokes = {SET(tables[3][3], INT32_MIN)}},
    {"the first of two wrong entries is named", PAGEATTN_ERROR_BLOCK_TABLE,
     "block_tables[0][2] = 912 is outside [0, 16)",
     .pokes = {SET(tables[3][0], -4), SET(tables[0][2], 912)}},
    {"no pages", PAGEATTN_ERROR_BLOCK_TABLE, "block_tables[0][0] = * is outside [0, 0)",
     .pokes = {ALL_PAGES(0)}},
    {"block_tables through strides", PAGEATTN_ERROR_BLOCK_TABLE,
     "block_tables[0][1] = 77 is outside [0, 16)",
     .pokes = {SET(args.block_tables.stride[0], 0), SET(args.block_tables.stride[1], -1),
               SET_POINTER(args.block_tables.data, &call.tables[0][4]), SET(tables[0][3], 77)}},
    {"a wrong entry before the window, soft mask", PAGEATTN_ERROR_BLOCK_TABLE,
     "block_tables[0][0] = -7 is outside [0, 16)",
     .pokes = {SET(args.sliding_window, 4), SET_FLOAT(args.mask_value, -5), SET(tables[0][0], -7)}},
    {"a wrong entry before the window, barely soft mask", PAGEATTN_ERROR_BLOCK_TABLE,
     "block_tables[0][0] = -7 is outside [0, 16)",
     .pokes = {SET(args.sliding_window, 4), SET_FLOAT(args.mask_value, -0.99e9f),
               SET(tables[0][0], -7)}},
    {"a wrong entry where the window begins", PAGEATTN_ERROR_BLOCK_TABLE,
     "block_tables[0][3] = -7 is outside [0, 16)",
     .pokes = {SET(args.sliding_window, 5), SET(tables[0][3], -7)}},
};

/* Refused by pageattn_attend alone: the reference needs no scratch. */
static const wrong_call wrong_scratch[] = {
    {"lent scratch misaligned", PAGEATTN_ERROR_SCRATCH,
     "scratch = 0x* is not a multiple of 64 (PAGEATTN_SCRATCH_ALIGNMENT)",
     .pokes = {SET_POINTER(args.scratch, call.scratch + 32),
               SET(args.scratch_bytes, SCRATCH_BYTES - 32)}},
    {"lent scratch of 0 bytes", PAGEATTN_ERROR_SCRATCH,
     "scratch_bytes = 0; this call needs at least *, as pageattn_scratch_bytes says",
     .pokes = {SET_POINTER(args.scratch, call.scratch), SET(args.scratch_bytes, 0)}},
    {"lent scratch a byte too small", PAGEATTN_ERROR_SCRATCH, "scratch_bytes = *; *",
     .change = lend_too_little},
};

static const wrong_call wrong_scratch_places[] = {
    {"lent scratch on query", PAGEATTN_ERROR_OVERLAP, "scratch [*) shares memory with query [*)",
     .pokes = {SET_POINTER(args.scratch, call.query), SET(args.scratch_bytes, 64)}},
    {"lent scratch over everything", PAGEATTN_ERROR_OVERLAP, "out [*) shares memory with scratch *",
     .pokes = {SET_POINTER(args.scratch, &call), SET(args.scratch_bytes, sizeof(call))}},
    {"lent scratch past the address space", PAGEATTN_ERROR_OVERFLOW,
     "scratch = 0x* has no room for scratch_bytes = 18446744073709551615 before the end of the "
     "address space",
     .pokes = {SET_POINTER(args.scratch, call.scratch), SET(args.scratch_bytes, -1)}},
};

/* `*` in the pattern stands for any text. */
static int matches(const char *pattern, const char *text)
{
    for (; *pattern != '*'; pattern++, text++) {
        if (*pattern != *text)
            return 0;
        if (*pattern == '\0')
            return 1;
    }
    do {
        if (matches(pattern + 1, text))
            return 1;
    } while (*text++ != '\0');
    return 0;
}

/* 1 if the refusal is the expected one and nothing was written; else says what is wrong. */
static int refused(const char *name, const char *by, const wrong_call *wrong,
                   pageattn_status status, const pageattn_error *error)
{
    if (status != wrong->status || error->status != status)
        check_failed(name, "%s returned \"%s\" and recorded \"%s\" (%s); \"%s\" is right", by,
                     pageattn_status_name(status), pageattn_status_name(error->status),
                     error->message, pageattn_status_name(wrong->status));
    else if (memchr(error->message, 0, sizeof(error->message)) == NULL)
        check_failed(name, "%s left the message without an end", by);
    else if (!matches(wrong->message, error->message))
        check_failed(name, "%s says\n    %s\nwhere this was expected:\n    %s", by, error->message,
                     wrong->message);
    else if (!unchanged())
        check_failed(name, "%s wrote something", by);
    else
        return 1;
    return 0;
}

enum { BY_ATTEND = 1, BY_REFERENCE = 2, BY_SCRATCH_BYTES = 4 };

static int refused_by_all(const wrong_call *wrong, int by)
{
    pageattn_error error;
    double out[NUM_OUT], lse[NUM_LSE];
    size_t bytes;
    memset(&error, 0xa5, sizeof(error));
    pageattn_status status = pageattn_attend(context, &call.args, &error);
    if (!refused(wrong->name, "pageattn_attend", wrong, status, &error))
        return 0;
    if (pageattn_attend(context, &call.args, NULL) != wrong->status || !unchanged()) {
        check_failed(wrong->name, "another status or a write without an error to fill");
        return 0;
    }
    if (by & BY_REFERENCE) {
        memset(&error, 0xa5, sizeof(error));
        status = pageattn_reference(&call.args, out, lse, &error);
        if (!refused(wrong->name, "pageattn_reference", wrong, status, &error))
            return 0;
    }
    if (by & BY_SCRATCH_BYTES) {
        memset(&error, 0xa5, sizeof(error));
        status = pageattn_scratch_bytes(context, &call.args, &bytes, &error);
        return refused(wrong->name, "pageattn_scratch_bytes", wrong, status, &error);
    }
    return 1;
}

static void test_wrong_calls(const wrong_call *calls, size_t count, int by)
{
    for (size_t i = 0; i < count; i++) {
        reset();
        apply(calls[i].pokes);
        if (calls[i].change != NULL)
            calls[i].change();
        remember();
        if (refused_by_all(&calls[i], by) && right_call_succeeds(calls[i].name, context))
            check_passed(calls[i].name);
    }
}

#define TEST_WRONG_CALLS(calls, by) test_wrong_calls(calls, sizeof(calls) / sizeof(*(calls)), by)

/* ---- Null handles ---- */

static void expect(const char *name, pageattn_status got, pageattn_status wanted,
                   const pageattn_error *error, const char *message)
{
    if (got != wanted || error->status != wanted)
        check_failed(name, "\"%s\" (%s); \"%s\" is right", pageattn_status_name(got),
                     error->message, pageattn_status_name(wanted));
    else if (!matches(message, error->message))
        check_failed(name, "says\n    %s\nwhere this was expected:\n    %s", error->message,
                     message);
    else
        check_passed(name);
}

static void test_null_handles(void)
{
    const pageattn_status wrong = PAGEATTN_ERROR_ARGUMENT;
    pageattn_error error;
    size_t bytes;
    double out[NUM_OUT + 1];
    reset();
    expect("attend without context", pageattn_attend(NULL, &call.args, &error), wrong, &error,
           "context is NULL");
    expect("attend without args", pageattn_attend(context, NULL, &error), wrong, &error,
           "args is NULL");
    expect("scratch_bytes without context",
           pageattn_scratch_bytes(NULL, &call.args, &bytes, &error), wrong, &error,
           "context is NULL");
    expect("scratch_bytes without args", pageattn_scratch_bytes(context, NULL, &bytes, &error),
           wrong, &error, "args is NULL");
    expect("scratch_bytes without bytes", pageattn_scratch_bytes(context, &call.args, NULL, &error),
           wrong, &error, "bytes is NULL");
    expect("reference without args", pageattn_reference(NULL, out, NULL, &error), wrong, &error,
           "args is NULL");
    expect("reference without out", pageattn_reference(&call.args, NULL, NULL, &error), wrong,
           &error, "out is NULL");
    expect("reference with out misaligned",
           pageattn_reference(&call.args, (double *)(void *)((char *)out + 4), NULL, &error),
           PAGEATTN_ERROR_ALIGNMENT, &error, "out is not a multiple of 8, *");
    expect("create without context", pageattn_context_create(NULL, NULL, &error), wrong, &error,
           "context is NULL");
    check_that(pageattn_attend(NULL, NULL, NULL) == wrong, "everything NULL");
    pageattn_context_destroy(NULL);
    check_that(pageattn_context_isa(NULL) == PAGEATTN_ISA_AUTO &&
                   pageattn_context_num_threads(NULL) == 0 &&
                   pageattn_context_has_fast(NULL, PAGEATTN_BF16) == 0,
               "questions to no context");
    for (int type = -1; type < 100; type++)
        if (type != PAGEATTN_BF16)
            check_that(pageattn_context_has_fast(context, (pageattn_type)type) == 0,
                       "nothing but bf16 has fast arithmetic");
}

/* ---- Creating a context ---- */

typedef struct wrong_creation {
    const char *name;
    pageattn_status status;
    const char *message;
    poke pokes[MAX_POKES];
    const char *isa; /* the environment variable */
} wrong_creation;

#define WITH_EXECUTOR SET_POINTER(options.executor, &call.executor)
#define WITH_ALLOCATOR SET_POINTER(options.allocator, &call.allocator)

static const wrong_creation wrong_creations[] = {
    {"options' struct_size 0", PAGEATTN_ERROR_STRUCT_SIZE,
     "options->struct_size = 0; this library (version *) knows *",
     .pokes = {SET(options.struct_size, 0)}},
    {"options' struct_size too large", PAGEATTN_ERROR_STRUCT_SIZE, "options->struct_size = *",
     .pokes = {SET(options.struct_size, sizeof(pageattn_context_options) + 1)}},
    {"isa 99", PAGEATTN_ERROR_ARGUMENT, "options->isa = 99 is not a value of pageattn_isa",
     .pokes = {SET(options.isa, 99)}},
    {"num_threads -1", PAGEATTN_ERROR_ARGUMENT,
     "options->num_threads = -1 is outside [1, 4096], or 0 for as many as this process may use",
     .pokes = {SET(options.num_threads, -1)}},
    {"num_threads 4097", PAGEATTN_ERROR_ARGUMENT,
     "options->num_threads = 4097 is outside [1, 4096], *",
     .pokes = {SET(options.num_threads, 4097)}},
    {"num_threads beside an executor", PAGEATTN_ERROR_ARGUMENT,
     "options->num_threads = 2; it must be 0 beside an executor, *",
     .pokes = {SET(options.num_threads, 2), WITH_EXECUTOR}},
    {"min_bytes_per_worker -1", PAGEATTN_ERROR_ARGUMENT,
     "options->min_bytes_per_worker = -1; it must be > 0, or 0 for the default of 262144",
     .pokes = {SET(options.min_bytes_per_worker, -1)}},
    {"spin_ns -1", PAGEATTN_ERROR_ARGUMENT, "options->spin_ns = -1; it must be >= 0",
     .pokes = {SET(options.spin_ns, -1)}},
    {"executor's struct_size 0", PAGEATTN_ERROR_STRUCT_SIZE,
     "options->executor->struct_size = 0; *",
     .pokes = {WITH_EXECUTOR, SET(executor.struct_size, 0)}},
    {"executor without parallel_for", PAGEATTN_ERROR_ARGUMENT,
     "options->executor->parallel_for is NULL",
     .pokes = {WITH_EXECUTOR, SET_POINTER(executor.parallel_for, NULL)}},
    {"executor of 0 workers", PAGEATTN_ERROR_ARGUMENT,
     "options->executor->num_workers = 0 is outside [1, 4096]",
     .pokes = {WITH_EXECUTOR, SET(executor.num_workers, 0)}},
    {"executor of INT32_MAX workers", PAGEATTN_ERROR_ARGUMENT,
     "options->executor->num_workers = 2147483647 is outside [1, 4096]",
     .pokes = {WITH_EXECUTOR, SET(executor.num_workers, INT32_MAX)}},
    {"allocator's struct_size 8", PAGEATTN_ERROR_STRUCT_SIZE,
     "options->allocator->struct_size = 8; *",
     .pokes = {WITH_ALLOCATOR, SET(allocator.struct_size, 8)}},
    {"allocator without allocate", PAGEATTN_ERROR_ARGUMENT, "options->allocator->allocate is NULL",
     .pokes = {WITH_ALLOCATOR, SET_POINTER(allocator.allocate, NULL)}},
    {"allocator without deallocate", PAGEATTN_ERROR_ARGUMENT,
     "options->allocator->deallocate is NULL",
     .pokes = {WITH_ALLOCATOR, SET_POINTER(allocator.deallocate, NULL)}},
    {"PAGEATTN_ISA names nothing", PAGEATTN_ERROR_ISA,
     "the environment variable PAGEATTN_ISA is \"sse9\", which names no instruction set; "
     "available: scalar*, or auto for the best of them",
     .isa = "sse9"},
    {"PAGEATTN_ISA in capitals", PAGEATTN_ERROR_ISA,
     "the environment variable PAGEATTN_ISA is \"SCALAR\", *", .isa = "SCALAR"},
};

static void test_wrong_creation(const wrong_creation *wrong)
{
    pageattn_context *created = context; /* anything but NULL */
    pageattn_error error;
    reset();
    apply(wrong->pokes);
    remember();
    if (wrong->isa != NULL)
        setenv("PAGEATTN_ISA", wrong->isa, 1);
    const pageattn_status status = pageattn_context_create(&call.options, &created, &error);
    const pageattn_status silent = pageattn_context_create(&call.options, &created, NULL);
    unsetenv("PAGEATTN_ISA");
    if (created != NULL || silent != wrong->status)
        check_failed(wrong->name, "a context that should not be, or another status");
    else if (!unchanged())
        check_failed(wrong->name, "wrote to the options");
    else
        expect(wrong->name, status, wrong->status, &error, wrong->message);
}

/* By the options where `by_name` is 0, else by the environment variable. */
static void test_isa(pageattn_isa isa, int by_name)
{
    const char *name = pageattn_isa_name(isa);
    char title[64];
    pageattn_context *created;
    pageattn_error error;
    snprintf(title, sizeof(title), "%s by %s", name, by_name ? "PAGEATTN_ISA" : "options");
    reset();
    if (by_name)
        setenv("PAGEATTN_ISA", name, 1);
    else
        call.options.isa = isa;
    const pageattn_status status = pageattn_context_create(&call.options, &created, &error);
    unsetenv("PAGEATTN_ISA");
    if (!pageattn_isa_available(isa)) {
        expect(title, status, PAGEATTN_ERROR_ISA, &error, "* lacks; available: scalar*");
        return;
    }
    if (status != PAGEATTN_OK || pageattn_context_isa(created) != isa)
        check_failed(title, "not obeyed: %s", error.message);
    else if (right_call_succeeds(title, created))
        check_passed(title);
    pageattn_context_destroy(created);
}

static void test_creations(void)
{
    for (size_t i = 0; i < sizeof(wrong_creations) / sizeof(*wrong_creations); i++)
        test_wrong_creation(&wrong_creations[i]);
    for (int isa = PAGEATTN_ISA_SCALAR; pageattn_isa_name((pageattn_isa)isa) != NULL; isa++) {
        test_isa((pageattn_isa)isa, 0);
        test_isa((pageattn_isa)isa, 1);
    }
    check_that(pageattn_isa_available(PAGEATTN_ISA_SCALAR) == 1, "scalar is always available");
    check_that(pageattn_isa_available(PAGEATTN_ISA_AUTO) == 0 &&
                   pageattn_isa_available((pageattn_isa)99) == 0,
               "auto and 99 are no instruction sets");
}

/* ---- Odd but right calls ---- */

static void no_sequences(void)
{
    for (pageattn_tensor *tensor = &call.args.query; tensor <= &call.args.lse; tensor++)
        tensor->data = NULL;
    call.args.query.shape[0] = call.args.context_lens.shape[0] = 0;
    call.args.block_tables.shape[0] = call.args.out.shape[0] = call.args.lse.shape[0] = 0;
    call.args.key_cache.shape[1] = call.args.value_cache.shape[1] = 0;
}

static void no_blocks(void)
{
    memset(call.lens, 0, sizeof(call.lens));
    call.args.block_tables.shape[1] = 0;
    call.args.block_tables.data = NULL;
}

static void no_pages(void)
{
    memset(call.lens, 0, sizeof(call.lens));
    call.args.key_cache.shape[1] = call.args.value_cache.shape[1] = 0;
    call.args.key_cache.data = call.args.value_cache.data = NULL;
}

static void wild_padding(void)
{
    static const int32_t wild[] = {-1, INT32_MAX, INT32_MIN, NUM_PAGES};
    for (int seq = 0; seq < NUM_SEQS; seq++) {
        for (int block = 0; block < MAX_BLOCKS; block++) {
            if (block * PAGE_SIZE >= call.lens[seq])
                call.tables[seq][block] = wild[(seq + block) % 4];
        }
    }
}

static void freed_pages_before_window(void)
{
    call.args.sliding_window = 5;
    call.tables[0][0] = -1;
    call.tables[0][1] = INT32_MAX;
    call.tables[0][2] = NUM_PAGES;
    call.tables[3][0] = INT32_MIN;
    call.tables[3][1] = -7;
}

static void freed_pages_hardest_mask(void)
{
    freed_pages_before_window();
    call.args.mask_value = -AN_INF;
}

static void freed_pages_barely_hard_mask(void)
{
    freed_pages_before_window();
    call.args.mask_value = PAGEATTN_HARD_MASK_VALUE;
}

static void soft_mask(void)
{
    call.args.sliding_window = 5;
    call.args.mask_value = -1.5f;
}

static void wide_window(void)
{
    call.args.sliding_window = INT32_MAX;
}

static void soft_cap(void)
{
    call.args.attn_logits_soft_cap = 0.75f;
}

static void negative_strides(void)
{
    pageattn_args *args = &call.args;
    args->query.data = call.query + (NUM_SEQS - 1) * NUM_HEADS * HEAD_DIM;
    args->query.stride[0] = -NUM_HEADS * HEAD_DIM;
    args->context_lens.data = &call.lens[NUM_SEQS - 1];
    args->context_lens.stride[0] = -1;
    args->block_tables.data = call.tables[NUM_SEQS - 1];
    args->block_tables.stride[0] = -MAX_BLOCKS;
    args->key_cache.data = call.keys + (NUM_PAGES - 1) * PAGE_SIZE * HEAD_DIM;
    args->key_cache.stride[1] = -PAGE_SIZE * HEAD_DIM;
    args->out.data = call.out + NUM_OUT - NUM_HEADS * VALUE_HEAD_DIM;
    args->out.stride[0] = -NUM_HEADS * VALUE_HEAD_DIM;
    args->lse.data = call.lse + NUM_HEADS - 1;
    args->lse.stride[1] = -1;
}

static void zero_strides(void)
{
    call.args.query.stride[0] = 0;
    call.args.key_cache.stride[1] = 0;
    call.args.value_cache.stride[0] = 0;
    call.args.context_lens.stride[0] = 0;
    call.args.block_tables.stride[0] = 0;
}

static void heads_outside_sequences(void)
{
    call.args.out.stride[1] = NUM_SEQS * VALUE_HEAD_DIM;
    call.args.out.stride[0] = VALUE_HEAD_DIM;
    call.args.lse.stride[1] = NUM_SEQS;
    call.args.lse.stride[0] = 1;
}

static void one_cache(void)
{
    call.args.value_cache = call.args.key_cache;
    call.args.value_cache.shape[3] = VALUE_HEAD_DIM;
}

static void query_in_the_cache(void)
{
    call.args.query.data = call.keys;
}

static void one_huge_stride(void)
{
    call.args.query.shape[0] = call.args.context_lens.shape[0] = 1;
    call.args.block_tables.shape[0] = call.args.out.shape[0] = call.args.lse.shape[0] = 1;
    call.args.query.stride[0] = call.args.out.stride[0] = INT64_MAX;
    call.args.context_lens.stride[0] = call.args.lse.stride[0] = INT64_MIN;
    call.args.block_tables.stride[0] = INT64_MAX;
}

static void no_lse(void)
{
    call.args.lse = (pageattn_tensor){.data = (void *)1, .rank = 99};
}

static void garbage_past_rank(void)
{
    call.args.query.shape[3] = -1;
    call.args.context_lens.shape[1] = INT64_MIN;
    call.args.context_lens.stride[3] = INT64_MAX;
}

static void exact_max_context_len(void)
{
    call.args.max_context_len = 20;
}

static void generous_max_context_len(void)
{
    call.args.max_context_len = INT64_MAX;
}

static void lent_scratch(void)
{
    call.args.scratch = call.scratch;
    call.args.scratch_bytes = sizeof(call.scratch);
}

static void exactly_enough_scratch(void)
{
    call.args.scratch = call.scratch;
    pageattn_scratch_bytes(context, &call.args, &call.args.scratch_bytes, NULL);
}

static void one_launch_a_sequence(void)
{
    call.args.inline_seq_dim = 0;
}

static void extreme_steering(void)
{
    call.args.num_splits = INT32_MAX;
    call.args.pages_per_compute_block = INT32_MAX;
    call.args.megacore_mode = PAGEATTN_MEGACORE_BATCH;
}

static const struct {
    const char *name;
    void (*change)(void);
} odd_calls[] = {
    {"no sequences, all NULL", no_sequences},
    {"no blocks, all contexts empty", no_blocks},
    {"no pages, all contexts empty", no_pages},
    {"wild padding of the block table", wild_padding},
    {"freed pages before the window", freed_pages_before_window},
    {"freed pages before the window, mask -inf", freed_pages_hardest_mask},
    {"freed pages before the window, mask -1e9", freed_pages_barely_hard_mask},
    {"soft mask", soft_mask},
    {"window of INT32_MAX", wide_window},
    {"soft cap", soft_cap},
    {"negative strides", negative_strides},
    {"zero strides", zero_strides},
    {"heads outside sequences in out and lse", heads_outside_sequences},
    {"keys and values in one buffer", one_cache},
    {"query inside key_cache", query_in_the_cache},
    {"huge strides of axes of size 1", one_huge_stride},
    {"no lse, its other fields garbage", no_lse},
    {"garbage past the rank", garbage_past_rank},
    {"max_context_len just enough", exact_max_context_len},
    {"max_context_len INT64_MAX", generous_max_context_len},
    {"lent scratch", lent_scratch},
    {"lent scratch, to the byte", exactly_enough_scratch},
    {"one launch a sequence", one_launch_a_sequence},
    {"extreme num_splits and pages_per_compute_block", extreme_steering},
};

static void test_odd_calls(void)
{
    for (size_t i = 0; i < sizeof(odd_calls) / sizeof(*odd_calls); i++) {
        reset();
        odd_calls[i].change();
        if (succeeds(odd_calls[i].name, context))
            check_passed(odd_calls[i].name);
    }
}

/* The size must not depend on values, and pointers must not be followed. */
static void test_scratch_bytes_is_blind(void)
{
    size_t seeing = 0, blind = 0;
    reset();
    pageattn_scratch_bytes(context, &call.args, &seeing, NULL);
    for (pageattn_tensor *tensor = &call.args.query; tensor <= &call.args.lse; tensor++)
        tensor->data = (void *)1;
    const pageattn_status status = pageattn_scratch_bytes(context, &call.args, &blind, NULL);
    check_that(status == PAGEATTN_OK && seeing == blind && seeing > 0,
               "scratch_bytes follows no pointer");
}

/* ---- Descriptions ---- */

static void test_names(void)
{
    for (int status = PAGEATTN_OK; status <= PAGEATTN_ERROR_EXECUTOR; status++) {
        if (strcmp(pageattn_status_name((pageattn_status)status),
                   pageattn_status_name((pageattn_status)99)) == 0)
            check_failed("status names", "status %d has none", status);
    }
    check_that(pageattn_status_name((pageattn_status)-1) != NULL, "a name for an unknown status");
    check_that(pageattn_isa_name((pageattn_isa)99) == NULL, "no name for an unknown isa");

    char version[32];
    snprintf(version, sizeof(version), "%d.%d.%d", PAGEATTN_VERSION_MAJOR, PAGEATTN_VERSION_MINOR,
             PAGEATTN_VERSION_PATCH);
    check_that(strcmp(version, pageattn_version()) == 0, "version");
    check_that(pageattn_version_number() == PAGEATTN_VERSION_MAJOR * 1000000 +
                                                PAGEATTN_VERSION_MINOR * 1000 +
                                                PAGEATTN_VERSION_PATCH,
               "version number");
}

static int has_strides(pageattn_tensor cache, int64_t heads, int64_t pages, int64_t slots)
{
    return cache.rank == 4 && cache.shape[0] == 2 && cache.shape[1] == 3 && cache.shape[2] == 5 &&
           cache.shape[3] == 7 && cache.stride[0] == heads && cache.stride[1] == pages &&
           cache.stride[2] == slots && cache.stride[3] == 1;
}

static void test_layouts(void)
{
    check_that(
        has_strides(pageattn_cache(NULL, PAGEATTN_F32, PAGEATTN_HND_PAGES, 2, 3, 5, 7), 105, 35, 7),
        "layout HND_PAGES");
    check_that(
        has_strides(pageattn_cache(NULL, PAGEATTN_F32, PAGEATTN_PAGES_HND, 2, 3, 5, 7), 35, 70, 7),
        "layout PAGES_HND");
    check_that(
        has_strides(pageattn_cache(NULL, PAGEATTN_F32, PAGEATTN_PAGES_NHD, 2, 3, 5, 7), 7, 70, 14),
        "layout PAGES_NHD");
}

/* ---- A context in use ---- */

typedef struct intruder {
    pageattn_context *context;
    pageattn_status status;
    int came;
    int wrote;
} intruder;

/* Calls the context from inside a call on it. */
static void intrude(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    intruder *self = opaque;
    remember();
    self->came = 1;
    self->status = pageattn_attend(self->context, &call.args, NULL);
    self->wrote = !unchanged();
    for (int64_t i = num_tasks; i-- > 0;)
        task(arg, i);
}

static pageattn_context *context_of(pageattn_executor executor)
{
    pageattn_context_options options;
    pageattn_context *created = NULL;
    pageattn_error error;
    pageattn_context_options_init(&options);
    options.executor = &executor;
    options.min_bytes_per_worker = 1; /* so that this small call is worth two workers */
    if (pageattn_context_create(&options, &created, &error) != PAGEATTN_OK) {
        check_failed("a context on an executor", "%s", error.message);
        exit(check_finish());
    }
    return created;
}

static void test_busy(void)
{
    intruder self = {0};
    pageattn_executor executor = {sizeof(executor), &self, 2, intrude};
    self.context = context_of(executor);
    const int right = right_call_succeeds("a context in use", self.context);
    if (right && check_that(self.came, "a small call runs in parallel")) {
        check_that(self.status == PAGEATTN_ERROR_BUSY, "a second call on a context in use");
        check_that(!self.wrote, "a call on a context in use writes nothing");
        check_that(right_call_succeeds("free again", self.context), "a context is free again");
    }
    pageattn_context_destroy(self.context);
}

/* ---- Executors that break their promise ---- */

static void run_nothing(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque, (void)num_tasks, (void)task, (void)arg;
}

static void run_all_but_last(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = 0; i + 1 < num_tasks; i++)
        task(arg, i);
}

static void run_first_twice(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    run_in_order(opaque, num_tasks, task, arg);
    task(arg, 0);
}

static void run_one_too_many(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    run_in_order(opaque, num_tasks + 1, task, arg);
}

static void test_broken_executor(const char *name,
                                 void (*parallel_for)(void *, int64_t, pageattn_task, void *))
{
    pageattn_executor executor = {sizeof(executor), NULL, 2, parallel_for};
    pageattn_context *created = context_of(executor);
    pageattn_error error = {0};
    reset();
    remember();
    const pageattn_status status = pageattn_attend(created, &call.args, &error);
    if (!guards_intact() || !inputs_intact())
        check_failed(name, "wrote outside of out and lse");
    else
        expect(name, status, PAGEATTN_ERROR_EXECUTOR, &error, "the executor's parallel_for *");
    pageattn_context_destroy(created);
}

/* ---- Memory ---- */

/* Sizes for which a context's scratch must grow. */
static void set_small_call(void)
{
    reset();
    call.args.max_context_len = 0;
    memset(call.lens, 0, sizeof(call.lens));
    one_huge_stride();
}

static pageattn_context *context_in(ledger *book, pageattn_error *error)
{
    pageattn_context_options options;
    const pageattn_allocator allocator = ledger_allocator(book);
    pageattn_context *created = context;
    pageattn_context_options_init(&options);
    options.allocator = &allocator;
    options.num_threads = 2;
    options.min_bytes_per_worker = 1;
    const pageattn_status status = pageattn_context_create(&options, &created, error);
    if ((status == PAGEATTN_OK) != (created != NULL))
        check_failed("creation under failing allocations", "status and context disagree");
    return created;
}

static int refused_for_memory(const char *name, pageattn_context *on)
{
    pageattn_error error;
    remember();
    const pageattn_status status = pageattn_attend(on, &call.args, &error);
    if (status == PAGEATTN_OK)
        return 0;
    if (status != PAGEATTN_ERROR_MEMORY || !matches("out of memory for *", error.message))
        check_failed(name, "%s: %s", pageattn_status_name(status), error.message);
    else if (!unchanged())
        check_failed(name, "wrote something");
    return 1;
}

/* Creates a context, makes a small call and a large one, with the n-th allocation failing. Returns
 * whether any failed. */
static int live_with_failure(const char *name, ledger *book)
{
    pageattn_error error;
    pageattn_context *created = context_in(book, &error);
    if (created == NULL) {
        if (error.status != PAGEATTN_ERROR_MEMORY)
            check_failed(name, "%s", error.message);
        return 1;
    }
    set_small_call();
    int failed = refused_for_memory(name, created);
    reset();
    failed |= refused_for_memory(name, created);
    book->fail_at = 0;
    right_call_succeeds(name, created);
    pageattn_context_destroy(created);
    return failed;
}

static void test_failing_allocations(void)
{
    int failed = 1;
    for (long n = 1; failed && n <= 100; n++) {
        char name[64];
        ledger book = {.fail_at = n};
        snprintf(name, sizeof(name), "allocation %ld fails", n);
        failed = live_with_failure(name, &book);
        if (book.bytes_held != 0)
            check_failed(name, "%lld bytes leaked", (long long)book.bytes_held);
        else
            check_passed(name);
        if (!failed)
            check_that(n > 3, "allocations failed for context, pool and scratch at least");
    }
}

/* A growing scratch that can't grow leaves the old one in use. */
static void test_failing_growth(void)
{
    ledger book = {0};
    pageattn_context *created = context_in(&book, NULL);
    set_small_call();
    if (created != NULL && succeeds("small call", created)) {
        const int64_t held = book.bytes_held;
        const long before = book.num_allocations;
        book.fail_at = before + 1;
        reset();
        check_that(refused_for_memory("scratch that can't grow", created) &&
                       book.bytes_held == held && book.num_allocations == before + 1,
                   "scratch that can't grow");
        set_small_call();
        check_that(succeeds("small call again", created) && book.num_allocations == before + 1,
                   "the old scratch still serves");
    }
    pageattn_context_destroy(created);
    check_that(book.bytes_held == 0, "nothing leaks after a failed growth");
}

static void vary_call(int round)
{
    reset();
    call.lens[0] = round % 20;
    call.args.sliding_window = round % 7;
    call.args.num_splits = round % 3;
    if (round % 5 == 4)
        call.args.inline_seq_dim = 0;
}

static void test_warm_calls_allocate_nothing(void)
{
    ledger book = {0};
    pageattn_context *created = context_in(&book, NULL);
    int num_wrong = 0;
    right_call_succeeds("warm-up", created);
    call.args.inline_seq_dim = 0;
    num_wrong += pageattn_attend(created, &call.args, NULL) != PAGEATTN_OK;
    const long before = book.num_allocations, libc_before = num_libc_allocations;
    for (int round = 0; round < 100; round++) {
        vary_call(round);
        num_wrong += pageattn_attend(created, &call.args, NULL) != PAGEATTN_OK;
        call.tables[2][1] = -1;
        num_wrong += pageattn_attend(created, &call.args, NULL) != PAGEATTN_ERROR_BLOCK_TABLE;
    }
    check_that(num_wrong == 0, "calls on a warm context");
    check_that(book.num_allocations == before, "a warm context asks its allocator for nothing");
    check_that(num_libc_allocations == libc_before, "a warm context asks libc for nothing");
    pageattn_context_destroy(created);
    check_that(libc_before > 0, "allocations are counted at all");
    check_that(book.bytes_held == 0, "a warm context leaks nothing");
}

/* Threads start at the first parallel launch, which under inline_seq_dim = 0 need not be the call's
 * first launch: the empty sequence before it must not be written. */
static void test_failing_threads(const char *name, int32_t inline_seq_dim)
{
    ledger book = {0};
    pageattn_error error = {0};
    pageattn_context *created = context_in(&book, NULL);
    reset();
    call.lens[0] = 0;
    call.args.inline_seq_dim = inline_seq_dim;
    remember();
    threads_fail = 1;
    const pageattn_status status = pageattn_attend(created, &call.args, &error);
    threads_fail = 0;
    if (status != PAGEATTN_ERROR_THREAD || error.message[0] == '\0')
        check_failed(name, "returned \"%s\" (%s)", pageattn_status_name(status), error.message);
    else if (!unchanged())
        check_failed(name, "wrote something");
    else if (succeeds(name, created))
        check_passed(name);
    pageattn_context_destroy(created);
}

int main(int argc, char **argv)
{
    pageattn_error error;
    check_start(argc, argv);
    unsetenv("PAGEATTN_ISA");
    if (pageattn_context_create(NULL, &context, &error) != PAGEATTN_OK) {
        check_failed("a context of defaults", "%s", error.message);
        return check_finish();
    }
    check_that(right_call_succeeds("the right call", context), "the right call");

    const int by_all = BY_ATTEND | BY_REFERENCE | BY_SCRATCH_BYTES;
    TEST_WRONG_CALLS(wrong_structs, by_all);
    TEST_WRONG_CALLS(wrong_types, by_all);
    TEST_WRONG_CALLS(wrong_shapes, by_all);
    TEST_WRONG_CALLS(wrong_options, by_all);
    TEST_WRONG_CALLS(wrong_strides, by_all);
    TEST_WRONG_CALLS(wrong_memory, BY_ATTEND | BY_REFERENCE);
    TEST_WRONG_CALLS(wrong_values, BY_ATTEND | BY_REFERENCE);
    TEST_WRONG_CALLS(wrong_scratch_places, BY_ATTEND | BY_REFERENCE);
    TEST_WRONG_CALLS(wrong_scratch, BY_ATTEND);
    test_null_handles();
    test_creations();
    test_odd_calls();
    test_scratch_bytes_is_blind();
    test_names();
    test_layouts();
    test_busy();
    test_broken_executor("an executor that runs nothing", run_nothing);
    test_broken_executor("an executor that forgets a task", run_all_but_last);
    test_broken_executor("an executor that runs a task twice", run_first_twice);
    test_broken_executor("an executor that runs a task too many", run_one_too_many);
    test_failing_allocations();
    test_failing_growth();
    test_warm_calls_allocate_nothing();
    test_failing_threads("no thread can be started", 1);
    test_failing_threads("no thread can be started, one launch a sequence", 0);
    pageattn_context_destroy(context);
    return check_finish();
}
