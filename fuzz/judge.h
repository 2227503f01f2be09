/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which calls are right: the rules of the public header a second time, in 128-bit arithmetic and
 * without regard for speed or for the order of the checks. Each function returns NULL, or what is
 * wrong.
 */
#ifndef FUZZ_JUDGE_H
#define FUZZ_JUDGE_H

#include <math.h>

#include <pageattn/pageattn.h>

__extension__ typedef __int128 judge_int;

enum { QUERY, KEYS, VALUES, LENS, TABLES, OUT, LSE, NUM_TENSORS };

static inline const pageattn_tensor *judge_tensor(const pageattn_args *args, int which)
{
    const pageattn_tensor *const tensors[] = {
        &args->query,        &args->key_cache, &args->value_cache, &args->context_lens,
        &args->block_tables, &args->out,       &args->lse};
    return tensors[which];
}

static inline int judge_rank(int which)
{
    static const int ranks[] = {3, 4, 4, 1, 2, 3, 2};
    return ranks[which];
}

static inline int judge_is_wanted(const pageattn_args *args, int which)
{
    return which != LSE || args->lse.type != PAGEATTN_NO_TYPE;
}

static inline judge_int judge_element(const pageattn_tensor *tensor)
{
    return tensor->type == PAGEATTN_F32 || tensor->type == PAGEATTN_I32 ? 4 : 2;
}

static inline int judge_is_empty(const pageattn_tensor *tensor)
{
    for (int axis = 0; axis < tensor->rank; axis++)
        if (tensor->shape[axis] == 0)
            return 1;
    return 0;
}

/* Bytes [*low, *high) around element 0 that hold every element. */
static inline void judge_span(const pageattn_tensor *tensor, judge_int *low, judge_int *high)
{
    *low = 0;
    *high = judge_element(tensor);
    for (int axis = 0; axis < tensor->rank; axis++) {
        if (tensor->shape[axis] <= 1)
            continue;
        /* Below 2^63 * 2^63 * 4 < 2^128: the sum of four may not fit, but it is over long before.
         */
        const judge_int steps = (judge_int)(tensor->shape[axis] - 1) * tensor->stride[axis];
        const judge_int limit = (judge_int)1 << 100;
        const judge_int reach = (steps > limit    ? limit
                                 : steps < -limit ? -limit
                                                  : steps) *
                                judge_element(tensor);
        *(reach < 0 ? low : high) += reach;
    }
}

/* ---- types and sizes ---- */

static inline const char *judge_types(const pageattn_args *args)
{
    for (int i = 0; i < NUM_TENSORS; i++) {
        const int type = (int)judge_tensor(args, i)->type;
        const int is_float = type == PAGEATTN_F32 || type == PAGEATTN_BF16 || type == PAGEATTN_F16;
        if (i == LENS || i == TABLES ? type != PAGEATTN_I32
            : i == LSE               ? type != PAGEATTN_F32 && type != PAGEATTN_NO_TYPE
                                     : !is_float)
            return "type";
    }
    return args->key_cache.type == args->value_cache.type ? NULL : "value type";
}

static inline const char *judge_shapes(const pageattn_args *args)
{
    for (int i = 0; i < NUM_TENSORS; i++)
        if (judge_is_wanted(args, i) && judge_tensor(args, i)->rank != judge_rank(i))
            return "rank";
    const int64_t *query = args->query.shape, *keys = args->key_cache.shape;
    const int64_t *values = args->value_cache.shape, *out = args->out.shape;
    const int64_t *tables = args->block_tables.shape;
    const int64_t seqs = query[0], heads = query[1];
    if (seqs < 0 || heads < 1 || query[2] < 1 || keys[0] < 1 || keys[1] < 0 || keys[2] < 1 ||
        values[3] < 1 || tables[1] < 0)
        return "size too small";
    if (keys[3] != query[2] || memcmp(values, keys, 3 * sizeof(*keys)) != 0 ||
        args->context_lens.shape[0] != seqs || tables[0] != seqs || out[0] != seqs ||
        out[1] != heads || out[2] != values[3])
        return "sizes differ";
    if (judge_is_wanted(args, LSE) && (args->lse.shape[0] != seqs || args->lse.shape[1] != heads))
        return "sizes of lse";
    if (heads % keys[0] != 0)
        return "group";
    return (judge_int)tables[1] * keys[2] > INT64_MAX ? "room" : NULL;
}

/* ---- options ---- */

static inline const char *judge_options(const pageattn_args *args)
{
    if (!isfinite(args->attn_scale) || !isfinite(args->attn_logits_soft_cap) ||
        args->attn_logits_soft_cap < 0 || !(args->mask_value <= 0))
        return "scale, cap or mask";
    if (args->sliding_window < 0 || args->num_splits < 0 || args->pages_per_compute_block < 0 ||
        args->max_context_len < -1)
        return "count";
    if (args->inline_seq_dim < 0 || args->inline_seq_dim > 1)
        return "inline_seq_dim";
    if (args->numerics != PAGEATTN_NUMERICS_EXACT && args->numerics != PAGEATTN_NUMERICS_FAST)
        return "numerics";
    switch (args->megacore_mode) {
    case PAGEATTN_MEGACORE_NONE:
        return NULL;
    case PAGEATTN_MEGACORE_KV_HEAD:
        return args->key_cache.shape[0] % 2 == 0 ? NULL : "odd kv heads";
    case PAGEATTN_MEGACORE_BATCH:
        return args->query.shape[0] % 2 == 0 ? NULL : "odd seqs";
    }
    return "megacore_mode";
}

