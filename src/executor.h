/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The context's own thread pool, used where the host gives no executor.
 *
 * The calling thread works too. Tasks are claimed by an atomic counter; the caller waits only for
 * threads that joined the job, so a descheduled thread that claimed nothing holds nobody up.
 */
#ifndef PAGEATTN_EXECUTOR_H
#define PAGEATTN_EXECUTOR_H

#include <pageattn/pageattn.h>

typedef struct pageattn_pool pageattn_pool;

/* Allocates; starts no thread. num_threads >= 1 counts the calling thread. NULL: out of memory. */
pageattn_pool *pageattn_pool_create(const pageattn_allocator *allocator, int32_t num_threads,
                                    int64_t spin_ns);
void pageattn_pool_destroy(pageattn_pool *pool);

/* Starts what is missing of the threads that work beside the caller on num_tasks tasks. In the
 * child of a fork they are started anew. If one can't be started: PAGEATTN_ERROR_THREAD. */
pageattn_status pageattn_pool_start(pageattn_pool *pool, int64_t num_tasks, pageattn_error *error);

/* Runs task(arg, i) once for each i in [0, num_tasks) and returns when all have. Starts the threads
 * that are missing first: PAGEATTN_ERROR_THREAD if that fails, with no task run. */
pageattn_status pageattn_pool_parallel_for(pageattn_pool *pool, int64_t num_tasks,
                                           pageattn_task task, void *arg, pageattn_error *error);

/* How many threads this process may use: see num_threads in the public header. At least 1.
 * PAGEATTN_NUM_THREADS counts as not set unless it is a whole decimal number of at least 1: there
 * is no one to tell here, and a typing error must not change more than that. */
int32_t pageattn_usable_threads(void);

#endif
