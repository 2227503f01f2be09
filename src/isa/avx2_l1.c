/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels over lanes_avx2.h, for CPUs whose L1 can wait for many lines. */
#include "lanes_avx2.h"

#define PREFETCH_INTO_L1
#define KERNELS pageattn_kernels_avx2_l1
#include "../kernel/table.h"
