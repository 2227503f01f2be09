/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floating-point environment that the arithmetic is defined in: round to nearest, no
 * flush-to-zero, no denormals-are-zero, no traps. Callers' threads, XLA's and torch's among them,
 * may have set others; every task enters this one and leaves its own behind as it was.
 */
#ifndef PAGEATTN_FLOAT_ENVIRONMENT_H
#define PAGEATTN_FLOAT_ENVIRONMENT_H

#include <stdint.h>

#if defined(__x86_64__)
#include <xmmintrin.h>

typedef uint32_t pageattn_float_environment;

/* All exceptions masked, everything else off: MXCSR's value at reset. */
static inline pageattn_float_environment pageattn_float_environment_enter(void)
{
    const pageattn_float_environment before = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return before;
}

static inline void pageattn_float_environment_leave(pageattn_float_environment before)
{
    _mm_setcsr(before);
}

#elif defined(__aarch64__)

typedef uint64_t pageattn_float_environment;

static inline pageattn_float_environment pageattn_float_environment_enter(void)
{
    pageattn_float_environment before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return before;
}

static inline void pageattn_float_environment_leave(pageattn_float_environment before)
{
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
}

#else
#include <fenv.h>

typedef fenv_t pageattn_float_environment;

/* The C library knows the register of every other processor; this is slower. */
static inline pageattn_float_environment pageattn_float_environment_enter(void)
{
    pageattn_float_environment before;
    fegetenv(&before);
    fesetenv(FE_DFL_ENV);
    return before;
}

static inline void pageattn_float_environment_leave(pageattn_float_environment before)
{
    fesetenv(&before);
}

#endif

#endif
