/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random calls for the tests, in two steps.
 *
 * A logical_case is what the mathematics sees: query rows, the keys and values of each token of
 * each sequence, lengths and the options that have a meaning. A placement says where all that lies:
 * page size, layout, strides, which physical page holds what, which sequences make up the batch in
 * which order. paged_build brings the two together, so one logical case can be called in
 * many guises that must give the same bits.
 *
 * Every tensor has its own pages of memory. Right after the last byte that the library may read
 * (or, in other placements, right before the first) lies memory that must not be touched. What may
 * be touched but must not matter, unused slots and pages and gaps between rows, holds NaN; block
 * table entries that must not be looked at hold garbage.
 *
 * A program that includes this defines _DEFAULT_SOURCE first, for mmap's flags, and calls
 * name_crashes, so that touching forbidden memory is reported with the name of the case.
 */
#ifndef PAGED_CASE_H
#define PAGED_CASE_H

#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <pageattn/pageattn.h>

#include "check.h"

#define MAX_SEQS 40

/* ---- elements ---- */

static inline int64_t type_bytes(pageattn_type type)
{
    return type == PAGEATTN_F32 || type == PAGEATTN_I32 ? 4 : 2;
}

static inline const char *type_name(pageattn_type type)
{
    return type == PAGEATTN_F32 ? "f32" : type == PAGEATTN_BF16 ? "bf16" : "f16";
}

static inline double decode(pageattn_type type, const void *element)
{
    uint32_t word = 0;
    uint16_t half;
    float wide;
    memcpy(&half, element, 2);
    if (type == PAGEATTN_F16) {
        const int exponent = half >> 10 & 31, fraction = half & 1023;
        const double size = exponent == 31  ? (fraction ? (double)NAN : (double)INFINITY)
                            : exponent == 0 ? fraction * 0x1p-24
                                            : ldexp(1024 + fraction, exponent - 25);
        return half & 0x8000 ? -size : size;
    }
    if (type == PAGEATTN_BF16)
        word = (uint32_t)half << 16;
    else
        memcpy(&word, element, 4);
    memcpy(&wide, &word, 4);
    return (double)wide;
}

/* The nearest number of the type, ties to even; NaN stays NaN. */
static inline double round_to(pageattn_type type, double x)
{
    if (type == PAGEATTN_F32)
        return (double)(float)x;
    if (!isfinite(x) || x == 0)
        return x;
    const int precision = type == PAGEATTN_BF16 ? 8 : 11;
    const int min_exponent = type == PAGEATTN_BF16 ? -126 : -14;
    const double max = type == PAGEATTN_BF16 ? 0x1.fep127 : 65504;
    int exponent;
    frexp(x, &exponent);
    exponent = exponent - 1 < min_exponent ? min_exponent : exponent - 1;
    const double quantum = ldexp(1, exponent - precision + 1);
    const double rounded = rint(x / quantum) * quantum;
    return fabs(rounded) > max ? copysign((double)INFINITY, x) : rounded;
}

static inline uint16_t encode_f16(double x)
{
    const double exact = round_to(PAGEATTN_F16, x), size = fabs(exact);
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    int exponent;
    if (isnan(x))
        return 0x7e00;
    if (isinf(exact))
        return sign | 0x7c00;
    if (size < 0x1p-14)
        return (uint16_t)(sign | (uint16_t)(size * 0x1p24));
    const double fraction = frexp(size, &exponent); /* in [1/2, 1) */
    return (uint16_t)(sign | (uint16_t)(((exponent + 13) << 10) + (int)(fraction * 2048)));
}

static inline void encode(pageattn_type type, double x, void *element)
{
    const float narrow = (float)(type == PAGEATTN_BF16 ? round_to(type, x) : x);
    uint32_t word;
    memcpy(&word, &narrow, 4);
    const uint16_t half = type == PAGEATTN_F16 ? encode_f16(x) : (uint16_t)(word >> 16);
    if (type == PAGEATTN_F32)
        memcpy(element, &word, 4);
    else
        memcpy(element, &half, 2);
}

