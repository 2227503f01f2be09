/* SPDX-License-Identifier: Apache-2.0 */
/*
 * pageattn: paged grouped-query attention on CPUs.
 *
 * The shortest use:
 *
 *     pageattn_context *context;
 *     pageattn_context_create(NULL, &context, NULL);
 *
 *     pageattn_args args;
 *     pageattn_args_init(&args);
 *     args.query        = pageattn_tensor_3d(query, PAGEATTN_F32, num_seqs, num_heads, head_dim);
 *     args.key_cache    = pageattn_cache(keys, PAGEATTN_BF16, PAGEATTN_HND_PAGES,
 *                                        num_kv_heads, num_pages, page_size, head_dim);
 *     args.value_cache  = pageattn_cache(values, PAGEATTN_BF16, PAGEATTN_HND_PAGES,
 *                                        num_kv_heads, num_pages, page_size, head_dim);
 *     args.context_lens = pageattn_tensor_1d(lens, PAGEATTN_I32, num_seqs);
 *     args.block_tables = pageattn_tensor_2d(tables, PAGEATTN_I32, num_seqs, max_blocks);
 *     args.out          = pageattn_tensor_3d(out, PAGEATTN_F32, num_seqs, num_heads, head_dim);
 *
 *     pageattn_error error;
 *     if (pageattn_attend(context, &args, &error) != PAGEATTN_OK)
 *         fprintf(stderr, "%s\n", error.message);
 *
 *     pageattn_context_destroy(context);
 *
 * What it promises:
 *   - The same inputs give the same bits, whatever the instruction set, the number of threads, the
 *     split of the work, the page size, the layout, the other sequences of the batch, the padding
 *     of the block table and the content of unused slots. docs/numerics.md defines the arithmetic.
 *     (PAGEATTN_NUMERICS_FAST, for those who ask for it, gives up the instruction set only.)
 *   - No argument, however wrong, makes it read or write outside the tensors, also not if another
 *     thread changes context_lens or block_tables during the call. A wrong call returns a status
 *     and a message, and has written nothing to `out` and `lse`.
 *   - It never prints, aborts, exits, throws, or raises a signal.
 *
 * The header compiles as C99 and later and as C++11 and later. It is in the order in which one
 * needs it: the call, the context, memory, the reference, versions.
 */
#ifndef PAGEATTN_PAGEATTN_H
#define PAGEATTN_PAGEATTN_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PAGEATTN_VERSION_MAJOR 0
#define PAGEATTN_VERSION_MINOR 1
#define PAGEATTN_VERSION_PATCH 0

#if defined(PAGEATTN_STATIC)
#define PAGEATTN_API
#else
#define PAGEATTN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---------------------------------------------------------------------------------------------
 * Errors
 * ------------------------------------------------------------------------------------------- */

typedef enum pageattn_status {
    PAGEATTN_OK = 0,
    PAGEATTN_ERROR_ARGUMENT = 1,    /* a null pointer; an option or enum value outside its range */
    PAGEATTN_ERROR_STRUCT_SIZE = 2, /* struct_size is not one that this library knows */
    PAGEATTN_ERROR_TYPE = 3,        /* an element type that is not allowed at this place */
    PAGEATTN_ERROR_SHAPE = 4,       /* a rank or size that does not fit the others */
    PAGEATTN_ERROR_STRIDE = 5,      /* head_dim is not contiguous, or an output overlaps itself */
    PAGEATTN_ERROR_ALIGNMENT = 6,   /* a pointer is not a multiple of its element's size */
    PAGEATTN_ERROR_OVERFLOW = 7,    /* sizes or offsets that an address cannot hold */
    PAGEATTN_ERROR_OVERLAP = 8,     /* an output shares memory with another tensor or the scratch */
    PAGEATTN_ERROR_CONTEXT_LEN = 9, /* an entry of context_lens is outside its range */
    PAGEATTN_ERROR_BLOCK_TABLE = 10, /* an entry of block_tables is outside [0, num_pages) */
    PAGEATTN_ERROR_SCRATCH = 11,     /* the lent scratch is too small or misaligned */
    PAGEATTN_ERROR_ISA = 12,         /* an instruction set that this build or CPU lacks */
    PAGEATTN_ERROR_MEMORY = 13,      /* out of memory */
    PAGEATTN_ERROR_THREAD = 14,      /* a worker thread could not be created */
    PAGEATTN_ERROR_BUSY = 15,        /* the context is in use by another call */
    PAGEATTN_ERROR_EXECUTOR = 16,    /* the caller's executor did not run every task once */
    PAGEATTN_ERROR_CHANGED = 17,     /* context_lens or block_tables became wrong during the call */
} pageattn_status;

