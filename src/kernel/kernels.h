/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an instruction set offers: one const table of these for each, chosen once per context.
 * Nothing in here knows of pages, tensors or threads: a row is a pointer, a leaf a list of rows.
 */
#ifndef PAGEATTN_KERNEL_KERNELS_H
#define PAGEATTN_KERNEL_KERNELS_H

#include <float.h>
#include <pageattn/pageattn.h>

/* x87 computes in 80 bits, and gcc for s390x in 64 unless -fexcess-precision=fast tells it not to:
 * other bits than docs/numerics.md defines. */
_Static_assert(FLT_EVAL_METHOD == 0, "float arithmetic must be rounded to float at every step");
_Static_assert(sizeof(void *) == 8, "sizes and offsets of caches need 64-bit addresses");

#define PAGEATTN_LANES 16
#define PAGEATTN_LEAF_TOKENS 256

/* head_dim rounded up to whole lane groups: how many floats a row takes in scratch. */
static inline int64_t pageattn_padded(int64_t dim)
{
    return (dim + PAGEATTN_LANES - 1) / PAGEATTN_LANES * PAGEATTN_LANES;
}

/* head_dim rounded up to whole groups of 16 pairs: how many bf16 a query row of the fast kernels
 * takes, which is never more memory than pageattn_padded floats. */
static inline int64_t pageattn_padded_pairs(int64_t dim)
{
    return (dim + 2 * PAGEATTN_LANES - 1) / (2 * PAGEATTN_LANES) * (2 * PAGEATTN_LANES);
}

/*
 * The softmax state of some query heads over some positions: for each head the maximum logit m, the
 * sum l of exp(logit - m), and the vector o of values weighted so. One block of floats:
 * o[num_heads][pageattn_padded(value_head_dim)], then m[num_heads], then l[num_heads].
 */
static inline int64_t pageattn_state_floats(int64_t num_heads, int64_t value_head_dim)
{
    return pageattn_padded(num_heads * pageattn_padded(value_head_dim) + 2 * num_heads);
}

static inline float *pageattn_state_max(float *state, int64_t num_heads, int64_t value_head_dim)
{
    return state + num_heads * pageattn_padded(value_head_dim);
}

static inline float *pageattn_state_sum(float *state, int64_t num_heads, int64_t value_head_dim)
{
    return pageattn_state_max(state, num_heads, value_head_dim) + num_heads;
}

/*
 * One leaf of one sequence, for the query heads that share a KV head. Tokens count from the start
 * of the leaf; those in [begin, end) are attended to, and only they are read.
 *
 * `rows` is the stream in which memory is read: the keys of tokens begin rounded down to whole lane
 * groups up to end rounded up (those outside [begin, end) repeat an attended row), then the values
 * of [begin, end), then as many that will be read after this leaf as pageattn_prefetch_rows says of
 * pageattn_kernels.prefetch_bytes and a key's row or a value's, whichever is more; these are
 * prefetched only, never read. And one row more, that is not even prefetched.
 */
typedef struct pageattn_leaf {
    const char *const *rows;
    int64_t begin;
    int64_t end;
    int64_t soft_end; /* tokens before it get soft_mask added to their logits */
    float soft_mask;
    float soft_cap; /* 0: none */
    int64_t num_heads;
    int64_t head_dim;
    int64_t value_head_dim;
    const float *query; /* as scale_query wrote it */
    /* For fast kernels in place of `query`: as round_query wrote it; and the scale, which
     * multiplies the dot products. */
    const uint16_t *rounded_query;
    float attn_scale;
    float *logits; /* working memory, [num_heads][PAGEATTN_LEAF_TOKENS] */
} pageattn_leaf;

/* How many rows of row_bytes come within `bytes` of the stream: at least the block of 16 tokens
 * that is worked on, and at most what a stream has room for. */
#define PAGEATTN_MIN_PREFETCH_ROWS 16
#define PAGEATTN_MAX_PREFETCH_ROWS 192

static inline int64_t pageattn_prefetch_rows(int64_t bytes, int64_t row_bytes)
{
    const int64_t rows = bytes / row_bytes;
    if (rows < PAGEATTN_MIN_PREFETCH_ROWS)
        return PAGEATTN_MIN_PREFETCH_ROWS;
    return rows < PAGEATTN_MAX_PREFETCH_ROWS ? rows : PAGEATTN_MAX_PREFETCH_ROWS;
}

