/* SPDX-License-Identifier: Apache-2.0 */
/* The limit loops over lanes_avx512.h. */
#include "isa/lanes_avx512.h"

#define LIMIT_LOOPS cli_limit_loops_avx512
#define VECTOR_BYTES 64
#define NUM_ACCUMULATORS 12
#include "limit_loops_stamp.h"
