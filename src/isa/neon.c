/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels over lanes_neon.h. */
#include "lanes_neon.h"

#define KERNELS pageattn_kernels_neon
#include "../kernel/table.h"
