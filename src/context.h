/* SPDX-License-Identifier: Apache-2.0 */
/* What a context holds. */
#ifndef PAGEATTN_CONTEXT_H
#define PAGEATTN_CONTEXT_H

#include <stdatomic.h>

#include "executor.h"
#include "kernel/kernels.h"

struct pageattn_context {
    const pageattn_kernels *kernels;
    const pageattn_fast_kernels *fast_kernels; /* NULL: none */
    pageattn_isa isa;
    int32_t num_workers;
    pageattn_pool *pool;        /* NULL beside a caller's executor */
    pageattn_executor executor; /* parallel_for NULL: the pool */
    pageattn_allocator allocator;
    int64_t min_bytes_per_worker;
    void *scratch;
    size_t scratch_bytes;
    atomic_flag busy; /* set while a call runs */
};

#endif