/* Mean 0 and variance 1: the sum of four 16-bit numbers, at most 3.47. Fast, for millions. */
static inline double unit_variance(uint64_t *random)
{
    const uint64_t bits = check_random(random);
    const int64_t sum =
        (int64_t)((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
    return (double)(sum - 131070) / 37837.2;
}

/* Where the rounding is of no interest: bf16 by truncation, f16 by the float's bits. */
static inline void fill_random(uint64_t *random, pageattn_type type, int64_t count, char *elements)
{
    for (int64_t i = 0; i < count; i++) {
        const float x = (float)unit_variance(random);
        uint32_t word;
        memcpy(&word, &x, 4);
        uint16_t half = (uint16_t)(word >> 16);
        if (type == PAGEATTN_F16)
            half = fabsf(x) < 0x1p-14f
                       ? encode_f16((double)x)
                       : (uint16_t)((word >> 16 & 0x8000) |
                                    ((word & 0x7fffffff) - ((uint32_t)112 << 23)) >> 13);
        if (type == PAGEATTN_F32)
            memcpy(elements + 4 * i, &word, 4);
        else
            memcpy(elements + 2 * i, &half, 2);
    }
}

/* ---- what the mathematics sees ---- */

typedef struct logical_case {
    int64_t num_seqs;
    int64_t num_kv_heads;
    int64_t group_size;
    int64_t head_dim;
    int64_t value_head_dim;
    pageattn_type query_type;
    pageattn_type kv_type;
    pageattn_type out_type;
    int64_t lens[MAX_SEQS];
    float attn_scale;
    float soft_cap;
    float mask_value;
    int32_t window;
    pageattn_numerics numerics;
    uint64_t seed;

    char *query;            /* [num_seqs][num_heads][head_dim] */
    char *keys[MAX_SEQS];   /* [num_kv_heads][len][head_dim] */
    char *values[MAX_SEQS]; /* [num_kv_heads][len][value_head_dim] */
} logical_case;

static inline logical_case logical_init(void)
{
    return (logical_case){.num_seqs = 1,
                          .num_kv_heads = 1,
                          .group_size = 1,
                          .head_dim = 16,
                          .value_head_dim = 16,
                          .query_type = PAGEATTN_F32,
                          .kv_type = PAGEATTN_F32,
                          .out_type = PAGEATTN_F32,
                          .lens = {1},
                          .attn_scale = PAGEATTN_DEFAULT_ATTN_SCALE,
                          .mask_value = PAGEATTN_DEFAULT_MASK_VALUE};
}

static inline int64_t num_heads_of(const logical_case *logical)
{
    return logical->num_kv_heads * logical->group_size;
}

/* The first position that is attended to. */
static inline int64_t first_position(const logical_case *logical, int64_t seq)
{
    const int64_t len = logical->lens[seq];
    if (logical->window == 0 || logical->mask_value > PAGEATTN_HARD_MASK_VALUE ||
        logical->window >= len)
        return 0;
    return len - logical->window;
}

static inline char *query_row(const logical_case *logical, int64_t seq, int64_t head)
{
    return logical->query + (seq * num_heads_of(logical) + head) * logical->head_dim *
                                type_bytes(logical->query_type);
}

static inline char *key_row(const logical_case *logical, int64_t seq, int64_t kv_head, int64_t t)
{
    return logical->keys[seq] +
           (kv_head * logical->lens[seq] + t) * logical->head_dim * type_bytes(logical->kv_type);
}

static inline char *value_row(const logical_case *logical, int64_t seq, int64_t kv_head, int64_t t)
{
    return logical->values[seq] + (kv_head * logical->lens[seq] + t) * logical->value_head_dim *
                                      type_bytes(logical->kv_type);
}

static inline void set_query(logical_case *logical, int64_t seq, int64_t head, int64_t d, double x)
{
    const pageattn_type type = logical->query_type;
    encode(type, x, query_row(logical, seq, head) + d * type_bytes(type));
}

static inline void set_key(logical_case *logical, int64_t seq, int64_t kv_head, int64_t t,
                           int64_t d, double x)
{
    const pageattn_type type = logical->kv_type;
    encode(type, x, key_row(logical, seq, kv_head, t) + d * type_bytes(type));
}

static inline void set_value(logical_case *logical, int64_t seq, int64_t kv_head, int64_t t,
                             int64_t d, double x)
{
    const pageattn_type type = logical->kv_type;
    encode(type, x, value_row(logical, seq, kv_head, t) + d * type_bytes(type));
}

/* Draws all numbers. A sequence's depend on the seed, its number and its shape only. */
static inline void logical_fill(logical_case *logical)
{
    const int64_t query_elements = num_heads_of(logical) * logical->head_dim;
    const int64_t query_bytes = query_elements * type_bytes(logical->query_type);
    logical->query = check_allocate((size_t)(logical->num_seqs * query_bytes));
    for (int64_t seq = 0; seq < logical->num_seqs; seq++) {
        uint64_t random = (logical->seed << 8) + (uint64_t)seq;
        const int64_t rows = logical->num_kv_heads * logical->lens[seq];
        const int64_t keys = rows * logical->head_dim, values = rows * logical->value_head_dim;
        logical->keys[seq] = check_allocate((size_t)(keys * type_bytes(logical->kv_type)));
        logical->values[seq] = check_allocate((size_t)(values * type_bytes(logical->kv_type)));
        fill_random(&random, logical->query_type, query_elements,
                    logical->query + seq * query_bytes);
        fill_random(&random, logical->kv_type, keys, logical->keys[seq]);
        fill_random(&random, logical->kv_type, values, logical->values[seq]);
    }
}

static inline void logical_free(logical_case *logical)
{
    free(logical->query);
    for (int64_t seq = 0; seq < logical->num_seqs; seq++) {
        free(logical->keys[seq]);
        free(logical->values[seq]);
    }
}

/* ---- where it lies ---- */

/* Axes of a placement's strides, as bits of `reversed` and `broadcast`. */
enum { AXIS_HEADS = 1, AXIS_PAGES = 2, AXIS_SLOTS = 4 };

typedef struct placement {
    int64_t page_size;
    pageattn_kv_layout key_layout;
    pageattn_kv_layout value_layout;
    int64_t gap[3];   /* elements between neighbours, from the fastest axis to the slowest */
    int reversed;     /* axes with a negative stride */
    int broadcast;    /* AXIS_HEADS: KV heads, which hold the same numbers, share their memory */
    int guard_before; /* the forbidden memory lies before the tensors, not after them */
    uint64_t shuffle; /* seed of the order of pages; 0: in the order of the batch */
    int64_t spare_pages;
    int64_t spare_blocks;
    int32_t garbage; /* in block table entries that are not needed */
    int64_t num_seqs;
    int32_t order[MAX_SEQS]; /* the sequences of the batch */
    int64_t out_gap;         /* elements between rows of query, out and lse */
    int heads_first;         /* query and out lie as [num_heads, num_seqs, ...] */
} placement;

static inline placement placement_init(const logical_case *logical, int64_t page_size)
{
    placement where = {.page_size = page_size, .garbage = -1, .num_seqs = logical->num_seqs};
    for (int64_t i = 0; i < logical->num_seqs; i++)
        where.order[i] = (int32_t)i;
    return where;
}

/* Everything but page size and the sequences' choice and order. */
static inline void placement_scatter(uint64_t *random, placement *where)
{
    static const int32_t garbage[] = {-1, INT32_MIN, INT32_MAX, 0x5a5a5a5a, -7};
    where->key_layout = (pageattn_kv_layout)check_random_int(random, 0, 2);
    where->value_layout = (pageattn_kv_layout)check_random_int(random, 0, 2);
    for (int i = 0; i < 3; i++)
        where->gap[i] = check_random_int(random, 0, 1) * check_random_int(random, 0, 37);
    where->reversed = (int)check_random_int(random, 0, 7) & (int)check_random_int(random, 0, 7);
    where->guard_before = (int)check_random_int(random, 0, 1);
    where->shuffle = check_random(random) | 1;
    where->spare_pages = check_random_int(random, 0, 3);
    where->spare_blocks = check_random_int(random, 0, 3);
    where->garbage = garbage[check_random_int(random, 0, 4)];
    where->out_gap = check_random_int(random, 0, 1) * check_random_int(random, 0, 21);
    where->heads_first = (int)check_random_int(random, 0, 1);
}

/* A tensor's memory: [begin, end) may be touched, the rest of [base, base + bytes) may not. */
typedef struct region {
    char *base;
    size_t bytes;
    char *begin;
    char *end;
} region;

typedef struct paged_case {
    const logical_case *logical;
    placement where;
    pageattn_args args;
    region query, keys, values, lens, tables, out, lse;
} paged_case;

/* Byte offsets from element 0: all that a tensor spans, and all that may be touched. */
typedef struct extent {
    int64_t low, high, used_low, used_high;
} extent;

static inline void extent_use(extent *bytes, int64_t offset, int64_t length)
{
    if (length == 0)
        return;
    if (bytes->used_low == bytes->used_high)
        *bytes = (extent){bytes->low, bytes->high, offset, offset};
    bytes->used_low = offset < bytes->used_low ? offset : bytes->used_low;
    bytes->used_high = offset + length > bytes->used_high ? offset + length : bytes->used_high;
}

static inline extent extent_of(const pageattn_tensor *tensor)
{
    extent bytes = {.high = type_bytes(tensor->type)};
    for (int axis = 0; axis < tensor->rank; axis++) {
        const int64_t reach =
            (tensor->shape[axis] - 1) * tensor->stride[axis] * type_bytes(tensor->type);
        if (tensor->shape[axis] > 0)
            *(reach < 0 ? &bytes.low : &bytes.high) += reach;
    }
    return bytes;
}

static inline int64_t page_round(int64_t bytes)
{
    const int64_t page = (int64_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

/* Reserves a tensor's address range and returns where element 0 lies. */
static inline char *region_place(region *memory, const extent *bytes, int guard_before, int fill)
{
    const int64_t page = page_round(1);
    memory->bytes = (size_t)(page_round(bytes->high - bytes->low) + 4 * page);
    memory->base =
        mmap(NULL, memory->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory->base == MAP_FAILED) {
        printf("FAILED mmap of %zu bytes\n", memory->bytes);
        exit(1);
    }
    const int64_t edge = guard_before ? bytes->used_low : bytes->used_high;
    char *zero = memory->base + page + page_round(edge - bytes->low) - edge;
    memory->begin = memory->base + (zero + bytes->used_low - memory->base) / page * page;
    memory->end = memory->base + page_round(zero + bytes->used_high - memory->base);
    if (bytes->used_low == bytes->used_high)
        memory->end = memory->begin;
    const size_t length = (size_t)(memory->end - memory->begin);
    if (length > 0) {
        mprotect(memory->begin, length, PROT_READ | PROT_WRITE);
        memset(memory->begin, fill, length);
    }
    return zero;
}

static inline int64_t num_blocks_of(const paged_case *paged, int64_t seq)
{
    return (paged->logical->lens[seq] + paged->where.page_size - 1) / paged->where.page_size;
}

static inline int64_t first_block_of(const paged_case *paged, int64_t seq)
{
    return first_position(paged->logical, seq) / paged->where.page_size;
}

/* The strides of a cache whose axes lie in the layout's order, with gaps. */
static inline void set_strides(const placement *where, pageattn_kv_layout layout,
                               pageattn_tensor *cache)
{
    static const int order[3][3] = {{2, 1, 0}, {2, 0, 1}, {0, 2, 1}}; /* the fastest axis first */
    int64_t stride = cache->shape[3];
    for (int i = 0; i < 3; i++) {
        const int axis = order[layout][i];
        stride += where->gap[i];
        cache->stride[axis] = where->reversed & 1 << axis ? -stride : stride;
        if (where->broadcast & 1 << axis)
            cache->stride[axis] = 0;
        else
            stride *= cache->shape[axis];
    }
    cache->stride[3] = 1;
}

static inline int64_t row_offset(const pageattn_tensor *cache, int64_t kv_head, int64_t page,
                                 int64_t slot)
{
    return (kv_head * cache->stride[0] + page * cache->stride[1] + slot * cache->stride[2]) *
           type_bytes(cache->type);
}

static inline int32_t *table_entry(const paged_case *paged, int64_t place, int64_t block)
{
    const pageattn_tensor *tables = &paged->args.block_tables;
    return (int32_t *)tables->data + place * tables->stride[0] + block;
}

static inline void build_tables(paged_case *paged)
{
    const placement *where = &paged->where;
    int64_t num_used = 0, max_blocks = 0, next = 0;
    for (int64_t i = 0; i < where->num_seqs; i++) {
        const int64_t blocks = num_blocks_of(paged, where->order[i]);
        num_used += blocks - first_block_of(paged, where->order[i]);
        max_blocks = blocks > max_blocks ? blocks : max_blocks;
    }
    const int64_t num_pages = num_used + where->spare_pages;
    pageattn_tensor *tables = &paged->args.block_tables;
    *tables =
        pageattn_tensor_2d(NULL, PAGEATTN_I32, where->num_seqs, max_blocks + where->spare_blocks);
    paged->args.key_cache.shape[1] = paged->args.value_cache.shape[1] = num_pages;

    extent bytes = extent_of(tables);
    for (int64_t i = 0; i < where->num_seqs; i++) {
        const int64_t first = first_block_of(paged, where->order[i]);
        extent_use(&bytes, (i * tables->stride[0] + first) * 4,
                   (num_blocks_of(paged, where->order[i]) - first) * 4);
    }
    tables->data = region_place(&paged->tables, &bytes, where->guard_before, 0);
    for (int32_t *entry = (int32_t *)(void *)paged->tables.begin;
         entry < (int32_t *)(void *)paged->tables.end; entry++)
        *entry = where->garbage;

    int32_t *pages = check_allocate((size_t)num_pages * sizeof(*pages));
    uint64_t random = where->shuffle;
    check_random_permutation(&random, pages, num_pages);
    for (int64_t i = 0; i < where->num_seqs; i++)
        for (int64_t block = first_block_of(paged, where->order[i]);
             block < num_blocks_of(paged, where->order[i]); block++, next++)
            *table_entry(paged, i, block) = where->shuffle ? pages[next] : (int32_t)next;
    free(pages);
}

/* Calls for each attended row of the cache: first to learn what is used, then to fill it. */
static inline void visit_rows(const paged_case *paged, const pageattn_tensor *cache, int is_value,
                              extent *bytes)
{
    const logical_case *logical = paged->logical;
    const int64_t row_bytes = cache->shape[3] * type_bytes(cache->type);
    for (int64_t i = 0; i < paged->where.num_seqs; i++) {
        const int64_t seq = paged->where.order[i];
        for (int64_t t = first_position(logical, seq); t < logical->lens[seq]; t++) {
            const int64_t page = *table_entry(paged, i, t / paged->where.page_size);
            for (int64_t h = 0; h < logical->num_kv_heads; h++) {
                const int64_t offset = row_offset(cache, h, page, t % paged->where.page_size);
                if (bytes)
                    extent_use(bytes, offset, row_bytes);
                else
                    memcpy((char *)cache->data + offset,
                           is_value ? value_row(logical, seq, h, t) : key_row(logical, seq, h, t),
                           (size_t)row_bytes);
            }
        }
    }
}

static inline void build_cache(paged_case *paged, pageattn_kv_layout layout, int is_value,
                               region *memory, pageattn_tensor *cache)
{
    set_strides(&paged->where, layout, cache);
    extent bytes = extent_of(cache);
    visit_rows(paged, cache, is_value, &bytes);
    cache->data = region_place(memory, &bytes, paged->where.guard_before, 0xff);
    visit_rows(paged, cache, is_value, NULL);
}

/* A tensor of rows, [num_seqs, num_heads, dim], all of which is used. */
static inline void build_rows(const placement *where, int fill, region *memory,
                              pageattn_tensor *rows)
{
    const int fast = where->heads_first ? 0 : 1;
    rows->stride[fast] = rows->shape[2] + where->out_gap;
    rows->stride[1 - fast] = rows->stride[fast] * rows->shape[fast] + where->out_gap;
    extent bytes = extent_of(rows);
    if (rows->shape[0] > 0)
        extent_use(&bytes, bytes.low, bytes.high - bytes.low);
    rows->data = region_place(memory, &bytes, where->guard_before, fill);
}

static inline char *row_at(const pageattn_tensor *rows, int64_t place, int64_t head)
{
    return (char *)rows->data +
           (place * rows->stride[0] + head * rows->stride[1]) * type_bytes(rows->type);
}

/* What outputs hold before a call, gaps between rows included. */
#define UNTOUCHED 0xa5

static inline void build_query_and_out(paged_case *paged)
{
    const logical_case *logical = paged->logical;
    const int64_t num_seqs = paged->where.num_seqs, num_heads = num_heads_of(logical);
    pageattn_args *args = &paged->args;
    args->query =
        pageattn_tensor_3d(NULL, logical->query_type, num_seqs, num_heads, logical->head_dim);
    args->out =
        pageattn_tensor_3d(NULL, logical->out_type, num_seqs, num_heads, logical->value_head_dim);
    args->lse = pageattn_tensor_3d(NULL, PAGEATTN_F32, num_seqs, num_heads, 1);
    build_rows(&paged->where, 0xff, &paged->query, &args->query);
    build_rows(&paged->where, UNTOUCHED, &paged->out, &args->out);
    build_rows(&paged->where, UNTOUCHED, &paged->lse, &args->lse);
    args->lse.rank = 2;
    for (int64_t i = 0; i < num_seqs; i++)
        for (int64_t h = 0; h < num_heads; h++)
            memcpy(row_at(&args->query, i, h), query_row(logical, paged->where.order[i], h),
                   (size_t)(logical->head_dim * type_bytes(logical->query_type)));
}

static inline void build_lens(paged_case *paged)
{
    pageattn_tensor *lens = &paged->args.context_lens;
    *lens = pageattn_tensor_1d(NULL, PAGEATTN_I32, paged->where.num_seqs);
    extent bytes = extent_of(lens);
    extent_use(&bytes, 0, 4 * paged->where.num_seqs);
    lens->data = region_place(&paged->lens, &bytes, paged->where.guard_before, 0x7f);
    for (int64_t i = 0; i < paged->where.num_seqs; i++)
        ((int32_t *)lens->data)[i] = (int32_t)paged->logical->lens[paged->where.order[i]];
}

static inline void paged_build(const logical_case *logical, const placement *where,
                               paged_case *paged)
{
    memset(paged, 0, sizeof(*paged));
    paged->logical = logical;
    paged->where = *where;
    pageattn_args *args = &paged->args;
    pageattn_args_init(args);
    args->attn_scale = logical->attn_scale;
    args->attn_logits_soft_cap = logical->soft_cap;
    args->mask_value = logical->mask_value;
    args->sliding_window = logical->window;
    args->numerics = logical->numerics;
    args->key_cache = pageattn_cache(NULL, logical->kv_type, PAGEATTN_HND_PAGES,
                                     logical->num_kv_heads, 0, where->page_size, logical->head_dim);
    args->value_cache =
        pageattn_cache(NULL, logical->kv_type, PAGEATTN_HND_PAGES, logical->num_kv_heads, 0,
                       where->page_size, logical->value_head_dim);
    build_tables(paged);
    build_cache(paged, where->key_layout, 0, &paged->keys, &args->key_cache);
    build_cache(paged, where->value_layout, 1, &paged->values, &args->value_cache);
    build_query_and_out(paged);
    build_lens(paged);
}

static inline void paged_free(paged_case *paged)
{
    const region *all[] = {&paged->query,  &paged->keys, &paged->values, &paged->lens,
                           &paged->tables, &paged->out,  &paged->lse};
    for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
        munmap(all[i]->base, all[i]->bytes);
}

/* ---- the call ---- */

static const char *volatile current_case = "";
static struct sigaction crash_default[2];

static inline void report_crash(int signal)
{
    const char *const parts[] = {"FAILED ", current_case, ": touched forbidden memory\n"};
    for (int i = 0; i < 3; i++)
        if (write(STDOUT_FILENO, parts[i], strlen(parts[i])) < 0)
            break;
    sigaction(signal, &crash_default[signal == SIGBUS], NULL); /* the access is tried again */
}

static inline void name_crashes(void)
{
    struct sigaction action = {.sa_handler = report_crash};
    sigaction(SIGSEGV, &action, &crash_default[0]);
    sigaction(SIGBUS, &action, &crash_default[1]);
}

static inline int region_is_untouched(const region *memory)
{
    for (const char *byte = memory->begin; byte < memory->end; byte++)
        if ((unsigned char)*byte != UNTOUCHED)
            return 0;
    return 1;
}

/* Takes rows out of a tensor into a contiguous copy, and leaves UNTOUCHED behind. */
static inline void take_rows(const pageattn_tensor *rows, int64_t row_bytes, char *copy)
{
    for (int64_t i = 0; i < rows->shape[0]; i++)
        for (int64_t h = 0; h < rows->shape[1]; h++, copy += row_bytes) {
            memcpy(copy, row_at(rows, i, h), (size_t)row_bytes);
            memset(row_at(rows, i, h), UNTOUCHED, (size_t)row_bytes);
        }
}

static inline int64_t out_row_bytes(const logical_case *logical)
{
    return logical->value_head_dim * type_bytes(logical->out_type);
}

/* Attends, and copies the result to out [batch][num_heads][value_head_dim] and lse [batch]
 * [num_heads]. Returns 0, with a failure recorded under `name`, if the call failed or wrote
 * between the rows. */
static inline int paged_attend(paged_case *paged, pageattn_context *context, const char *name,
                               char *out, float *lse)
{
    pageattn_error error;
    current_case = name;
    if (pageattn_attend(context, &paged->args, &error) != PAGEATTN_OK) {
        check_failed(name, "%s: %s", pageattn_status_name(error.status), error.message);
        return 0;
    }
    take_rows(&paged->args.out, out_row_bytes(paged->logical), out);
    take_rows(&paged->args.lse, sizeof(float), (char *)lse);
    if (region_is_untouched(&paged->out) && region_is_untouched(&paged->lse))
        return 1;
    check_failed(name, "wrote between the rows of out or lse");
    return 0;
}

/* ---- names ---- */

static inline const char *describe_logical(const logical_case *logical, char *text, size_t bytes)
{
    int used = snprintf(
        text, bytes, "query %s kv %s out %s, %lld kv heads x %lld, head_dim %lld/%lld, lens",
        type_name(logical->query_type), type_name(logical->kv_type), type_name(logical->out_type),
        (long long)logical->num_kv_heads, (long long)logical->group_size,
        (long long)logical->head_dim, (long long)logical->value_head_dim);
    for (int64_t seq = 0; seq < logical->num_seqs; seq++)
        used += snprintf(text + used, bytes - (size_t)used, " %lld", (long long)logical->lens[seq]);
    if (logical->attn_scale != PAGEATTN_DEFAULT_ATTN_SCALE)
        used +=
            snprintf(text + used, bytes - (size_t)used, ", scale %g", (double)logical->attn_scale);
    snprintf(text + used, bytes - (size_t)used, ", cap %g window %d mask %g%s, seed %llu",
             (double)logical->soft_cap, (int)logical->window, (double)logical->mask_value,
             logical->numerics == PAGEATTN_NUMERICS_FAST ? ", fast" : "",
             (unsigned long long)logical->seed);
    return text;
}

static inline const char *describe_placement(const placement *where, char *text, size_t bytes)
{
    int used =
        snprintf(text, bytes,
                 "page size %lld, layouts %d %d, gaps %lld %lld %lld, reversed %d, "
                 "broadcast %d, guard %s, shuffle %#llx, out gap %lld%s, order",
                 (long long)where->page_size, (int)where->key_layout, (int)where->value_layout,
                 (long long)where->gap[0], (long long)where->gap[1], (long long)where->gap[2],
                 where->reversed, where->broadcast, where->guard_before ? "before" : "after",
                 (unsigned long long)where->shuffle, (long long)where->out_gap,
                 where->heads_first ? ", heads first" : "");
    for (int64_t i = 0; i < where->num_seqs; i++)
        used += snprintf(text + used, bytes - (size_t)used, " %d", (int)where->order[i]);
    return text;
}

/* The instruction sets of this build and CPU; returns their number. */
static inline int available_isas(pageattn_isa *isas)
{
    int count = 0;
    for (int isa = 1; pageattn_isa_name((pageattn_isa)isa) != NULL; isa++)
        if (pageattn_isa_available((pageattn_isa)isa))
            isas[count++] = (pageattn_isa)isa;
    return count;
}

#define MAX_ISAS 8

static inline int reduced_matrix(void)
{
    const char *value = getenv("PAGEATTN_TEST_REDUCED");
    return value != NULL && value[0] != '\0' && strcmp(value, "0") != 0;
}

#endif
