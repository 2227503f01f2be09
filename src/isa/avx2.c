/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels over lanes_avx2.h. */
#include "lanes_avx2.h"

#define KERNELS pageattn_kernels_avx2
#include "../kernel/table.h"