/* ---- strides ---- */

/* Outputs: sorted by stride, each step passes over all that the faster axes span. */
static inline int judge_overlaps_itself(const pageattn_tensor *tensor)
{
    judge_int span = 1, last = 0;
    int64_t used = 0;
    for (int round = 0; round < tensor->rank; round++) {
        int next = -1;
        for (int axis = 0; axis < tensor->rank; axis++) {
            if (tensor->shape[axis] <= 1 || used & INT64_C(1) << axis)
                continue;
            const judge_int stride = tensor->stride[axis];
            if (next < 0 || (stride < 0 ? -stride : stride) < last) {
                next = axis;
                last = stride < 0 ? -stride : stride;
            }
        }
        if (next < 0)
            return 0;
        if (last < span)
            return 1;
        span += (tensor->shape[next] - 1) * last;
        used |= INT64_C(1) << next;
    }
    return 0;
}

static inline const char *judge_strides(const pageattn_args *args)
{
    for (int i = 0; i < NUM_TENSORS; i++) {
        const pageattn_tensor *tensor = judge_tensor(args, i);
        judge_int low, high, bytes = judge_element(tensor);
        if (!judge_is_wanted(args, i))
            continue;
        for (int axis = 0; axis < tensor->rank; axis++) {
            bytes *= tensor->shape[axis] > 1 ? tensor->shape[axis] : 1;
            if (bytes > PTRDIFF_MAX)
                return "too many elements";
        }
        judge_span(tensor, &low, &high);
        if (high - low > PTRDIFF_MAX)
            return "too wide";
        if (judge_is_empty(tensor))
            continue;
        const int last = tensor->rank - 1;
        if (i != LENS && i != TABLES && i != LSE && tensor->shape[last] > 1 &&
            tensor->stride[last] != 1)
            return "rows not contiguous";
        if ((i == OUT || i == LSE) && judge_overlaps_itself(tensor))
            return "overlaps itself";
    }
    return NULL;
}

/* All that needs no memory. */
static inline const char *judge_description(const pageattn_args *args)
{
    if (args->struct_size != sizeof(*args))
        return "struct_size";
    const char *wrong = judge_types(args);
    if (wrong == NULL)
        wrong = judge_shapes(args);
    if (wrong == NULL)
        wrong = judge_options(args);
    return wrong != NULL ? wrong : judge_strides(args);
}

/* ---- memory ---- */

/* A right description is assumed from here on. */
static inline const char *judge_memory(const pageattn_args *args)
{
    const judge_int memory_end = (judge_int)UINTPTR_MAX;
    judge_int begin[NUM_TENSORS + 1], end[NUM_TENSORS + 1];
    for (int i = 0; i < NUM_TENSORS; i++) {
        const pageattn_tensor *tensor = judge_tensor(args, i);
        judge_int low, high;
        begin[i] = end[i] = 0;
        if (!judge_is_wanted(args, i) || judge_is_empty(tensor))
            continue;
        judge_span(tensor, &low, &high);
        begin[i] = (judge_int)(uintptr_t)tensor->data + low;
        end[i] = (judge_int)(uintptr_t)tensor->data + high;
        if (tensor->data == NULL || (uintptr_t)tensor->data % (uintptr_t)judge_element(tensor) ||
            begin[i] < 0 || end[i] > memory_end)
            return "pointer";
    }
    begin[NUM_TENSORS] = (judge_int)(uintptr_t)args->scratch;
    end[NUM_TENSORS] =
        begin[NUM_TENSORS] + (args->scratch != NULL ? (judge_int)args->scratch_bytes : 0);
    if (end[NUM_TENSORS] > memory_end ||
        (args->scratch != NULL && args->scratch_bytes > PTRDIFF_MAX))
        return "scratch";
    for (int i = OUT; i <= NUM_TENSORS; i++)
        for (int j = 0; j <= NUM_TENSORS; j++)
            if (i != j && begin[i] < end[j] && begin[j] < end[i])
                return "overlap";
    return NULL;
}

/* ---- values: right memory is assumed too ---- */

static inline int64_t judge_len(const pageattn_args *args, int64_t seq)
{
    return ((const int32_t *)args->context_lens.data)[seq * args->context_lens.stride[0]];
}

static inline const char *judge_values(const pageattn_args *args)
{
    const pageattn_tensor *tables = &args->block_tables;
    const int64_t page_size = args->key_cache.shape[2];
    for (int64_t seq = 0; seq < args->query.shape[0]; seq++) {
        const int64_t len = judge_len(args, seq);
        if (len < 0 || len > tables->shape[1] * page_size ||
            (args->max_context_len >= 0 && len > args->max_context_len))
            return "context_lens";
        const int has_window = args->sliding_window > 0 && args->mask_value <= -1e9f;
        for (int64_t t = 0; t < len; t++) {
            if (has_window && t < len - args->sliding_window)
                continue;
            const int64_t block = t / page_size;
            const int32_t page =
                ((const int32_t *)
                     tables->data)[seq * tables->stride[0] + block * tables->stride[1]];
            if (page < 0 || page >= args->key_cache.shape[1])
                return "block_tables";
        }
    }
    return NULL;
}

#endif