/* Filled by every call that takes one; the pointer may always be NULL. The message names the
 * argument, the index, the value and the allowed range, ends with a NUL, and is empty on success.
 */
typedef struct pageattn_error {
    pageattn_status status;
    char message[508];
} pageattn_error;

/* A short name of the status ("block table", ...); never NULL, also for unknown values. */
PAGEATTN_API const char *pageattn_status_name(pageattn_status status);

/* ---------------------------------------------------------------------------------------------
 * Tensors
 * ------------------------------------------------------------------------------------------- */

typedef enum pageattn_type {
    PAGEATTN_NO_TYPE = 0,
    PAGEATTN_F32 = 1,  /* IEEE-754 binary32 */
    PAGEATTN_BF16 = 2, /* the upper half of a binary32 */
    PAGEATTN_F16 = 3,  /* IEEE-754 binary16 */
    PAGEATTN_I32 = 4,  /* int32_t: context_lens and block_tables */
} pageattn_type;

#define PAGEATTN_MAX_RANK 4

/* A view of the caller's memory; it owns nothing. Strides count elements, and may be zero (inputs
 * only) or negative; `data` points at element [0, 0, ...]. Entries of shape and stride at and past
 * `rank` are ignored. `data` may be NULL when a size is 0. Inputs are never written. */
typedef struct pageattn_tensor {
    void *data;
    pageattn_type type;
    int32_t rank;
    int64_t shape[PAGEATTN_MAX_RANK];
    int64_t stride[PAGEATTN_MAX_RANK];
} pageattn_tensor;

/* Contiguous tensors, the last axis fastest. A product that does not fit becomes a stride that
 * the call then refuses with PAGEATTN_ERROR_OVERFLOW. */
PAGEATTN_API pageattn_tensor pageattn_tensor_1d(void *data, pageattn_type type, int64_t size0);
PAGEATTN_API pageattn_tensor pageattn_tensor_2d(void *data, pageattn_type type, int64_t size0,
                                                int64_t size1);
PAGEATTN_API pageattn_tensor pageattn_tensor_3d(void *data, pageattn_type type, int64_t size0,
                                                int64_t size1, int64_t size2);

/* How a contiguous paged cache lies in memory, the slowest axis first. */
typedef enum pageattn_kv_layout {
    PAGEATTN_HND_PAGES = 0, /* [kv_heads, pages, page_size, head_dim]: JAX, ejkernel */
    PAGEATTN_PAGES_HND = 1, /* [pages, kv_heads, page_size, head_dim]: FlashInfer's "HND" */
    PAGEATTN_PAGES_NHD = 2, /* [pages, page_size, kv_heads, head_dim]: vLLM, FlashInfer's "NHD" */
} pageattn_kv_layout;

/* A contiguous cache of the given layout as a tensor whose axes are always in the order
 * [kv_heads, pages, page_size, head_dim]: only the strides differ between layouts. An unknown
 * layout gives a tensor of rank 0, which the call then refuses. */
PAGEATTN_API pageattn_tensor pageattn_cache(void *data, pageattn_type type,
                                            pageattn_kv_layout layout, int64_t num_kv_heads,
                                            int64_t num_pages, int64_t page_size, int64_t head_dim);

