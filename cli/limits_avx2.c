/* SPDX-License-Identifier: Apache-2.0 */
/* The limit loops over lanes_avx2.h. */
#include "isa/lanes_avx2.h"

#define LIMIT_LOOPS cli_limit_loops_avx2
#define VECTOR_BYTES 32
#define NUM_ACCUMULATORS 6
#include "limit_loops_stamp.h"
