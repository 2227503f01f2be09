/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels over lanes_scalar.h. */
#include "lanes_scalar.h"

#define KERNELS pageattn_kernels_scalar
#include "../kernel/table.h"
