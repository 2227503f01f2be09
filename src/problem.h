/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checked call. Everything here holds: sizes fit, strides were checked against overflow. The
 * planner and the kernels trust it. Only what the check found in context_lens and block_tables may
 * have changed since, so their values are brought into range again wherever they are read.
 * The product of a tensor's sizes and its element size fits a ptrdiff_t, even where a stride of 0
 * or a size of 0 makes the memory small; so does max_blocks * page_size.
 *
 * Sizes ending in _bytes are distances in bytes between neighbours along the named axis.
 */
#ifndef PAGEATTN_PROBLEM_H
#define PAGEATTN_PROBLEM_H

#include <pageattn/pageattn.h>

/* One side (keys or values) of the paged cache. */
typedef struct pageattn_side {
    const char *data;
    int64_t head_bytes; /* from one KV head to the next */
    int64_t page_bytes;
    int64_t slot_bytes; /* from one token of a page to the next */
    int64_t row_bytes;  /* what one token's row holds: head_dim elements */
} pageattn_side;

/* An int32 tensor of rank 1 or 2. */
typedef struct pageattn_index {
    const char *data;
    int64_t row_bytes;   /* from one sequence to the next */
    int64_t entry_bytes; /* from one logical page to the next; block_tables only */
} pageattn_index;

/* Rows of one output or of the query: [num_seqs, num_heads, head_dim or nothing]. */
typedef struct pageattn_rows {
    char *data; /* the query's is never written */
    int64_t seq_bytes;
    int64_t head_bytes;
    pageattn_type type;
} pageattn_rows;

typedef struct pageattn_problem {
    int64_t num_seqs;
    int64_t num_heads;
    int64_t num_kv_heads;
    int64_t group_size; /* query heads that share a KV head */
    int64_t head_dim;
    int64_t value_head_dim;
    int64_t page_size;
    int64_t num_pages;
    int64_t max_blocks;
    int64_t max_context_len; /* no context is longer; at most max_blocks * page_size */

    pageattn_type kv_type;
    pageattn_side keys;
    pageattn_side values;
    pageattn_index context_lens;
    pageattn_index block_tables;
    pageattn_rows query;
    pageattn_rows out;
    pageattn_rows lse; /* data NULL: not wanted */

    float attn_scale; /* the default already resolved */
    float soft_cap;   /* 0: none */
    float soft_mask;  /* added to the logits before the window; 0 under a hard mask */
    int64_t window;   /* tokens; 0: no window */
    pageattn_numerics numerics;
    int hard_mask; /* positions before the window are excluded, not attended to softly */

    int64_t num_splits;              /* 0: the planner decides */
    int64_t pages_per_compute_block; /* 0: the planner decides */
    pageattn_megacore_mode megacore_mode;
    int inline_seq_dim;
} pageattn_problem;

/* Read once: a compiler may read a plain object again after its value was judged. */
static inline int64_t pageattn_read_index(const char *entry)
{
    return __atomic_load_n((const int32_t *)(const void *)entry, __ATOMIC_RELAXED);
}

/* What stands in context_lens and block_tables at this moment, whatever it is. */
static inline int64_t pageattn_problem_stated_len(const pageattn_problem *problem, int64_t seq)
{
    return pageattn_read_index(problem->context_lens.data + seq * problem->context_lens.row_bytes);
}

static inline const char *pageattn_problem_entry(const pageattn_problem *problem, int64_t seq,
                                                 int64_t logical_page)
{
    return problem->block_tables.data + seq * problem->block_tables.row_bytes +
           logical_page * problem->block_tables.entry_bytes;
}

static inline int64_t pageattn_problem_stated_page(const pageattn_problem *problem, int64_t seq,
                                                   int64_t logical_page)
{
    return pageattn_read_index(pageattn_problem_entry(problem, seq, logical_page));
}

/* The same behind the check. Sets *changed, and gives a value that leads into the tensors, if what
 * stands there now would not have passed it. Without a page the check lets no token pass. */
static inline int64_t pageattn_problem_context_len(const pageattn_problem *problem, int64_t seq,
                                                   int *changed)
{
    const int64_t len = pageattn_problem_stated_len(problem, seq);
    const int64_t most = problem->num_pages > 0 ? problem->max_context_len : 0;
    if (len >= 0 && len <= most)
        return len;
    *changed = 1;
    return 0;
}

static inline int64_t pageattn_read_page(const char *entry, int64_t num_pages, int *changed)
{
    const int64_t page = pageattn_read_index(entry);
    if (__builtin_expect((uint64_t)page < (uint64_t)num_pages, 1))
        return page;
    *changed = 1;
    return 0;
}

static inline int64_t pageattn_problem_page(const pageattn_problem *problem, int64_t seq,
                                            int64_t logical_page, int *changed)
{
    return pageattn_read_page(pageattn_problem_entry(problem, seq, logical_page),
                              problem->num_pages, changed);
}

/* The first position that is attended to: everything before it is excluded and never read. */
static inline int64_t pageattn_problem_first_position(const pageattn_problem *problem,
                                                      int64_t context_len)
{
    if (!problem->hard_mask || problem->window == 0 || problem->window >= context_len)
        return 0;
    return context_len - problem->window;
}

#endif
