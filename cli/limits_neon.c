/* SPDX-License-Identifier: Apache-2.0 */
/* The limit loops over lanes_neon.h. */
#include "isa/lanes_neon.h"

#define LIMIT_LOOPS cli_limit_loops_neon
#define VECTOR_BYTES 16
#define NUM_ACCUMULATORS 6
#include "limit_loops_stamp.h"
