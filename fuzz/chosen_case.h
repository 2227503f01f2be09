/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A logical case, its placement and a context, each as the input chooses: what the targets that
 * make calls share. Everything here is a right call; small, because thousands a second find more
 * than a few large ones.
 */
#ifndef FUZZ_CHOSEN_CASE_H
#define FUZZ_CHOSEN_CASE_H

#include "../tests/paged_case.h"
#include "input.h"

/* Multiply-adds of a call, for which the plain reference takes longest; most calls are smaller. */
#define MAX_WORK 40000
#define USUAL_WORK 2500

#define COUNT_OF(array) ((int64_t)(sizeof(array) / sizeof(*(array))))

/* ---- the case ---- */

static inline int64_t choose_dim(fuzz_input *input)
{
    static const int64_t dims[] = {16, 1, 8, 15, 17, 32, 33, 64, 80, 128};
    return dims[fuzz_int(input, 0, COUNT_OF(dims) - 1)];
}

static inline int64_t choose_len(fuzz_input *input)
{
    /* Leaves are 256 tokens, lane groups 16. */
    static const int64_t edges[] = {0, 1, 15, 16, 17, 255, 256, 257, 511, 512, 513, 768, 1025};
    const int64_t choice = fuzz_int(input, 0, 63 + COUNT_OF(edges));
    return choice < 64 ? choice : edges[choice - 64];
}

static inline double work_of(const logical_case *logical)
{
    int64_t tokens = 0;
    for (int64_t seq = 0; seq < logical->num_seqs; seq++)
        tokens += logical->lens[seq];
    return (double)tokens * (double)num_heads_of(logical) *
           (double)(logical->head_dim + logical->value_head_dim);
}

static inline void choose_shape(fuzz_input *input, logical_case *logical)
{
    logical->num_seqs = fuzz_int(input, 1, 5);
    logical->num_kv_heads = fuzz_int(input, 1, 4);
    logical->group_size = fuzz_int(input, 1, 9);
    logical->head_dim = logical->value_head_dim = choose_dim(input);
    if (fuzz_int(input, 0, 3) == 3)
        logical->value_head_dim = choose_dim(input);
    for (int64_t seq = 0; seq < logical->num_seqs; seq++)
        logical->lens[seq] = choose_len(input);
    const double budget = fuzz_int(input, 0, 3) == 3 ? MAX_WORK : USUAL_WORK;
    /* The longest context is what a case is about: heads go first. */
    while (work_of(logical) > budget) {
        if (num_heads_of(logical) > 2 && logical->group_size > 1)
            logical->group_size = (logical->group_size + 1) / 2;
        else if (logical->num_kv_heads > 1)
            logical->num_kv_heads--;
        else if (logical->num_seqs > 1)
            logical->num_seqs--;
        else if (logical->head_dim > 16)
            logical->head_dim = logical->value_head_dim = 15;
        else
            logical->lens[0] /= 2;
    }
}

static inline void choose_options(fuzz_input *input, logical_case *logical)
{
    static const float scales[] = {PAGEATTN_DEFAULT_ATTN_SCALE, 1, 0, -0.25f, 4, 1e-30f};
    static const float caps[] = {0, 30, 1, 0.125f};
    static const float masks[] = {PAGEATTN_DEFAULT_MASK_VALUE, -INFINITY, -1e9f, 0, -0.5f, -20};
    logical->query_type = (pageattn_type)fuzz_int(input, PAGEATTN_F32, PAGEATTN_F16);
    logical->kv_type = (pageattn_type)fuzz_int(input, PAGEATTN_F32, PAGEATTN_F16);
    logical->out_type = (pageattn_type)fuzz_int(input, PAGEATTN_F32, PAGEATTN_F16);
    logical->attn_scale = scales[fuzz_int(input, 0, COUNT_OF(scales) - 1)];
    logical->soft_cap = caps[fuzz_int(input, 0, COUNT_OF(caps) - 1)];
    logical->mask_value = masks[fuzz_int(input, 0, COUNT_OF(masks) - 1)];
    logical->window = (int32_t)fuzz_int(input, 0, 1) * (int32_t)fuzz_int(input, 1, 600);
    logical->numerics = (pageattn_numerics)fuzz_int(input, 0, 1);
}

/* Up to three numbers become special ones. */
static inline void choose_specials(fuzz_input *input, const double *specials, int64_t num_specials,
                                   logical_case *logical)
{
    for (int64_t left = fuzz_int(input, 0, 3); left > 0; left--) {
        const int64_t seq = fuzz_int(input, 0, logical->num_seqs - 1);
        const int64_t kv_head = fuzz_int(input, 0, logical->num_kv_heads - 1);
        const int64_t place = fuzz_int(input, 0, 1199);
        const int64_t d = fuzz_int(input, 0, 127);
        const double x = specials[fuzz_int(input, 0, num_specials - 1)];
        const int64_t tensor = fuzz_int(input, 0, 2);
        if (tensor == 2)
            set_query(logical, seq, place % num_heads_of(logical), d % logical->head_dim, x);
        else if (logical->lens[seq] > 0 && tensor == 1)
            set_key(logical, seq, kv_head, place % logical->lens[seq], d % logical->head_dim, x);
        else if (logical->lens[seq] > 0)
            set_value(logical, seq, kv_head, place % logical->lens[seq],
                      d % logical->value_head_dim, x);
    }
}

