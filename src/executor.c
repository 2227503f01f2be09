/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The default thread pool on Linux futexes: see executor.h for what it promises.
 *
 * May assume: one thread at a time uses the pool, and no task uses the pool it runs on.
 *
 * The protocol. `state` is one atomic word:
 *
 *     epoch : 30 | stop : 1 | caller_sleeps : 1 | seats : 16 | active : 16
 *
 *   - The caller opens a job by storing a new epoch and as many seats as threads may join it.
 *   - A worker joins by a compare-and-swap that moves one from seats to active. It fails once the
 *     seats are gone. Only a worker that has joined touches the job's fields, and it leaves by
 *     taking itself off active.
 *   - The caller closes the job by clearing the seats, which leaves latecomers nothing to join, and
 *     then waits until active is zero. So it never waits for a worker that did not join, and no
 *     worker ever sees a job that is over. The epoch keeps a worker from joining one job twice.
 *
 * Memory order. The store that opens a job releases its fields and the join acquires them; leaving
 * releases the effects of the tasks, and the caller's reading of active == 0 acquires them. Between
 * these two the caller changes nothing, so the fields need not be atomic. Read-modify-writes
 * continue a release sequence: the caller acquires from all who left, not from the last only. The
 * task counter hands out numbers and publishes nothing, so it is relaxed.
 *
 * Sleep. A worker announces its sleep, then looks at `state` once more; a waker changes `state`,
 * then looks at the count of sleepers. All four are sequentially consistent, so at least one of
 * them sees the other, and no wake-up is lost. With hot workers there is nobody to wake, and no
 * system call.
 */
#define _DEFAULT_SOURCE /* syscall */

#include "executor.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "error.h"
#include "usable_threads.h"
#include "wait.h"

#define ONE_ACTIVE UINT64_C(1)
#define ONE_SEAT (UINT64_C(1) << 16)
#define CALLER_SLEEPS (UINT64_C(1) << 32)
#define STOP (UINT64_C(1) << 33)
#define ONE_EPOCH (UINT64_C(1) << 34)
#define ACTIVE_MASK (ONE_SEAT - ONE_ACTIVE)
#define SEATS_MASK (CALLER_SLEEPS - ONE_SEAT)
#define EPOCH_MASK (~(ONE_EPOCH - 1))

_Static_assert(PAGEATTN_MAX_THREADS <= ACTIVE_MASK, "a count of threads does not fit the state");

/* Everybody who is awake wakes this many at most: a tree of wake-ups reaches the last of n sleepers
 * after log(n) system calls instead of n, and keeps the caller from its own work only briefly. */
#define WAKE_FANOUT 2
#define CACHE_LINE_BYTES 64

struct pageattn_pool {
    pageattn_allocator allocator;
    size_t allocated_bytes;
    int64_t spin_ns;
    pid_t owner; /* the process that the threads belong to */
    int32_t num_threads;
    int32_t num_started;

    /* The job: written while no worker is joined, read by those who are. */
    int64_t num_tasks;
    pageattn_task task;
    void *arg;

    _Alignas(CACHE_LINE_BYTES) _Atomic uint64_t state;
    atomic_bool yields; /* there are more threads than CPUs */
    _Alignas(CACHE_LINE_BYTES) _Atomic int64_t next_task;
    _Alignas(CACHE_LINE_BYTES) sleeper_count sleepers;
    _Atomic uint32_t finished; /* futex: the caller sleeps while it is 0 */

    _Alignas(CACHE_LINE_BYTES) pthread_t threads[];
};

static int64_t num_active(uint64_t state)
{
    return (int64_t)(state & ACTIVE_MASK);
}

static int64_t num_seats(uint64_t state)
{
    return (int64_t)((state & SEATS_MASK) / ONE_SEAT);
}

static int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Wakes for the seats of `state` that the threads now awake and idle will not take. */
static void wake_for_seats(pageattn_pool *pool, uint64_t state)
{
    int64_t sleepers = atomic_load(&pool->sleepers.count);
    int64_t idle = pool->num_started - sleepers - num_active(state);
    int64_t missing = num_seats(state) - idle;
    if (missing > 0)
        wake_sleepers(&pool->sleepers, (uint32_t)min_i64(missing, WAKE_FANOUT));
}

static bool has_news(uint64_t state, uint64_t seen_epoch)
{
    return (state & STOP) != 0 || (num_seats(state) > 0 && (state & EPOCH_MASK) != seen_epoch);
}

