/* SPDX-License-Identifier: Apache-2.0 */
/*
 * XLA's own thread pool as a pageattn executor.
 *
 * Nothing here waits for a task that has not begun: the calling thread claims tasks until none is
 * left, and then waits for those only that other threads are in the middle of. So a call makes
 * progress alone on a pool whose threads are all busy, be it with other such calls.
 */
#ifndef PAGEATTN_BINDINGS_JAX_EXECUTOR_H
#define PAGEATTN_BINDINGS_JAX_EXECUTOR_H

#include <pageattn/pageattn.h>
#include <xla/ffi/api/c_api.h>

/* How to reach the pool during one call of a handler. */
typedef struct pageattn_jax_pool {
    const XLA_FFI_Api *api;
    XLA_FFI_ExecutionContext *execution;
} pageattn_jax_pool;

/* The threads of the pool, in [1, PAGEATTN_MAX_THREADS]; 1 where XLA has none to offer. */
int32_t pageattn_jax_pool_threads(const pageattn_jax_pool *pool);

/* pageattn_executor's parallel_for; `pool` is a pageattn_jax_pool. */
void pageattn_jax_parallel_for(void *pool, int64_t num_tasks, pageattn_task task, void *arg);

#endif
