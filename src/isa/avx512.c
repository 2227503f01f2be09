/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels over lanes_avx512.h. */
#include "lanes_avx512.h"

#define KERNELS pageattn_kernels_avx512
#include "../kernel/table.h"