/* The caller frees it with logical_free. */
static inline void choose_logical(fuzz_input *input, const double *specials, int64_t num_specials,
                                  logical_case *logical)
{
    *logical = logical_init();
    choose_shape(input, logical);
    choose_options(input, logical);
    logical->seed = fuzz_seed(input);
    logical_fill(logical);
    choose_specials(input, specials, num_specials, logical);
}

/* ---- where it lies ---- */

static inline void choose_placement(fuzz_input *input, const logical_case *logical,
                                    placement *where)
{
    static const int64_t page_sizes[] = {16, 1, 2, 3, 5, 32, 64, 255, 256, 257};
    *where = placement_init(logical, page_sizes[fuzz_int(input, 0, COUNT_OF(page_sizes) - 1)]);
    uint64_t random = fuzz_seed(input);
    if (random != 0)
        placement_scatter(&random, where);
}

/* Options that steer the work. Those of a plain call are all 0, but for inline_seq_dim. */
static inline void choose_steering(fuzz_input *input, pageattn_args *args)
{
    args->num_splits = (int32_t)fuzz_int(input, 0, 7);
    args->pages_per_compute_block = (int32_t)fuzz_int(input, 0, 300);
    args->inline_seq_dim = fuzz_int(input, 0, 1) == 0;
    const int64_t mode = fuzz_int(input, 0, 2);
    if (mode == 1 && args->key_cache.shape[0] % 2 == 0)
        args->megacore_mode = PAGEATTN_MEGACORE_KV_HEAD;
    if (mode == 2 && args->query.shape[0] % 2 == 0)
        args->megacore_mode = PAGEATTN_MEGACORE_BATCH;
}

/* ---- who computes it ---- */

/* Runs all tasks on the calling thread, in an order of its own: every split of the work, and every
 * execution the same. */
static inline void run_inline(void *context, int64_t num_tasks, pageattn_task task, void *arg)
{
    const int backwards = *(const int *)context;
    for (int64_t i = 0; i < num_tasks; i++)
        task(arg, backwards ? num_tasks - 1 - i : i);
}

/* The library must stand a refusal, and a fuzzer must not eat the machine. */
#define MAX_ALLOCATION (16 << 20)

static inline void *allocate_some(void *context, size_t bytes, size_t alignment)
{
    (void)context;
    if (bytes > MAX_ALLOCATION)
        return NULL;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static inline void deallocate_some(void *context, void *pointer, size_t bytes)
{
    (void)context;
    (void)bytes;
    free(pointer);
}

/* One worker; 2, 3 and 8 that take turns on one thread, forwards and backwards; two threads. */
static const struct crew {
    int32_t num_workers;
    int backwards;
    int threads;
} crews[] = {{1, 0, 0}, {2, 0, 0}, {3, 1, 0}, {8, 0, 0}, {2, 1, 0}, {2, 0, 1}};
#define NUM_CREWS COUNT_OF(crews)

static inline pageattn_context *create_context(pageattn_isa isa, const struct crew *crew)
{
    static int order[] = {0, 1};
    const pageattn_executor executor = {.struct_size = sizeof(executor),
                                        .context = &order[crew->backwards],
                                        .num_workers = crew->num_workers,
                                        .parallel_for = run_inline};
    const pageattn_allocator allocator = {
        .struct_size = sizeof(allocator), .allocate = allocate_some, .deallocate = deallocate_some};
    pageattn_context_options options;
    pageattn_context *context;
    pageattn_error error;
    pageattn_context_options_init(&options);
    options.isa = isa;
    options.allocator = &allocator;
    options.min_bytes_per_worker = 1; /* small calls are to be split too */
    if (crew->threads)
        options.num_threads = crew->num_workers;
    else
        options.executor = &executor;
    const pageattn_status status = pageattn_context_create(&options, &context, &error);
    FUZZ_REQUIRE(status == PAGEATTN_OK, "%s", error.message);
    return context;
}

/* The instruction sets of this CPU: asking it costs more than a small call. */
static inline const pageattn_isa *isas_here(int64_t *count)
{
    static pageattn_isa isas[MAX_ISAS];
    static int num_isas;
    if (num_isas == 0)
        num_isas = available_isas(isas);
    *count = num_isas;
    return isas;
}

/* The context of an instruction set, by its place among the available ones, and a crew. They live
 * as long as the program, so each call meets what the calls before it have left behind. */
static inline pageattn_context *context_of(int64_t isa, int64_t crew)
{
    static pageattn_context *contexts[MAX_ISAS][NUM_CREWS];
    int64_t num_isas;
    if (contexts[isa][crew] == NULL)
        contexts[isa][crew] = create_context(isas_here(&num_isas)[isa], &crews[crew]);
    return contexts[isa][crew];
}

static inline int64_t choose_isa(fuzz_input *input)
{
    int64_t num_isas;
    isas_here(&num_isas);
    return fuzz_int(input, 0, num_isas - 1);
}

#endif
