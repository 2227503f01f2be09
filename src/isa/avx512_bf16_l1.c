/* SPDX-License-Identifier: Apache-2.0 */
/* The fast kernels over pairs_avx512_bf16.h, for CPUs whose L1 can wait for many lines. */
#include "pairs_avx512_bf16.h"

#define PREFETCH_INTO_L1
#define FAST_KERNELS pageattn_fast_kernels_avx512_bf16_l1
#include "../kernel/fast_table.h"
