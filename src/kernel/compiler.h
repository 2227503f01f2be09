/* SPDX-License-Identifier: Apache-2.0 */
/* What kernels ask of the compiler beyond C. Include a lanes_*.h first. */
#ifndef PAGEATTN_KERNEL_COMPILER_H
#define PAGEATTN_KERNEL_COMPILER_H

#define KERNEL_INLINE static inline __attribute__((always_inline))
#define KERNEL_NO_INLINE __attribute__((noinline))

/* In front of a loop over a register tile, whose bounds are constants once it is inlined: unless it
 * is unrolled, the tile lies in memory. Compilers do it by themselves only at some levels. */
#if defined(__clang__)
#define KERNEL_UNROLL _Pragma("clang loop unroll(full)")
#define KERNEL_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define KERNEL_UNROLL _Pragma("GCC unroll 16")
#define KERNEL_NO_UNROLL _Pragma("GCC unroll 1")
#endif

/* Hides from the compiler how a position was computed, so that what goes by it keeps its place. */
#define KERNEL_OPAQUE(position) __asm__("" : "+r"(position))

/* Where branches stand between loads: with few registers clang does the loads ahead of them all,
 * and spills what it has loaded. */
#if defined(__clang__) && defined(LANES_FEW_REGISTERS)
#define KERNEL_IN_ORDER __asm__ volatile("" : : : "memory")
#else
#define KERNEL_IN_ORDER ((void)0)
#endif

#endif
