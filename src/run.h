/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a checked call: plans it, executes the plan on the context's workers, merges, writes. */
#ifndef PAGEATTN_RUN_H
#define PAGEATTN_RUN_H

#include "context.h"
#include "problem.h"

/* The scratch that a call of these sizes needs, whatever its context lengths are.
 * Returns 0 if that does not fit a size_t. */
size_t pageattn_run_scratch_bytes(const pageattn_context *context, const pageattn_problem *problem);

/* `scratch` has that many bytes, aligned to PAGEATTN_SCRATCH_ALIGNMENT.
 * Errors: THREAD, EXECUTOR and CHANGED. */
pageattn_status pageattn_run(const pageattn_context *context, const pageattn_problem *problem,
                             void *scratch, pageattn_error *error);

#endif