/* ---------------------------------------------------------------------------------------------
 * The call
 * ------------------------------------------------------------------------------------------- */

/* Which half of the workers does what. Never changes the bits. */
typedef enum pageattn_megacore_mode {
    PAGEATTN_MEGACORE_NONE = 0,    /* the planner deals the work to all workers */
    PAGEATTN_MEGACORE_KV_HEAD = 1, /* each half owns half of the KV heads; their number is even */
    PAGEATTN_MEGACORE_BATCH = 2,   /* each half owns half of the sequences; their number is even */
} pageattn_megacore_mode;

/* The arithmetic. docs/numerics.md defines both. */
typedef enum pageattn_numerics {
    PAGEATTN_NUMERICS_EXACT = 0, /* the same bits on every CPU */
    /*
     * May use the CPU's dot products of bf16 pairs. It does so for bf16 caches in a context of
     * PAGEATTN_ISA_AVX512 on a CPU that has AVX-512 BF16; pageattn_context_has_fast tells. There
     * the query and the softmax weights are rounded to bf16, and subnormal numbers count as 0.
     * Everywhere else, and for other caches, it gives the bits of EXACT.
     *
     * Before it is rounded, out is off by at most (E + 2^-8) of the greatest |value|, where E is
     * the greatest error of a logit: 0 for a bf16 query, else what rounding the query makes of it.
     *
     * The bits still do not depend on threads, splits, page size, layout or the rest of the batch.
     * Between CPUs that have AVX-512 BF16 they should not differ, by that instruction's definition;
     * this has been tried on AMD Zen 4 only.
     */
    PAGEATTN_NUMERICS_FAST = 1,
} pageattn_numerics;

/* attn_scale of this value, which pageattn_args_init sets, stands for 1 / sqrt(head_dim). */
#define PAGEATTN_DEFAULT_ATTN_SCALE 3.402823466e+38f
/* -0.7 * FLT_MAX, which pageattn_args_init sets. */
#define PAGEATTN_DEFAULT_MASK_VALUE (-2.381976426e+38f)
/* A mask_value at or below this one excludes a position; above it, it is added to the logit. */
#define PAGEATTN_HARD_MASK_VALUE (-1e9f)

/*
 * One attention call: for each sequence one query token attends to its keys and values.
 *
 *     logit[t] = attn_scale * dot(query[s, h], key[t])          key[t], value[t]: token t of the
 *     logit[t] = cap * tanh(logit[t] / cap)     if cap > 0      sequence, for the KV head
 *     logit[t] = logit[t] + mask_value          if masked       h / (num_heads / num_kv_heads)
 *     out[s, h] = sum_t exp(logit[t] - lse[s, h]) * value[t]
 *     lse[s, h] = log(sum_t exp(logit[t]))
 *
 * Token t of sequence s is slot t % page_size of page block_tables[s][t / page_size].
 * Positions 0 <= t < context_lens[s] are attended to. With a sliding window those before
 * context_lens[s] - sliding_window are masked; under a hard mask (the default) they are excluded,
 * and their pages are neither looked up in the block table nor read.
 * A sequence of context length 0 gives out = 0 and lse = -infinity.
 * A NaN in the output is always the quiet NaN 0x7fc00000 (bf16 0x7fc0, f16 0x7e00).
 *
 * `out`, `lse` and a lent `scratch` must not share memory with each other or with an input: the
 * address ranges that they span must be disjoint. Inputs may alias each other freely.
 */