static bool keep_spinning(pageattn_pool *pool, spin_state *spin)
{
    bool yields = atomic_load_explicit(&pool->yields, memory_order_relaxed);
    return spin_once(spin, pool->spin_ns, yields);
}

static void sleep_until_woken(pageattn_pool *pool, uint64_t seen_epoch)
{
    announce_sleep(&pool->sleepers);
    if (has_news(atomic_load(&pool->state), seen_epoch) && withdraw_sleep(&pool->sleepers))
        return;
    sleep_announced(&pool->sleepers);
}

static uint64_t wait_for_news(pageattn_pool *pool, uint64_t seen_epoch, spin_state *spin)
{
    uint64_t state = atomic_load_explicit(&pool->state, memory_order_relaxed);
    while (!has_news(state, seen_epoch)) {
        if (!keep_spinning(pool, spin)) {
            sleep_until_woken(pool, seen_epoch);
            *spin = (spin_state){0};
        }
        state = atomic_load_explicit(&pool->state, memory_order_relaxed);
    }
    return state;
}

/* Joins the open job; *state becomes the last state seen, with this thread in it if it joined. */
static bool join_job(pageattn_pool *pool, uint64_t *state)
{
    while (num_seats(*state) > 0) {
        uint64_t joined = *state - ONE_SEAT + ONE_ACTIVE;
        if (atomic_compare_exchange_weak(&pool->state, state, joined)) {
            *state = joined;
            return true;
        }
    }
    return false;
}

static void leave_job(pageattn_pool *pool)
{
    uint64_t before = atomic_fetch_sub_explicit(&pool->state, ONE_ACTIVE, memory_order_acq_rel);
    if (num_active(before) == 1 && (before & CALLER_SLEEPS) != 0) {
        atomic_store_explicit(&pool->finished, 1, memory_order_release);
        futex_wake(&pool->finished, 1);
    }
}

static void run_tasks(pageattn_pool *pool)
{
    for (;;) {
        int64_t index = atomic_fetch_add_explicit(&pool->next_task, 1, memory_order_relaxed);
        if (index >= pool->num_tasks)
            return;
        pool->task(pool->arg, index);
    }
}

static void *run_worker(void *arg)
{
    pageattn_pool *pool = arg;
    uint64_t seen_epoch = 0;
    spin_state spin = {0}; /* lasts until a job is joined: a worker not needed soon sleeps */
    prctl(PR_SET_NAME, "pageattn");
    for (;;) {
        uint64_t state = wait_for_news(pool, seen_epoch, &spin);
        if ((state & STOP) != 0)
            return NULL;
        bool joined = join_job(pool, &state);
        seen_epoch = state & EPOCH_MASK;
        if (!joined)
            continue;
        wake_for_seats(pool, state);
        run_tasks(pool);
        leave_job(pool);
        spin = (spin_state){0};
    }
}

static uint64_t open_job(pageattn_pool *pool, int64_t num_tasks, pageattn_task task, void *arg)
{
    pool->num_tasks = num_tasks;
    pool->task = task;
    pool->arg = arg;
    atomic_store_explicit(&pool->next_task, 0, memory_order_relaxed);
    uint64_t before = atomic_load_explicit(&pool->state, memory_order_relaxed);
    uint64_t seats = (uint64_t)min_i64(num_tasks - 1, pool->num_started);
    uint64_t state = (before & EPOCH_MASK) + ONE_EPOCH + seats * ONE_SEAT;
    atomic_store(&pool->state, state);
    return state;
}

static void close_job(pageattn_pool *pool)
{
    spin_state spin = {0};
    uint64_t state = atomic_fetch_and_explicit(&pool->state, ~SEATS_MASK, memory_order_acquire);
    while (num_active(state) > 0 && keep_spinning(pool, &spin))
        state = atomic_load_explicit(&pool->state, memory_order_acquire);
    if (num_active(state) == 0)
        return;
    atomic_store_explicit(&pool->finished, 0, memory_order_relaxed);
    state = atomic_fetch_or_explicit(&pool->state, CALLER_SLEEPS, memory_order_acq_rel);
    if (num_active(state) == 0)
        return;
    /* From here on the last one to leave has seen the bit, and will set the word. */
    while (atomic_load_explicit(&pool->finished, memory_order_acquire) == 0)
        futex_wait(&pool->finished, 0);
}

/* All but the signals that a thread raises by what it does: blocked, these would kill the process
 * past the host's crash handler. */
