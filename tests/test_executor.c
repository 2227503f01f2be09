/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tests of the default thread pool and of the count of usable threads.
 *
 * Link with -Wl,--wrap=pthread_create,--wrap=syscall: the test makes threads fail or come late, and
 * counts the pool's futex calls. `--bench` measures the latency of fork/join instead.
 */
#define _GNU_SOURCE /* affinity, pthread_getname_np */

#include "../src/executor.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../src/usable_threads.h"
#include "thread_sanitizer.h"

#define MAX_TASKS 1000
#define MAX_THREADS 8
#define FOREVER_NS (INT64_C(600) * 1000000000)
#define HUNG_SECONDS 120

/* ---- Reporting ---- */

static const char *current_case;
static int num_passed, num_failed;
static char failure[1024];

/* The first failure of a case is the one worth reading. */
__attribute__((format(printf, 1, 2))) static void fail(const char *format, ...)
{
    if (failure[0] != '\0')
        return;
    va_list values;
    va_start(values, format);
    vsnprintf(failure, sizeof(failure), format, values);
    va_end(values);
}

#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fail(__VA_ARGS__);                                                                     \
    } while (0)

static void report_hung(int number)
{
    (void)number;
    static const char start[] = "FAILED ", end[] = ": hung\n";
    (void)!write(STDOUT_FILENO, start, sizeof(start) - 1);
    (void)!write(STDOUT_FILENO, current_case, strlen(current_case));
    (void)!write(STDOUT_FILENO, end, sizeof(end) - 1);
    _exit(1);
}

static void run_case(const char *name, void (*function)(void))
{
    current_case = name;
    failure[0] = '\0';
    alarm(HUNG_SECONDS);
    function();
    alarm(0);
    if (failure[0] == '\0')
        printf("ok %s\n", name);
    else
        printf("FAILED %s: %s\n", name, failure);
    num_passed += failure[0] == '\0';
    num_failed += failure[0] != '\0';
    fflush(stdout);
}

/* ---- What stands between the pool and the system ---- */

static atomic_int threads_until_failure = -1; /* pthread_create fails when this is 0 */
static atomic_bool threads_come_late;         /* new threads wait for the gate before they run */
static atomic_bool gate_open;
static atomic_int futex_waits_begun, futex_waits_ended, futex_wakes, futex_woken;

typedef struct thread_start {
    void *(*function)(void *);
    void *arg;
} thread_start;

int __real_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
int __wrap_pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
long __real_syscall(long, ...);
long __wrap_syscall(long, ...);

/* Relaxed: what watches the pool must not order its memory accesses and so hide a race. */
static void count(atomic_int *counter, int events)
{
    atomic_fetch_add_explicit(counter, events, memory_order_relaxed);
}

static void *start_at_gate(void *arg)
{
    thread_start start = *(thread_start *)arg;
    free(arg);
    while (!atomic_load(&gate_open))
        sched_yield();
    return start.function(start.arg);
}

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                          void *(*function)(void *), void *arg)
{
    int left = atomic_load(&threads_until_failure);
    if (left == 0)
        return EAGAIN;
    if (left > 0)
        atomic_store(&threads_until_failure, left - 1);
    if (!atomic_load(&threads_come_late))
        return __real_pthread_create(thread, attributes, function, arg);
    thread_start *start = malloc(sizeof(*start));
    if (start == NULL)
        return ENOMEM;
    *start = (thread_start){function, arg};
    return __real_pthread_create(thread, attributes, start_at_gate, start);
}

