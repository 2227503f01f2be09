/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of pageattn_check_args, in the order in which they run; each relies on those before. */
#ifndef PAGEATTN_CHECK_PARTS_H
#define PAGEATTN_CHECK_PARTS_H

#include "check.h"
#include "operands.h"

/* Types, ranks and sizes. Fills `sizes`, indexed with pageattn_axis. */
pageattn_status pageattn_check_types(const pageattn_args *args, pageattn_error *error);
pageattn_status pageattn_check_shapes(const pageattn_args *args, int64_t *sizes,
                                      pageattn_error *error);

/* Everything of pageattn_args that is no tensor and no scratch. */
pageattn_status pageattn_check_options(const pageattn_args *args, const int64_t *sizes,
                                       pageattn_error *error);

/* Products of sizes, offsets, contiguous rows, outputs that overlap themselves. */
pageattn_status pageattn_check_strides(const pageattn_args *args, const int64_t *sizes,
                                       pageattn_error *error);

/* Where the tensors and a lent scratch lie: null, alignment, the end of the address space,
 * overlap. */
pageattn_status pageattn_check_memory(const pageattn_args *args, pageattn_error *error);

/* The values of context_lens and block_tables. */
pageattn_status pageattn_check_tables(const pageattn_args *args, const pageattn_problem *problem,
                                      pageattn_error *error);

#endif