static void block_signals(sigset_t *before)
{
    static const int raised_by_code[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    sigset_t blocked;
    sigfillset(&blocked);
    for (size_t i = 0; i < sizeof(raised_by_code) / sizeof(raised_by_code[0]); i++)
        sigdelset(&blocked, raised_by_code[i]);
    pthread_sigmask(SIG_BLOCK, &blocked, before);
}

static pageattn_status fail_to_start(const pageattn_pool *pool, int32_t num_needed, int code,
                                     pageattn_error *error)
{
    char reason[128] = "";
    (void)strerror_r(code, reason, sizeof(reason)); /* the number is in the message too */
    return pageattn_fail(
        error, PAGEATTN_ERROR_THREAD,
        "worker thread %d of %d could not be created: %s (error %d); raise the limit on threads "
        "(ulimit -u, the control group's pids.max) or on memory, or set num_threads or "
        "PAGEATTN_NUM_THREADS to at most %d, the calling thread and those that could be created",
        (int)pool->num_started + 1, (int)num_needed, reason, code, (int)pool->num_started + 1);
}

static pageattn_status start_threads(pageattn_pool *pool, int32_t num_needed, pageattn_error *error)
{
    int code = 0;
    sigset_t signals;
    block_signals(&signals);
    while (code == 0 && pool->num_started < num_needed) {
        code = pthread_create(&pool->threads[pool->num_started], NULL, run_worker, pool);
        if (code == 0)
            pool->num_started++;
    }
    pthread_sigmask(SIG_SETMASK, &signals, NULL);
    bool yields = pool->num_started >= pageattn_affinity_cpus();
    atomic_store_explicit(&pool->yields, yields, memory_order_relaxed);
    return code == 0 ? PAGEATTN_OK : fail_to_start(pool, num_needed, code, error);
}

/* A fork copies the memory, perhaps in the middle of a job, but no thread. */
static void forget_threads(pageattn_pool *pool)
{
    pool->owner = getpid();
    pool->num_started = 0;
    atomic_store(&pool->state, 0);
    atomic_store(&pool->sleepers.count, 0);
    atomic_store(&pool->sleepers.permits, 0);
}

pageattn_pool *pageattn_pool_create(const pageattn_allocator *allocator, int32_t num_threads,
                                    int64_t spin_ns)
{
    size_t bytes = sizeof(pageattn_pool) + (size_t)(num_threads - 1) * sizeof(pthread_t);
    pageattn_pool *pool = allocator->allocate(allocator->context, bytes, _Alignof(pageattn_pool));
    if (pool == NULL)
        return NULL;
    memset(pool, 0, bytes);
    pool->allocator = *allocator;
    pool->allocated_bytes = bytes;
    pool->spin_ns = spin_ns;
    pool->num_threads = num_threads;
    forget_threads(pool);
    return pool;
}

void pageattn_pool_destroy(pageattn_pool *pool)
{
    if (pool == NULL)
        return;
    if (pool->owner == getpid()) {
        atomic_fetch_or(&pool->state, STOP);
        wake_sleepers(&pool->sleepers, (uint32_t)pool->num_started);
        for (int32_t i = 0; i < pool->num_started; i++)
            pthread_join(pool->threads[i], NULL);
    }
    pageattn_allocator allocator = pool->allocator;
    allocator.deallocate(allocator.context, pool, pool->allocated_bytes);
}

pageattn_status pageattn_pool_start(pageattn_pool *pool, int64_t num_tasks, pageattn_error *error)
{
    int32_t num_needed = (int32_t)min_i64(num_tasks, pool->num_threads) - 1;
    if (pool->owner != getpid())
        forget_threads(pool);
    return pool->num_started < num_needed ? start_threads(pool, num_needed, error) : PAGEATTN_OK;
}

pageattn_status pageattn_pool_parallel_for(pageattn_pool *pool, int64_t num_tasks,
                                           pageattn_task task, void *arg, pageattn_error *error)
{
    if (num_tasks <= 1 || pool->num_threads == 1) {
        for (int64_t i = 0; i < num_tasks; i++)
            task(arg, i);
        return PAGEATTN_OK;
    }
    pageattn_status status = pageattn_pool_start(pool, num_tasks, error);
    if (status != PAGEATTN_OK)
        return status;
    wake_for_seats(pool, open_job(pool, num_tasks, task, arg));
    run_tasks(pool);
    close_job(pool);
    return PAGEATTN_OK;
}
