/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a thread waits: it spins for a bounded time, then it sleeps on a futex.
 *
 * Linux only. Only executor.c includes this; it says which memory order its waiting needs.
 */
#ifndef PAGEATTN_WAIT_H
#define PAGEATTN_WAIT_H

#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Returns at once if *word is not `expected`, and may return for no reason: callers loop. */
static inline void futex_wait(_Atomic uint32_t *word, uint32_t expected)
{
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static inline void futex_wake(_Atomic uint32_t *word, uint32_t count)
{
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* ---- Spinning ---- */

/* Reading the clock costs as much as a pause or more, so it is read only now and then. */
#define PAUSES_PER_CLOCK 32

/* Starts as {0}. */
typedef struct spin_state {
    int64_t start_ns; /* 0: the clock has not been read yet */
    uint32_t num_pauses;
} spin_state;

/* False where the clock may not be read, as in some sandboxes. */
static inline bool read_clock(int64_t *now_ns)
{
    struct timespec now;
    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        return false;
    *now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    return true;
}

static inline void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* `yield` is a no-op on most of these CPUs and does not slow a spin */
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* One step of a wait; false when it has lasted for spin_ns, or nobody knows how long. Where the one
 * that is waited for may need this very CPU, `yields` offers it at each step. */
static inline bool spin_once(spin_state *spin, int64_t spin_ns, bool yields)
{
    if (yields) {
        sched_yield();
    } else {
        pause_cpu();
        if (++spin->num_pauses % PAUSES_PER_CLOCK != 0)
            return true;
    }
    int64_t now;
    if (!read_clock(&now))
        return false;
    if (spin->start_ns == 0)
        spin->start_ns = now;
    return now - spin->start_ns < spin_ns;
}

/* ---- A count of sleepers that is exact at any time ---- */

/* A waker takes those it wakes off the count and hands out a permit for each, however long the
 * woken need to arrive: so nobody is woken twice, and nobody who is awake is woken at all. */
typedef struct sleeper_count {
    _Atomic uint32_t count;
    _Atomic uint32_t permits; /* futex: 0 is slept on */
} sleeper_count;

/* Takes one off a count unless it is zero. */
static inline bool take_one(_Atomic uint32_t *count)
{
    uint32_t value = atomic_load(count);
    while (value > 0) {
        if (atomic_compare_exchange_weak(count, &value, value - 1))
            return true;
    }
    return false;
}

/* Announces this thread as a sleeper. Then either sleep_announced or withdraw. */
static inline void announce_sleep(sleeper_count *sleepers)
{
    atomic_fetch_add(&sleepers->count, 1);
}

/* False if all sleepers were woken already: one permit is meant for this thread, which must fetch
 * it with sleep_announced. */
static inline bool withdraw_sleep(sleeper_count *sleepers)
{
    return take_one(&sleepers->count);
}

static inline void sleep_announced(sleeper_count *sleepers)
{
    while (!take_one(&sleepers->permits))
        futex_wait(&sleepers->permits, 0);
}

static inline void wake_sleepers(sleeper_count *sleepers, uint32_t most)
{
    uint32_t present = atomic_load(&sleepers->count);
    uint32_t count;
    do {
        count = most < present ? most : present;
        if (count == 0)
            return;
    } while (!atomic_compare_exchange_weak(&sleepers->count, &present, present - count));
    atomic_fetch_add(&sleepers->permits, count);
    futex_wake(&sleepers->permits, count);
}

#endif
