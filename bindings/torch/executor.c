/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The executor interface over torch's own threads.
 *
 * torch gives its parallel loop as a C function, torch_parallel_for, in its stable ABI
 * (torch/csrc/stable/c/shim.h). Its address comes from Python, out of the torch that is loaded, so
 * nothing here is built against torch or linked with it.
 */
#include <pageattn/pageattn.h>

#define PAGEATTN_TORCH_API __attribute__((visibility("default")))

/* Calls range(begin, end, context) for disjoint parts that make up [0, end), on its threads, and
 * returns when all have returned. Nonzero: an error, and the library will find tasks not run. */
typedef int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t grain_size,
                                   void (*range)(int64_t begin, int64_t end, void *context),
                                   void *context);

typedef struct loop {
    pageattn_task task;
    void *arg;
} loop;

static void run_range(int64_t begin, int64_t end, void *context)
{
    const loop *running = context;
    for (int64_t index = begin; index < end; index++)
        running->task(running->arg, index);
}

/* As parallel_for of pageattn_executor; `context` points to the address of torch_parallel_for. */
PAGEATTN_TORCH_API void pageattn_torch_parallel_for(void *context, int64_t num_tasks,
                                                    pageattn_task task, void *arg);

PAGEATTN_TORCH_API void pageattn_torch_parallel_for(void *context, int64_t num_tasks,
                                                    pageattn_task task, void *arg)
{
    torch_parallel_for *const *parallel_for = context;
    loop running = {task, arg};
    (*parallel_for)(0, num_tasks, 1, run_range, &running);
}