long __wrap_syscall(long number, ...)
{
    long a[6];
    va_list values;
    va_start(values, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(values, long);
    va_end(values);
    bool waits = number == SYS_futex && (int)a[1] == FUTEX_WAIT_PRIVATE;
    if (number == SYS_futex && !waits) {
        count(&futex_wakes, 1);
        count(&futex_woken, (int)a[2]);
    }
    count(&futex_waits_begun, waits);
    long result = __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    count(&futex_waits_ended, waits);
    return result;
}

/* Waits until `expected` threads are in, or just before, a futex wait. */
static void await_sleepers(int expected)
{
    while (atomic_load_explicit(&futex_waits_begun, memory_order_relaxed) -
               atomic_load_explicit(&futex_waits_ended, memory_order_relaxed) <
           expected)
        sched_yield();
}

/* ---- Pools ---- */

static int num_allocated, num_deallocated;
static size_t allocated_bytes, deallocated_bytes;

static void *count_allocate(void *context, size_t bytes, size_t alignment)
{
    (void)context;
    num_allocated++;
    allocated_bytes = bytes;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void count_deallocate(void *context, void *pointer, size_t bytes)
{
    (void)context;
    num_deallocated++;
    deallocated_bytes = bytes;
    free(pointer);
}

static void *plain_allocate(void *context, size_t bytes, size_t alignment)
{
    (void)context;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void plain_deallocate(void *context, void *pointer, size_t bytes)
{
    (void)context, (void)bytes;
    free(pointer);
}

static void *refuse_allocate(void *context, size_t bytes, size_t alignment)
{
    (void)context, (void)bytes, (void)alignment;
    return NULL;
}

static const pageattn_allocator plain_allocator = {sizeof(pageattn_allocator), NULL, plain_allocate,
                                                   plain_deallocate};

static pageattn_pool *create_pool(int32_t num_threads, int64_t spin_ns)
{
    pageattn_pool *pool = pageattn_pool_create(&plain_allocator, num_threads, spin_ns);
    if (pool == NULL) {
        printf("FAILED %s: out of memory\n", current_case);
        exit(1);
    }
    return pool;
}

static void parallel_for(pageattn_pool *pool, int64_t num_tasks, pageattn_task task, void *arg)
{
    pageattn_error error;
    pageattn_status status = pageattn_pool_parallel_for(pool, num_tasks, task, arg, &error);
    EXPECT(status == PAGEATTN_OK, "parallel_for of %lld tasks: %s", (long long)num_tasks,
           error.message);
}

/* ---- Tasks ---- */

/* Plain integers: that the caller may read them after the job is part of what is tested. */
typedef struct run_tally {
    int runs[MAX_TASKS];
} run_tally;

static void count_run(void *arg, int64_t index)
{
    ((run_tally *)arg)->runs[index]++;
}

static void run_and_check(pageattn_pool *pool, int64_t num_tasks)
{
    run_tally tally = {{0}};
    parallel_for(pool, num_tasks, count_run, &tally);
    for (int i = 0; i < MAX_TASKS; i++)
        EXPECT(tally.runs[i] == (i < num_tasks), "index %d of %lld ran %d times", i,
               (long long)num_tasks, tally.runs[i]);
}

/* Takes from nothing to about a microsecond, so that workers join early, late and never. */
static void count_run_later(void *arg, int64_t index)
{
    run_tally *tally = arg;
    for (volatile int i = (tally->runs[index] * 37 + (int)index * 101) % 500; i > 0; i--) {
    }
    tally->runs[index]++;
}

/* Each task waits until all run at the same time, so every one needs a thread of its own. */
typedef struct thread_meeting {
    atomic_int num_present;
    int num_expected;
    pthread_t threads[MAX_THREADS];
} thread_meeting;

static void meet(void *arg, int64_t index)
{
    thread_meeting *meeting = arg;
    meeting->threads[index] = pthread_self();
    atomic_fetch_add(&meeting->num_present, 1);
    while (atomic_load(&meeting->num_present) < meeting->num_expected)
        sched_yield();
}

static void hold_meeting(pageattn_pool *pool, int num_threads)
{
    thread_meeting meeting = {.num_expected = num_threads};
    parallel_for(pool, num_threads, meet, &meeting);
    for (int i = 0; i < num_threads; i++) {
        for (int j = 0; j < i; j++)
            EXPECT(!pthread_equal(meeting.threads[i], meeting.threads[j]),
                   "tasks %d and %d met on one thread", i, j);
    }
}

/* ---- Cases: jobs ---- */

static void test_every_index_once(void)
{
    static const int64_t num_tasks[] = {0, 1, 2, 7, 1000};
    for (int32_t num_threads = 1; num_threads <= MAX_THREADS; num_threads++) {
        pageattn_pool *pool = create_pool(num_threads, PAGEATTN_DEFAULT_SPIN_NS);
        for (size_t i = 0; i < sizeof(num_tasks) / sizeof(num_tasks[0]); i++)
            run_and_check(pool, num_tasks[i]);
        for (size_t i = sizeof(num_tasks) / sizeof(num_tasks[0]); i-- > 0;)
            run_and_check(pool, num_tasks[i]);
        pageattn_pool_destroy(pool);
    }
}

static void run_small_jobs(int32_t num_threads, int64_t spin_ns, int num_jobs)
{
    pageattn_pool *pool = create_pool(num_threads, spin_ns);
    run_tally tally = {{0}};
    int expected[MAX_THREADS + 1] = {0};
    for (int job = 0; job < num_jobs; job++) {
        int num_tasks = 1 + job % (num_threads + 1);
        parallel_for(pool, num_tasks, count_run_later, &tally);
        for (int i = 0; i < num_tasks; i++)
            expected[i]++;
    }
    for (int i = 0; i <= num_threads; i++)
        EXPECT(tally.runs[i] == expected[i], "%d threads: index %d ran %d times, not %d",
               num_threads, i, tally.runs[i], expected[i]);
    pageattn_pool_destroy(pool);
}

static void test_many_small_jobs(void)
{
    run_small_jobs(2, PAGEATTN_DEFAULT_SPIN_NS, 20000);
    run_small_jobs(3, 1000, 20000);
    run_small_jobs(MAX_THREADS, PAGEATTN_DEFAULT_SPIN_NS, 20000);
}

/* Without spinning, every job meets workers on their way into or out of sleep. */
static void test_small_jobs_without_spinning(void)
{
    run_small_jobs(2, 0, 20000);
    run_small_jobs(MAX_THREADS, 0, 5000);
}

typedef struct pool_nest {
    pageattn_pool *inner[2];
    run_tally tallies[2];
} pool_nest;

static void run_inner(void *arg, int64_t index)
{
    pool_nest *nest = arg;
    parallel_for(nest->inner[index], 7, count_run, &nest->tallies[index]);
}

static void *use_nested_pools(void *arg)
{
    const int num_jobs = 200;
    pool_nest *nest = arg;
    pageattn_pool *outer = create_pool(2, PAGEATTN_DEFAULT_SPIN_NS);
    for (int i = 0; i < 2; i++)
        nest->inner[i] = create_pool(2, PAGEATTN_DEFAULT_SPIN_NS);
    for (int job = 0; job < num_jobs; job++)
        parallel_for(outer, 2, run_inner, nest);
    for (int i = 0; i < 14; i++)
        EXPECT(nest->tallies[i / 7].runs[i % 7] == num_jobs, "inner index %d ran %d times, not %d",
               i % 7, nest->tallies[i / 7].runs[i % 7], num_jobs);
    for (int i = 0; i < 2; i++)
        pageattn_pool_destroy(nest->inner[i]);
    pageattn_pool_destroy(outer);
    return NULL;
}

static void test_nested_pools_on_two_threads(void)
{
    static pool_nest nests[2];
    pthread_t other;
    if (pthread_create(&other, NULL, use_nested_pools, &nests[0]) != 0) {
        fail("the test could not create a thread");
        return;
    }
    use_nested_pools(&nests[1]);
    pthread_join(other, NULL);
}

/* ---- Cases: sleeping and waking ---- */

static void test_sleeping_workers_wake(void)
{
    for (int num_threads = 2; num_threads <= MAX_THREADS; num_threads++) {
        pageattn_pool *pool = create_pool(num_threads, 0);
        hold_meeting(pool, num_threads);
        for (int i = 0; i < 20; i++) {
            await_sleepers(num_threads - 1);
            hold_meeting(pool, num_threads);
        }
        pageattn_pool_destroy(pool);
    }
}

static void test_hot_workers_need_no_system_call(void)
{
    pageattn_pool *pool = create_pool(2, FOREVER_NS);
    hold_meeting(pool, 2);
    int waits = atomic_load(&futex_waits_begun), wakes = atomic_load(&futex_wakes);
    for (int i = 0; i < 100; i++)
        hold_meeting(pool, 2);
    waits = atomic_load(&futex_waits_begun) - waits;
    wakes = atomic_load(&futex_wakes) - wakes;
    EXPECT(waits == 0 && wakes == 0, "%d futex waits and %d wakes instead of none", waits, wakes);
    pageattn_pool_destroy(pool);
}

static void test_no_more_are_woken_than_needed(void)
{
    pageattn_pool *pool = create_pool(MAX_THREADS, 0);
    hold_meeting(pool, MAX_THREADS);
    await_sleepers(MAX_THREADS - 1);
    for (int num_tasks = 2; num_tasks <= 3; num_tasks++) {
        int wakes = atomic_load(&futex_wakes), woken = atomic_load(&futex_woken);
        hold_meeting(pool, num_tasks);
        await_sleepers(MAX_THREADS - 1);
        wakes = atomic_load(&futex_wakes) - wakes;
        woken = atomic_load(&futex_woken) - woken;
        /* The caller may sleep until the last worker leaves, and is then woken itself. */
        EXPECT(wakes <= 2 && woken <= num_tasks, "%d tasks: %d woken by %d calls", num_tasks, woken,
               wakes);
        EXPECT(woken >= num_tasks - 1, "%d tasks: only %d woken", num_tasks, woken);
    }
    pageattn_pool_destroy(pool);
}

typedef struct slow_worker {
    pthread_t caller;
    thread_meeting meeting;
    int result;
} slow_worker;

static void work_slowly(void *arg, int64_t index)
{
    slow_worker *slow = arg;
    meet(&slow->meeting, index);
    if (pthread_equal(pthread_self(), slow->caller))
        return;
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    slow->result = 42;
}

static void test_caller_sleeps_until_a_slow_worker_is_done(void)
{
    pageattn_pool *pool = create_pool(2, 0);
    hold_meeting(pool, 2);
    for (int i = 0; i < 20; i++) {
        slow_worker slow = {.caller = pthread_self(), .meeting.num_expected = 2};
        await_sleepers(1);
        parallel_for(pool, 2, work_slowly, &slow);
        EXPECT(slow.result == 42, "parallel_for returned before its last task had");
    }
    pageattn_pool_destroy(pool);
}

static void use_late_workers(int num_threads)
{
    atomic_store(&gate_open, false);
    atomic_store(&threads_come_late, true);
    pageattn_pool *pool = create_pool(num_threads, PAGEATTN_DEFAULT_SPIN_NS);
    /* On the heap and freed, so that a worker that touches a job that is over is found out. */
    for (int i = 0; i < 100; i++) {
        run_tally *heap_tally = calloc(1, sizeof(*heap_tally));
        if (heap_tally == NULL)
            break;
        parallel_for(pool, num_threads, count_run, heap_tally);
        EXPECT(heap_tally->runs[num_threads - 1] == 1, "the caller alone did not run every task");
        free(heap_tally);
    }
    atomic_store(&gate_open, true);
    atomic_store(&threads_come_late, false);
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    hold_meeting(pool, num_threads);
    pageattn_pool_destroy(pool);
}

static void test_job_completes_without_workers_that_do_not_run(void)
{
    use_late_workers(2);
    use_late_workers(MAX_THREADS);
}

/* ---- Cases: fork and destroy ---- */

static void child_runs_jobs(pageattn_pool *pool)
{
    run_and_check(pool, 1000);
    hold_meeting(pool, 4);
    pageattn_pool_destroy(pool);
}

static void child_destroys(pageattn_pool *pool)
{
    pageattn_pool_destroy(pool);
}

static void fork_and_check(pageattn_pool *pool, void (*child)(pageattn_pool *), const char *what)
{
    fflush(stdout);
    pid_t id = fork();
    if (id == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* where the parent hangs, so does the child */
        child(pool);
        if (failure[0] != '\0')
            printf("in the child: %s\n", failure);
        fflush(stdout);
        _exit(failure[0] == '\0' ? 7 : 8);
    }
    int status = 0;
    EXPECT(id > 0 && waitpid(id, &status, 0) == id, "fork: %s", strerror(errno));
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 7, "%s: the child's wait status is 0x%x",
           what, (unsigned int)status);
}

static void fork_from_sleep_and_spin(void (*child)(pageattn_pool *))
{
    for (int spins = 0; spins <= 1; spins++) {
        pageattn_pool *pool = create_pool(4, spins ? FOREVER_NS : 0);
        hold_meeting(pool, 4);
        if (!spins)
            await_sleepers(3);
        fork_and_check(pool, child, spins ? "spinning workers" : "sleeping workers");
        hold_meeting(pool, 4);
        run_and_check(pool, 1000);
        pageattn_pool_destroy(pool);
    }
}

static void test_fork_and_run_jobs(void)
{
    fork_from_sleep_and_spin(child_runs_jobs);
}

static void test_fork_and_destroy(void)
{
    fork_from_sleep_and_spin(child_destroys);
}

static void fork_inside_task(void *arg, int64_t index)
{
    if (index == 0)
        fork_and_check(arg, child_runs_jobs, "inside a task");
}

/* The child gets a copy of the pool in the middle of a job, whose threads it does not have. */
static void test_fork_during_a_job(void)
{
    pageattn_pool *pool = create_pool(4, PAGEATTN_DEFAULT_SPIN_NS);
    hold_meeting(pool, 4);
    parallel_for(pool, 4, fork_inside_task, pool);
    hold_meeting(pool, 4);
    pageattn_pool_destroy(pool);
}

static void test_destroy(void)
{
    pageattn_pool_destroy(NULL);
    pageattn_pool_destroy(create_pool(4, 0));
    for (int i = 0; i < 50; i++) {
        pageattn_pool *sleeping = create_pool(4, 0);
        hold_meeting(sleeping, 4);
        await_sleepers(3);
        pageattn_pool_destroy(sleeping);

        pageattn_pool *spinning = create_pool(4, FOREVER_NS);
        hold_meeting(spinning, 4);
        pageattn_pool_destroy(spinning);

        /* On their way from spinning to sleep. */
        pageattn_pool *between = create_pool(4, 1000);
        run_and_check(between, 4);
        pageattn_pool_destroy(between);
    }
}

/* ---- Cases: resources that are refused ---- */

static void test_thread_creation_fails(void)
{
    pageattn_pool *pool = create_pool(5, PAGEATTN_DEFAULT_SPIN_NS);
    pageattn_error error = {PAGEATTN_OK, ""};
    run_tally tally = {{0}};
    sigset_t none, before, after;
    sigemptyset(&none);
    pthread_sigmask(SIG_SETMASK, &none, &before);
    atomic_store(&threads_until_failure, 2);
    pageattn_status status = pageattn_pool_parallel_for(pool, 7, count_run, &tally, &error);
    EXPECT(status == PAGEATTN_ERROR_THREAD && error.status == status,
           "status %d instead of %d; was the test linked with --wrap=pthread_create?", (int)status,
           (int)PAGEATTN_ERROR_THREAD);
    EXPECT(strstr(error.message, "worker thread 3 of 4") && strstr(error.message, "at most 3") &&
               strstr(error.message, strerror(EAGAIN)),
           "the message is: %s", error.message);
    for (int i = 0; i < 7; i++)
        EXPECT(tally.runs[i] == 0, "task %d ran in spite of the failure", i);
    pthread_sigmask(SIG_SETMASK, &before, &after);
    EXPECT(!sigismember(&after, SIGUSR1), "the caller's signal mask was changed");

    EXPECT(pageattn_pool_parallel_for(pool, 7, count_run, &tally, NULL) == PAGEATTN_ERROR_THREAD,
           "no error without a place for the message");
    hold_meeting(pool, 3);
    atomic_store(&threads_until_failure, -1);
    hold_meeting(pool, 5);
    pageattn_pool_destroy(pool);
}

static void test_allocation(void)
{
    const pageattn_allocator refusing = {sizeof(refusing), NULL, refuse_allocate, plain_deallocate};
    EXPECT(pageattn_pool_create(&refusing, 4, 0) == NULL, "a pool without memory");

    const pageattn_allocator counting = {sizeof(counting), NULL, count_allocate, count_deallocate};
    num_allocated = num_deallocated = 0;
    pageattn_pool *pool = pageattn_pool_create(&counting, 4, 0);
    EXPECT(num_allocated == 1, "%d allocations for one pool", num_allocated);
    if (pool == NULL)
        return;
    run_and_check(pool, 1000);
    pageattn_pool_destroy(pool);
    EXPECT(num_allocated == 1 && num_deallocated == 1 && allocated_bytes == deallocated_bytes,
           "%d allocations (%zu bytes), %d deallocations (%zu bytes)", num_allocated,
           allocated_bytes, num_deallocated, deallocated_bytes);
}

/* ---- Cases: the threads' own state ---- */

typedef struct worker_view {
    pthread_t caller;
    thread_meeting meeting;
    sigset_t mask;
    char name[16];
} worker_view;

static void look_at_worker(void *arg, int64_t index)
{
    worker_view *view = arg;
    meet(&view->meeting, index);
    if (pthread_equal(pthread_self(), view->caller))
        return;
    pthread_sigmask(SIG_SETMASK, NULL, &view->mask);
    pthread_getname_np(pthread_self(), view->name, sizeof(view->name));
}

static void check_signals(const sigset_t *mask)
{
    sigset_t before, after;
    worker_view view = {.caller = pthread_self(), .meeting.num_expected = 2};
    pageattn_pool *pool = create_pool(2, PAGEATTN_DEFAULT_SPIN_NS);
    pthread_sigmask(SIG_SETMASK, mask, &before);
    parallel_for(pool, 2, look_at_worker, &view);
    pthread_sigmask(SIG_SETMASK, &before, &after);
    /* The kernel leaves out SIGKILL and SIGSTOP, the C library its own. */
    EXPECT(sigismember(mask, SIGUSR1) == sigismember(&after, SIGUSR1) &&
               sigismember(mask, SIGSEGV) == sigismember(&after, SIGSEGV),
           "the caller's signal mask was changed");
    EXPECT(strcmp(view.name, "pageattn") == 0, "the thread's name is '%s'", view.name);
    EXPECT(sigismember(&view.mask, SIGINT) && sigismember(&view.mask, SIGALRM) &&
               sigismember(&view.mask, SIGCHLD) && sigismember(&view.mask, SIGUSR1),
           "a worker can receive the process's signals");
    EXPECT(sigismember(&view.mask, SIGSEGV) == sigismember(mask, SIGSEGV),
           "a worker's SIGSEGV is not as the caller has it");
    pageattn_pool_destroy(pool);
}

static void test_signals(void)
{
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    check_signals(&all);
    check_signals(&none);
}

/* ---- Cases: how many threads ---- */

static void *count_on_one_cpu(void *arg)
{
    cpu_set_t mask;
    (void)arg;
    sched_getaffinity(0, sizeof(mask), &mask);
    size_t cpu = 0;
    while (!CPU_ISSET(cpu, &mask))
        cpu++;
    CPU_ZERO(&mask);
    CPU_SET(cpu, &mask);
    EXPECT(sched_setaffinity(0, sizeof(mask), &mask) == 0, "sched_setaffinity: %s",
           strerror(errno));
    EXPECT(pageattn_affinity_cpus() == 1, "%d CPUs in a mask of one", pageattn_affinity_cpus());
    EXPECT(pageattn_usable_threads() == 1, "%d threads on one CPU", pageattn_usable_threads());
    return NULL;
}

static void test_usable_threads_follow_affinity(void)
{
    cpu_set_t mask;
    EXPECT(sched_getaffinity(0, sizeof(mask), &mask) == 0, "sched_getaffinity: %s",
           strerror(errno));
    EXPECT(pageattn_affinity_cpus() == CPU_COUNT(&mask), "%d CPUs, not %d",
           pageattn_affinity_cpus(), CPU_COUNT(&mask));
    pthread_t thread;
    if (pthread_create(&thread, NULL, count_on_one_cpu, NULL) == 0)
        pthread_join(thread, NULL);
    else
        fail("the test could not create a thread");
}

static void test_usable_threads_follow_environment(void)
{
    static const char *const not_set[] = {"", "0", "-3", "two", "2x", "1.5", "1,1", " ", "999999"};
    const char *value = getenv("PAGEATTN_NUM_THREADS");
    char *before = value == NULL ? NULL : strdup(value);
    unsetenv("PAGEATTN_NUM_THREADS");
    int32_t without = pageattn_usable_threads();
    for (size_t i = 0; i < sizeof(not_set) / sizeof(not_set[0]); i++) {
        setenv("PAGEATTN_NUM_THREADS", not_set[i], 1);
        EXPECT(pageattn_usable_threads() == without, "'%s' gives %d threads, not %d", not_set[i],
               pageattn_usable_threads(), without);
    }
    setenv("PAGEATTN_NUM_THREADS", "1", 1);
    EXPECT(pageattn_usable_threads() == 1, "'1' gives %d threads", pageattn_usable_threads());
    if (before == NULL)
        unsetenv("PAGEATTN_NUM_THREADS");
    else
        setenv("PAGEATTN_NUM_THREADS", before, 1);
    free(before);
}

static char fake_root[] = "/tmp/pageattn-test-XXXXXX";

/* Creates a file of the fake system, and the folders above it; NULL removes it. */
static void set_file(const char *name, const char *text)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/%s", fake_root, name);
    for (char *slash = path + strlen(fake_root) + 1; (slash = strchr(slash, '/')); slash++) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    if (text == NULL) {
        unlink(path);
        return;
    }
    FILE *file = fopen(path, "w");
    if (file == NULL || fputs(text, file) < 0 || fclose(file) != 0)
        fail("%s: %s", path, strerror(errno));
}

static void expect_cgroup_cpus(int32_t expected, const char *what)
{
    int32_t cpus = pageattn_cgroup_cpus(fake_root);
    EXPECT(cpus == expected, "%s: %d CPUs, not %d", what, cpus, expected);
}

static void test_quota_of_version_2(void)
{
    expect_cgroup_cpus(INT32_MAX, "no files at all");
    set_file("proc/self/cgroup", "0::/a.slice/b\\x2dc\n");
    set_file("proc/self/mountinfo", "22 1 0:1 / / rw - ext4 /dev/root rw\n"
                                    "30 22 0:26 / /cg rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
    expect_cgroup_cpus(INT32_MAX, "no quota file");
    set_file("cg/a.slice/b\\x2dc/cpu.max", "max 100000\n");
    expect_cgroup_cpus(INT32_MAX, "max");
    set_file("cg/a.slice/b\\x2dc/cpu.max", "300000 100000\n");
    expect_cgroup_cpus(3, "own group");
    set_file("cg/a.slice/cpu.max", "150000 100000\n");
    expect_cgroup_cpus(2, "the group above, rounded up");
    set_file("cg/a.slice/b\\x2dc/cpu.max", "1000 100000\n");
    expect_cgroup_cpus(1, "a hundredth of a CPU");
    set_file("cg/a.slice/b\\x2dc/cpu.max", "nonsense\n");
    expect_cgroup_cpus(2, "nonsense is no limit");
    /* In a container the group itself may be what is mounted. */
    set_file("proc/self/mountinfo", "30 22 0:26 /a.slice/b\\134x2dc /cg rw - cgroup2 none rw\n");
    set_file("cg/cpu.max", "400000 100000\n");
    expect_cgroup_cpus(4, "mounted group");
    set_file("proc/self/mountinfo", "30 22 0:26 /a.slic /cg rw - cgroup2 none rw\n");
    expect_cgroup_cpus(INT32_MAX, "a mount of another group");
    set_file("proc/self/mountinfo", "30 22\n- - - - - -\n\n30 22 0:26 / /cg rw -\n");
    expect_cgroup_cpus(INT32_MAX, "malformed mountinfo");
    /* An escape has three digits: one that is cut short must not run into the next field. */
    set_file("proc/self/mountinfo", "30 22 0:26 /a.slice/b\\134x2dc /cg\\1 rw - cgroup2 none rw\n");
    set_file("cg\\1/cpu.max", "500000 100000\n");
    expect_cgroup_cpus(5, "an escape that is cut short");
}

static void test_quota_of_version_1(void)
{
    set_file("proc/self/cgroup", "5:cpuset:/x\n4:cpu,cpuacct:/g/h\n0::/\n");
    set_file("proc/self/mountinfo",
             "30 22 0:26 / /v1/cpuset rw - cgroup cgroup rw,cpuset\n"
             "31 22 0:27 / /v1/cpu rw shared:9 master:1 - cgroup cgroup rw,cpuacct,cpu\n");
    expect_cgroup_cpus(INT32_MAX, "no quota file");
    set_file("v1/cpu/g/h/cpu.cfs_quota_us", "-1\n");
    set_file("v1/cpu/g/h/cpu.cfs_period_us", "100000\n");
    expect_cgroup_cpus(INT32_MAX, "quota -1");
    set_file("v1/cpu/g/h/cpu.cfs_quota_us", "250000\n");
    expect_cgroup_cpus(3, "own group");
    set_file("v1/cpu/cpu.cfs_quota_us", "50000\n");
    set_file("v1/cpu/cpu.cfs_period_us", "50000\n");
    expect_cgroup_cpus(1, "the topmost group");
    set_file("v1/cpu/cpu.cfs_period_us", "0\n");
    expect_cgroup_cpus(3, "a period of 0 is no limit");
}

static void with_fake_root(void (*function)(void))
{
    char command[sizeof(fake_root) + 16];
    strcpy(fake_root + strlen(fake_root) - 6, "XXXXXX");
    if (mkdtemp(fake_root) == NULL) {
        fail("mkdtemp: %s", strerror(errno));
        return;
    }
    function();
    snprintf(command, sizeof(command), "rm -r %s", fake_root);
    EXPECT(system(command) == 0, "%s failed", command);
}

static void test_cgroup_v2(void)
{
    with_fake_root(test_quota_of_version_2);
}

static void test_cgroup_v1(void)
{
    with_fake_root(test_quota_of_version_1);
}

/* ---- Benchmark ---- */

static void do_nothing(void *arg, int64_t index)
{
    (void)arg, (void)index;
}

static void meet_spinning(void *arg, int64_t index)
{
    thread_meeting *meeting = arg;
    (void)index;
    atomic_fetch_add_explicit(&meeting->num_present, 1, memory_order_relaxed);
    while (atomic_load_explicit(&meeting->num_present, memory_order_relaxed) <
           meeting->num_expected) {
    }
}

static int compare_int64(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void measure(const char *what, pageattn_task task, int num_threads, int64_t spin_ns)
{
    enum { NUM_JOBS = 4001 };
    static int64_t times[NUM_JOBS];
    pageattn_pool *pool = create_pool(num_threads, spin_ns);
    hold_meeting(pool, num_threads);
    for (int job = 0; job < NUM_JOBS; job++) {
        thread_meeting meeting = {.num_expected = num_threads};
        if (spin_ns == 0)
            await_sleepers(num_threads - 1);
        int64_t start = clock_ns();
        parallel_for(pool, num_threads, task, &meeting);
        times[job] = clock_ns() - start;
    }
    qsort(times, NUM_JOBS, sizeof(times[0]), compare_int64);
    printf("%-44s %d threads: median %7.2f us, p95 %7.2f us\n", what, num_threads,
           (double)times[NUM_JOBS / 2] / 1e3, (double)times[NUM_JOBS * 95 / 100] / 1e3);
    pageattn_pool_destroy(pool);
}

static int benchmark(void)
{
    int cpus = pageattn_affinity_cpus();
    int most = cpus < MAX_THREADS ? cpus : MAX_THREADS;
    current_case = "benchmark";
    for (int num_threads = 2; num_threads <= most; num_threads *= 2) {
        measure("hot, empty tasks", do_nothing, num_threads, FOREVER_NS);
        measure("hot, all threads meet", meet_spinning, num_threads, FOREVER_NS);
        measure("asleep, all threads meet", meet_spinning, num_threads, 0);
    }
    if (most < 2)
        printf("one CPU: nothing to measure\n");
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--bench") == 0)
        return benchmark();
    signal(SIGALRM, report_hung);
    run_case("every index runs once", test_every_index_once);
    run_case("20,000 small jobs", test_many_small_jobs);
    run_case("small jobs without spinning", test_small_jobs_without_spinning);
    run_case("nested pools on two threads", test_nested_pools_on_two_threads);
    run_case("sleeping workers wake", test_sleeping_workers_wake);
    run_case("hot workers need no system call", test_hot_workers_need_no_system_call);
    run_case("no more are woken than needed", test_no_more_are_woken_than_needed);
    run_case("the caller sleeps until a slow worker is done",
             test_caller_sleeps_until_a_slow_worker_is_done);
    run_case("a job completes without workers that do not run",
             test_job_completes_without_workers_that_do_not_run);
    run_case("fork, and destroy in the child", test_fork_and_destroy);
    if (CHILD_MAY_START_THREADS) {
        run_case("fork, and jobs in the child", test_fork_and_run_jobs);
        run_case("fork during a job", test_fork_during_a_job);
    } else {
        printf("skipped fork, and jobs in the child: impossible under gcc's ThreadSanitizer\n"
               "skipped fork during a job: impossible under gcc's ThreadSanitizer\n");
    }
    run_case("destroy", test_destroy);
    run_case("thread creation fails", test_thread_creation_fails);
    run_case("allocation", test_allocation);
    run_case("signals and names", test_signals);
    run_case("usable threads follow affinity", test_usable_threads_follow_affinity);
    run_case("usable threads follow the environment", test_usable_threads_follow_environment);
    run_case("usable threads follow cgroup v2", test_cgroup_v2);
    run_case("usable threads follow cgroup v1", test_cgroup_v1);
    printf("%d passed, %d failed\n", num_passed, num_failed);
    return num_failed != 0;
}
