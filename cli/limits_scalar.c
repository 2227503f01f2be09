/* SPDX-License-Identifier: Apache-2.0 */
/* The limit loops over lanes_scalar.h. */
#include "isa/lanes_scalar.h"

#define LIMIT_LOOPS cli_limit_loops_scalar
#define VECTOR_BYTES 16
#define NUM_ACCUMULATORS 2
#include "limit_loops_stamp.h"