/* Runs of rows, each of which lie evenly. */
typedef struct pageattn_row_runs {
    const char *const *first; /* the first row of each run */
    int64_t num_rows;         /* of each run */
    int64_t step;             /* bytes from one row of a run to the next */
    int64_t skip;             /* rows of the first run that are left out; fewer than num_rows */
} pageattn_row_runs;

/* list_rows writes so many at once, and the stream has room for what it writes too much. */
#define PAGEATTN_ROWS_AT_ONCE 8
#define PAGEATTN_STREAM_ROWS                                                                       \
    (2 * PAGEATTN_LEAF_TOKENS + PAGEATTN_MAX_PREFETCH_ROWS + PAGEATTN_ROWS_AT_ONCE)

/* Tables by element type are indexed with pageattn_type; entry 0 is unused. */
#define PAGEATTN_NUM_FLOAT_TYPES (PAGEATTN_F16 + 1)

typedef struct pageattn_kernels {
    /* How far ahead they ask for rows, and the fast kernels beside them, in bytes of the stream. */
    int64_t prefetch_bytes;
    /* Lists the first `count` rows of the runs; writes up to PAGEATTN_ROWS_AT_ONCE - 1 more. */
    void (*list_rows)(const pageattn_row_runs *from, int64_t count, const char **rows);
    /* Puts row[i] * scale, and zeros up to the next lane group, where attend_leaf looks for this
     * head's row in query, which holds num_heads * pageattn_padded(head_dim) floats. */
    void (*scale_query[PAGEATTN_NUM_FLOAT_TYPES])(const void *row, int64_t head_dim, float scale,
                                                  int64_t head, int64_t num_heads, float *query);
    /* The state of one leaf; `state` is written whole. Indexed with the type of the cache. */
    void (*attend_leaf[PAGEATTN_NUM_FLOAT_TYPES])(const pageattn_leaf *leaf, float *state);
    /* left = left merged with its right neighbour. */
    void (*merge)(float *left, const float *right, int64_t num_heads, int64_t value_head_dim);
    /* Writes one head's output row, and its log-sum-exp unless lse is NULL. */
    void (*finish_row[PAGEATTN_NUM_FLOAT_TYPES])(const float *o, float max, float sum,
                                                 int64_t value_head_dim, void *row, float *lse);
} pageattn_kernels;

/* What PAGEATTN_NUMERICS_FAST computes otherwise, beside the table above. NULL where fast has no
 * arithmetic of its own for a type. */
typedef struct pageattn_fast_kernels {
    /* As scale_query, but the row is rounded to bf16, not scaled, and padded with zeros up to
     * pageattn_padded_pairs. Indexed with the type of the query. */
    void (*round_query[PAGEATTN_NUM_FLOAT_TYPES])(const void *row, int64_t head_dim, int64_t head,
                                                  int64_t num_heads, uint16_t *query);
    void (*attend_leaf[PAGEATTN_NUM_FLOAT_TYPES])(const pageattn_leaf *leaf, float *state);
} pageattn_fast_kernels;

/* Into which cache kernels ask for rows at first (prefetch.h). Bits do not depend on it. */
typedef enum pageattn_prefetch {
    PAGEATTN_PREFETCH_L2,
    PAGEATTN_PREFETCH_L1, /* a second compilation, which not every instruction set has */
    PAGEATTN_NUM_PREFETCHES
} pageattn_prefetch;

/* The table of an instruction set; NULL if this build or this CPU lacks it. */
const pageattn_kernels *pageattn_kernels_of(pageattn_isa isa, pageattn_prefetch prefetch);

/* The fast kernels that go with it; NULL if this build or this CPU has none. */
const pageattn_fast_kernels *pageattn_fast_kernels_of(pageattn_isa isa, pageattn_prefetch prefetch);

/* What this CPU does better with, of what this build has for the instruction set. */
pageattn_prefetch pageattn_best_prefetch(pageattn_isa isa);

/* The best instruction set that this build and this CPU have. */
pageattn_isa pageattn_best_isa(void);

#endif
