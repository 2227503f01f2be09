/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One call for tests that make it from many threads: inputs that all share, results of one's own,
 * the bits of a quiet single thread to compare with, and counts of how calls ended.
 */
#ifndef SHARED_CALL_H
#define SHARED_CALL_H

#include <pthread.h>
#include <stdatomic.h>

#include "paged_case.h"

enum { MAX_CREW = 16, ROW_BYTES = 4 * 8 * 64 * 4 };

static logical_case logical;
static paged_case shared;
static char expected[ROW_BYTES];

typedef struct call {
    pageattn_args args;
    char out[ROW_BYTES];
} call;

static inline int num_calls(int full)
{
    return reduced_matrix() ? full / 10 : full;
}

static inline void set_call(call *mine)
{
    mine->args = shared.args;
    mine->args.out = pageattn_tensor_3d(mine->out, PAGEATTN_F32, logical.num_seqs,
                                        num_heads_of(&logical), logical.value_head_dim);
    mine->args.lse.type = PAGEATTN_NO_TYPE;
    memset(mine->out, UNTOUCHED, sizeof(mine->out));
}

static inline int is_right(const call *mine)
{
    return memcmp(mine->out, expected, sizeof(expected)) == 0;
}

static inline int is_untouched(const call *mine)
{
    for (size_t i = 0; i < sizeof(mine->out); i++)
        if ((unsigned char)mine->out[i] != UNTOUCHED)
            return 0;
    return 1;
}

static inline pageattn_status make_call(pageattn_context *context, call *mine)
{
    set_call(mine);
    return pageattn_attend(context, &mine->args, NULL);
}

/* 1 if the call succeeds with the right bits. */
static inline int call_is_right(pageattn_context *context)
{
    call mine;
    return make_call(context, &mine) == PAGEATTN_OK && is_right(&mine);
}

static inline pageattn_context *create(int32_t num_threads, int64_t spin_ns,
                                       const pageattn_executor *executor)
{
    pageattn_context_options options;
    pageattn_context *context = NULL;
    pageattn_context_options_init(&options);
    options.num_threads = num_threads;
    options.executor = executor;
    options.spin_ns = spin_ns;
    options.min_bytes_per_worker = 1;
    if (pageattn_context_create(&options, &context, NULL) != PAGEATTN_OK) {
        check_failed(current_case, "no context");
        exit(check_finish());
    }
    return context;
}

static inline void build_inputs(void)
{
    static const int64_t lens[] = {700, 1, 0, 300};
    logical = logical_init();
    logical.num_seqs = 4;
    memcpy(logical.lens, lens, sizeof(lens));
    logical.num_kv_heads = 2;
    logical.group_size = 4;
    logical.head_dim = logical.value_head_dim = 64;
    logical.kv_type = PAGEATTN_BF16;
    logical.seed = check.seed;
    logical_fill(&logical);
    placement where = placement_init(&logical, 16);
    where.shuffle = 1;
    paged_build(&logical, &where, &shared);
    call first;
    pageattn_context *context = create(1, 0, NULL);
    check_that(make_call(context, &first) == PAGEATTN_OK, "a quiet call");
    memcpy(expected, first.out, sizeof(expected));
    pageattn_context_destroy(context);
}

/* ---- threads that make it ---- */

typedef struct crew {
    pthread_t threads[MAX_CREW];
    int num_threads;
} crew;

static inline void start_crew(crew *all, int num_threads, void *(*work)(void *), void *arg)
{
    for (all->num_threads = 0; all->num_threads < num_threads; all->num_threads++)
        if (pthread_create(&all->threads[all->num_threads], NULL, work, arg) != 0)
            break;
    if (all->num_threads < num_threads)
        check_failed(current_case, "the test got only %d threads", all->num_threads);
}

static inline void join_crew(crew *all)
{
    for (int i = 0; i < all->num_threads; i++)
        pthread_join(all->threads[i], NULL);
}

static atomic_int num_right, num_busy, num_wrong, stopping;

static inline void reset_counts(void)
{
    atomic_store(&num_right, 0);
    atomic_store(&num_busy, 0);
    atomic_store(&num_wrong, 0);
    atomic_store(&stopping, 0);
}

static inline void *call_until_stopped(void *context)
{
    while (!atomic_load(&stopping))
        atomic_fetch_add(call_is_right(context) ? &num_right : &num_wrong, 1);
    return NULL;
}

#endif