typedef struct pageattn_args {
    size_t struct_size; /* sizeof(pageattn_args); pageattn_args_init sets it */

    pageattn_tensor query;     /* [num_seqs, num_heads, head_dim], f32, bf16 or f16 */
    pageattn_tensor key_cache; /* [num_kv_heads, num_pages, page_size, head_dim], f32, bf16, f16 */
    pageattn_tensor value_cache;  /* [num_kv_heads, num_pages, page_size, value_head_dim], the
                                     type of key_cache */
    pageattn_tensor context_lens; /* [num_seqs], i32, each in [0, max_blocks * page_size] */
    pageattn_tensor block_tables; /* [num_seqs, max_blocks], i32; an entry that is needed is in
                                     [0, num_pages), the others are never looked at */
    pageattn_tensor out;          /* [num_seqs, num_heads, value_head_dim], f32, bf16 or f16 */
    pageattn_tensor lse; /* [num_seqs, num_heads], f32; type PAGEATTN_NO_TYPE: not wanted */

    /* Options with a meaning. The comment names the default. */
    float attn_scale;           /* finite; PAGEATTN_DEFAULT_ATTN_SCALE: 1 / sqrt(head_dim) */
    float attn_logits_soft_cap; /* finite, > 0; 0: no soft cap */
    float mask_value;           /* <= 0, -inf allowed; PAGEATTN_DEFAULT_MASK_VALUE */
    int32_t sliding_window;     /* tokens, >= 1; 0: no window */
    int64_t max_context_len;    /* upper bound of context_lens; a longer sequence is an error.
                                   -1: max_blocks * page_size. Sizes the scratch. */
    pageattn_numerics numerics; /* PAGEATTN_NUMERICS_EXACT */

    /* Options that steer the work and never change the bits. */
    int32_t num_splits;              /* pieces that a context is cut into; 0: the library decides */
    int32_t pages_per_compute_block; /* smallest piece, in pages; 0: the library decides */
    pageattn_megacore_mode megacore_mode; /* PAGEATTN_MEGACORE_NONE */
    int32_t inline_seq_dim; /* 1: all sequences in one launch; 0: one launch a sequence, which
                               needs scratch for one sequence only; 1 */

    /* Working memory lent by the caller: aligned to PAGEATTN_SCRATCH_ALIGNMENT and at least as
     * large as pageattn_scratch_bytes says. NULL: the context's own, which grows when needed. The
     * call trusts what it has put there: nothing else may write to it meanwhile. */
    void *scratch;
    size_t scratch_bytes;
} pageattn_args;

#define PAGEATTN_SCRATCH_ALIGNMENT 64

/* Sets struct_size and every default; the tensors are left without type. Inline, so that the size
 * is that of the header the caller compiled with. */
static inline void pageattn_args_init(pageattn_args *args)
{
    memset(args, 0, sizeof(*args));
    args->struct_size = sizeof(*args);
    args->attn_scale = PAGEATTN_DEFAULT_ATTN_SCALE;
    args->mask_value = PAGEATTN_DEFAULT_MASK_VALUE;
    args->max_context_len = -1;
    args->inline_seq_dim = 1;
}

typedef struct pageattn_context pageattn_context;

/*
 * Computes attention. Returns when `out` and `lse` are complete.
 *
 * Thread-safe over different contexts; a call on a context that is in use returns
 * PAGEATTN_ERROR_BUSY.
 *
 * `args` and the tensors must not change during the call. If something changes context_lens or
 * block_tables all the same, the call stays inside the tensors; what it writes to `out` and `lse`
 * is then unspecified. It returns PAGEATTN_ERROR_CHANGED if it met a length or a page that is out
 * of range; a change to another right value can't be noticed. Entries are judged where they are
 * used: with pages of 16 tokens this costs nothing that could be measured, with pages of one token
 * at most 2 % (docs/reliability.md).
 *
 * Errors: every status of this header but ISA. On each of them except EXECUTOR and CHANGED nothing
 * has been written to `out` and `lse`. After each of them the context can be used again.
 *
 * Memory is allocated only when a call needs more scratch than any call before it did, and threads
 * are started only when a call needs more of them than any before.
 */
PAGEATTN_API pageattn_status pageattn_attend(pageattn_context *context, const pageattn_args *args,
                                             pageattn_error *error);

