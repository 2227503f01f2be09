/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Executors that the caller brings: those that keep their promise give the bits of a quiet single
 * thread, and those that do not are noticed and do no harm.
 */
#define _GNU_SOURCE

#include "hang_watch.h"
#include "shared_call.h"

enum { MAX_TASKS = 16 };

typedef struct one_task {
    pageattn_task task;
    void *arg;
    int64_t begin, end;
} one_task;

static void *run_range(void *opaque)
{
    const one_task *range = opaque;
    for (int64_t i = range->begin; i < range->end; i++)
        range->task(range->arg, i);
    return NULL;
}

static void run_inline(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = 0; i < num_tasks; i++)
        task(arg, i);
}

static void run_in_reverse(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    for (int64_t i = num_tasks; i-- > 0;)
        task(arg, i);
}

static void run_on_one_other(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    one_task all = {task, arg, 0, num_tasks};
    pthread_t thread;
    (void)opaque;
    if (pthread_create(&thread, NULL, run_range, &all) == 0)
        pthread_join(thread, NULL);
}

/* As often as `times` says, each time on a thread of its own. */
static void run_each_on_its_own(int64_t num_tasks, pageattn_task task, void *arg, int times)
{
    one_task ranges[MAX_TASKS];
    pthread_t threads[MAX_TASKS];
    int num_started = 0;
    for (; num_started < num_tasks * times && num_started < MAX_TASKS; num_started++) {
        const int64_t index = num_started % num_tasks;
        ranges[num_started] = (one_task){task, arg, index, index + 1};
        if (pthread_create(&threads[num_started], NULL, run_range, &ranges[num_started]) != 0)
            break;
    }
    for (int i = 0; i < num_started; i++)
        pthread_join(threads[i], NULL);
}

static void run_on_many(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    run_each_on_its_own(num_tasks, task, arg, 1);
}

static void run_all_twice_at_once(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    (void)opaque;
    run_each_on_its_own(num_tasks, task, arg, 2);
}

static void run_beyond(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    run_inline(opaque, num_tasks, task, arg);
    task(arg, -1);
    task(arg, INT64_MIN);
    task(arg, INT64_MAX);
}

/* Another call, on another context, from inside a task's thread. */
static void run_with_a_call_inside(void *opaque, int64_t num_tasks, pageattn_task task, void *arg)
{
    for (int64_t i = 0; i < num_tasks; i++) {
        task(arg, i);
        if (!call_is_right(opaque))
            atomic_fetch_add(&num_wrong, 1);
    }
}

static void test_executor(const char *name,
                          void (*parallel_for)(void *, int64_t, pageattn_task, void *),
                          pageattn_status wanted)
{
    current_case = name;
    reset_counts();
    pageattn_context *other = create(2, 0, NULL);
    const pageattn_executor executor = {sizeof(executor), other, 5, parallel_for};
    pageattn_context *context = create(0, 0, &executor);
    for (int i = 0; i < num_calls(50); i++) {
        call mine;
        const pageattn_status status = make_call(context, &mine);
        if (status != wanted || (status == PAGEATTN_OK && !is_right(&mine)))
            atomic_fetch_add(&num_wrong, 1);
    }
    if (atomic_load(&num_wrong) != 0)
        check_failed(name, "%d calls were not \"%s\" or gave other bits", atomic_load(&num_wrong),
                     pageattn_status_name(wanted));
    else
        check_passed(name);
    pageattn_context_destroy(context);
    pageattn_context_destroy(other);
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    name_crashes();
    build_inputs();
    start_watch();
    test_executor("tasks one after the other", run_inline, PAGEATTN_OK);
    test_executor("tasks in reverse", run_in_reverse, PAGEATTN_OK);
    test_executor("tasks on one other thread", run_on_one_other, PAGEATTN_OK);
    test_executor("tasks on a thread each", run_on_many, PAGEATTN_OK);
    test_executor("calls between tasks", run_with_a_call_inside, PAGEATTN_OK);
    test_executor("tasks twice at the same time", run_all_twice_at_once, PAGEATTN_ERROR_EXECUTOR);
    test_executor("tasks out of range", run_beyond, PAGEATTN_ERROR_EXECUTOR);
    end_watch();
    paged_free(&shared);
    logical_free(&logical);
    return check_finish();
}
