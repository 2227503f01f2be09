/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parallel loop on XLA's thread pool: helpers are scheduled there, and claim tasks beside the
 * calling thread. A helper may get its thread long after the loop has ended. So what it looks at
 * first is counted by references, and the last one out frees it.
 */
#include "executor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

/* The attention of one call. Only who has claimed a task may use `task` and `arg`. */
typedef struct job {
    pageattn_task task;
    void *arg;
    int64_t num_tasks;
    _Atomic int64_t next_task;
    _Atomic int64_t num_finished;
    _Atomic int64_t num_references;
    pthread_mutex_t mutex;
    pthread_cond_t finished;
} job;

static job *create_job(int64_t num_tasks, pageattn_task task, void *arg)
{
    job *created = malloc(sizeof(*created));
    if (created == NULL)
        return NULL;
    created->task = task;
    created->arg = arg;
    created->num_tasks = num_tasks;
    atomic_init(&created->next_task, 0);
    atomic_init(&created->num_finished, 0);
    atomic_init(&created->num_references, 1);
    pthread_mutex_init(&created->mutex, NULL); /* with default attributes these two cannot fail */
    pthread_cond_init(&created->finished, NULL);
    return created;
}

static void release(job *released)
{
    if (atomic_fetch_sub_explicit(&released->num_references, 1, memory_order_acq_rel) > 1)
        return;
    pthread_cond_destroy(&released->finished);
    pthread_mutex_destroy(&released->mutex);
    free(released);
}

static void finish_task(job *running)
{
    if (atomic_fetch_add_explicit(&running->num_finished, 1, memory_order_acq_rel) + 1 <
        running->num_tasks)
        return;
    pthread_mutex_lock(&running->mutex); /* the caller is now before its check, or asleep */
    pthread_cond_signal(&running->finished);
    pthread_mutex_unlock(&running->mutex);
}

static void run_tasks(job *running)
{
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&running->next_task, 1, memory_order_relaxed);
        if (index >= running->num_tasks)
            return;
        running->task(running->arg, index);
        finish_task(running);
    }
}

static void help(void *data)
{
    run_tasks(data);
    release(data);
}

static void wait_for_helpers(job *running)
{
    pthread_mutex_lock(&running->mutex);
    while (atomic_load_explicit(&running->num_finished, memory_order_acquire) < running->num_tasks)
        pthread_cond_wait(&running->finished, &running->mutex);
    pthread_mutex_unlock(&running->mutex);
}

static void destroy_error(const XLA_FFI_Api *api, XLA_FFI_Error *error)
{
    XLA_FFI_Error_Destroy_Args destroy = {
        .struct_size = XLA_FFI_Error_Destroy_Args_STRUCT_SIZE,
        .error = error,
    };
    api->XLA_FFI_Error_Destroy(&destroy);
}

/* Returns 0 if the pool takes no more. */
static int schedule_helper(const pageattn_jax_pool *pool, job *running)
{
    XLA_FFI_ThreadPool_Schedule_Args schedule = {
        .struct_size = XLA_FFI_ThreadPool_Schedule_Args_STRUCT_SIZE,
        .ctx = pool->execution,
        .task = help,
        .data = running,
    };
    atomic_fetch_add_explicit(&running->num_references, 1, memory_order_relaxed);
    XLA_FFI_Error *error = pool->api->XLA_FFI_ThreadPool_Schedule(&schedule);
    if (error == NULL)
        return 1;
    destroy_error(pool->api, error);
    release(running);
    return 0;
}

int32_t pageattn_jax_pool_threads(const pageattn_jax_pool *pool)
{
    int64_t num_threads = 1;
    XLA_FFI_ThreadPool_NumThreads_Args query = {
        .struct_size = XLA_FFI_ThreadPool_NumThreads_Args_STRUCT_SIZE,
        .ctx = pool->execution,
        .num_threads = &num_threads,
    };
    XLA_FFI_Error *error = pool->api->XLA_FFI_ThreadPool_NumThreads(&query);
    if (error != NULL) {
        destroy_error(pool->api, error);
        return 1;
    }
    if (num_threads < 1)
        return 1;
    return num_threads < PAGEATTN_MAX_THREADS ? (int32_t)num_threads : PAGEATTN_MAX_THREADS;
}

void pageattn_jax_parallel_for(void *pool, int64_t num_tasks, pageattn_task task, void *arg)
{
    job *created = num_tasks > 1 ? create_job(num_tasks, task, arg) : NULL;
    if (created == NULL) { /* one task, or no memory for sharing them */
        for (int64_t i = 0; i < num_tasks; i++)
            task(arg, i);
        return;
    }
    for (int64_t i = 1; i < num_tasks; i++)
        if (!schedule_helper(pool, created))
            break;
    run_tasks(created);
    wait_for_helpers(created);
    release(created);
}
