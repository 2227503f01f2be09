/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where everything lies in the scratch of a launch. Its size follows from shapes, types and options
 * alone, so that it can be lent, and so that a warm context allocates nothing.
 */
#ifndef PAGEATTN_SCRATCH_H
#define PAGEATTN_SCRATCH_H

#include <stdatomic.h>

#include "context.h"
#include "problem.h"

/* Offsets in bytes, each a multiple of PAGEATTN_SCRATCH_ALIGNMENT. */
typedef struct pageattn_scratch {
    size_t seqs;
    size_t tasks;
    size_t remaining;
    size_t partials;
    size_t workers;
    size_t total;

    int64_t state_floats;
    /* Inside the working memory of one worker. */
    size_t query;
    size_t logits;
    size_t states;
    size_t rows;
    size_t worker_total;
} pageattn_scratch;

/* What the working memory of a worker starts with. */
typedef struct pageattn_slot_header {
    atomic_flag entered;
} pageattn_slot_header;

/* Returns 0 if the sizes do not fit. */
int pageattn_scratch_lay_out(const pageattn_context *context, const pageattn_problem *problem,
                             pageattn_scratch *scratch);

#endif