/* The scratch that a call of these shapes, types and options needs on this context; it does not
 * depend on the values in any tensor, whose data pointers are not looked at. */
PAGEATTN_API pageattn_status pageattn_scratch_bytes(const pageattn_context *context,
                                                    const pageattn_args *args, size_t *bytes,
                                                    pageattn_error *error);

/* ---------------------------------------------------------------------------------------------
 * The context: instruction set, threads, memory
 * ------------------------------------------------------------------------------------------- */

typedef enum pageattn_isa {
    PAGEATTN_ISA_AUTO = 0, /* the environment variable PAGEATTN_ISA, else the best one available */
    PAGEATTN_ISA_SCALAR = 1,
    PAGEATTN_ISA_AVX2 = 2,   /* AVX2, FMA and F16C */
    PAGEATTN_ISA_AVX512 = 3, /* AVX-512 F, BW, DQ, VL, with FMA and F16C */
    PAGEATTN_ISA_NEON = 4,   /* Advanced SIMD of 64-bit Arm; every such CPU has it */
} pageattn_isa;

/* task(arg, index) for one index. */
typedef void (*pageattn_task)(void *arg, int64_t index);

/*
 * The caller's thread pool. parallel_for runs task(arg, i) exactly once for each i in
 * [0, num_tasks), and returns when all have returned. They may run in any order, on any threads,
 * the calling one included, on fewer than num_workers, or one after the other: no task waits for
 * another. parallel_for must not throw through the library and must not call it with the same
 * context.
 *
 * A task that was never run, was run twice (also at the same time), or whose index is out of range
 * makes the call return PAGEATTN_ERROR_EXECUTOR, and does no harm otherwise. A task that runs after
 * parallel_for has returned can't be noticed: it touches memory of a call that is over.
 */
typedef struct pageattn_executor {
    size_t struct_size;  /* sizeof(pageattn_executor) */
    void *context;       /* handed to parallel_for */
    int32_t num_workers; /* tasks that may run at the same time, in [1, PAGEATTN_MAX_THREADS] */
    void (*parallel_for)(void *context, int64_t num_tasks, pageattn_task task, void *arg);
} pageattn_executor;

#define PAGEATTN_MAX_THREADS 4096

/* The caller's memory. allocate returns `bytes` > 0 bytes at a multiple of `alignment`, a power
 * of two, or NULL; deallocate gets what allocate returned, with the same size. Called only from
 * inside a call on the context, on the calling thread. */
typedef struct pageattn_allocator {
    size_t struct_size; /* sizeof(pageattn_allocator) */
    void *context;      /* handed to both functions */
    void *(*allocate)(void *context, size_t bytes, size_t alignment);
    void (*deallocate)(void *context, void *pointer, size_t bytes);
} pageattn_allocator;

typedef struct pageattn_context_options {
    size_t struct_size; /* sizeof(pageattn_context_options) */
    pageattn_isa isa;

    /* Threads of the context's own pool, the calling thread included, in [1, PAGEATTN_MAX_THREADS].
     * 0: as many as this process may use, which is the smallest of the CPUs of its affinity mask,
     * the CPU quota of its control group rounded up, and the environment variable
     * PAGEATTN_NUM_THREADS. Must be 0 beside an executor. */
    int32_t num_threads;

    const pageattn_executor *executor;   /* copied; NULL: the context's own pool */
    const pageattn_allocator *allocator; /* copied; NULL: aligned_alloc and free */

    /* A call that reads fewer bytes of keys and values for each worker than this uses fewer
     * workers. > 0; 0: 256 KiB. */
    int64_t min_bytes_per_worker;

    /* How long an idle thread of the own pool watches for work before it sleeps. >= 0;
     * pageattn_context_options_init sets PAGEATTN_DEFAULT_SPIN_NS. */
    int64_t spin_ns;
} pageattn_context_options;

#define PAGEATTN_DEFAULT_SPIN_NS 20000

