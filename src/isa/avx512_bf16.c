/* SPDX-License-Identifier: Apache-2.0 */
/* The fast kernels of AVX-512 over pairs_avx512_bf16.h. */
#include "pairs_avx512_bf16.h"

#define FAST_KERNELS pageattn_fast_kernels_avx512_bf16
#include "../kernel/fast_table.h"