static inline void pageattn_context_options_init(pageattn_context_options *options)
{
    memset(options, 0, sizeof(*options));
    options->struct_size = sizeof(*options);
    options->spin_ns = PAGEATTN_DEFAULT_SPIN_NS;
}

/* Creates a context; `options` NULL: the defaults. No thread is started before the first call that
 * uses more than one. On an error *context is NULL.
 * Errors: ARGUMENT, STRUCT_SIZE, ISA, MEMORY. */
PAGEATTN_API pageattn_status pageattn_context_create(const pageattn_context_options *options,
                                                     pageattn_context **context,
                                                     pageattn_error *error);

/* Stops the threads and frees everything; NULL is fine. No call may be running on the context.
 *
 * Fork: a context may be used and destroyed in the child. If no call was running on it, it works
 * there, and starts threads of its own when it needs them; the parent's stay the parent's. If a
 * call was running on it on another thread, each call on it in the child returns
 * PAGEATTN_ERROR_BUSY: destroy it and create another. */
PAGEATTN_API void pageattn_context_destroy(pageattn_context *context);

/* 1 if PAGEATTN_NUMERICS_FAST has arithmetic of its own for caches of this type on this context,
 * else 0: it then gives the bits of PAGEATTN_NUMERICS_EXACT, at the same speed. */
PAGEATTN_API int pageattn_context_has_fast(const pageattn_context *context, pageattn_type kv_type);

/* The instruction set and the number of workers of a context. */
PAGEATTN_API pageattn_isa pageattn_context_isa(const pageattn_context *context);
PAGEATTN_API int32_t pageattn_context_num_threads(const pageattn_context *context);

/* ---------------------------------------------------------------------------------------------
 * Memory for caches
 * ------------------------------------------------------------------------------------------- */

/* Zeroed memory from the system, meant for a cache: where it is large, it starts at a multiple of
 * PAGEATTN_HUGE_PAGE_BYTES and huge pages are asked for, which the system may or may not give. A
 * cache may lie in any other memory too; in this one it was read a quarter faster
 * (docs/performance.md). NULL: out of memory, or `bytes` is 0. Thread-safe. */
PAGEATTN_API void *pageattn_cache_allocate(size_t bytes);

/* Gives it back; `bytes` is what it was allocated with. NULL is fine. Thread-safe. */
PAGEATTN_API void pageattn_cache_free(void *cache, size_t bytes);

#define PAGEATTN_HUGE_PAGE_BYTES 2097152

/* ---------------------------------------------------------------------------------------------
 * The reference
 * ------------------------------------------------------------------------------------------- */

/*
 * The plain definition above in binary64, without any speed: the oracle of the tests, for those who
 * want to check an answer. The same checks and errors as pageattn_attend; args->out and
 * args->lse only have to be valid, and are not written.
 *
 *     out  [num_seqs, num_heads, value_head_dim], contiguous
 *     lse  [num_seqs, num_heads], contiguous; may be NULL
 */
PAGEATTN_API pageattn_status pageattn_reference(const pageattn_args *args, double *out, double *lse,
                                                pageattn_error *error);

/* ---------------------------------------------------------------------------------------------
 * Versions and instruction sets
 * ------------------------------------------------------------------------------------------- */

/* Of the library that runs, as "0.1.0" and as major * 1000000 + minor * 1000 + patch. */
PAGEATTN_API const char *pageattn_version(void);
PAGEATTN_API int32_t pageattn_version_number(void);

/* "scalar", "avx2", "avx512", "neon"; "auto" for PAGEATTN_ISA_AUTO; NULL for an unknown value. */
PAGEATTN_API const char *pageattn_isa_name(pageattn_isa isa);

/* 1 if this build has the instruction set and this CPU can run it, else 0. */
PAGEATTN_API int pageattn_isa_available(pageattn_isa isa);

#ifdef __cplusplus
}
#endif

#endif
