/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the machine can do with a case's data, on the same threads as the attention call:
 *   - sequential read: the same number of bytes in the order of their addresses;
 *   - gather read: the same pages in the order in which the call reads them, each page a jump, with
 *     the best prefetch known, some pages ahead, spread over the reading of a page;
 *   - do multiply-adds and nothing else, by the instruction that the case's numerics use.
 * The work is cut into equal parts that workers claim, as the call's is, so that a neighbour who
 * takes a core for a while costs the limit no more than it costs the call.
 */
#ifndef CLI_LIMITS_H
#define CLI_LIMITS_H

#include "data.h"
#include "limit_loops.h"

typedef struct cli_leaf {
    int32_t seq;
    int32_t kv_head;
    int32_t begin; /* positions [begin, end) */
    int32_t end;
} cli_leaf;

typedef struct cli_limits {
    const cli_data *data;
    pageattn_context *context;
    const cli_limit_loops *loops;
    const cli_multiply_adds *multiply_adds;
    int64_t num_workers;
    int64_t num_parts;
    int64_t num_leaves;
    cli_leaf *leaves;      /* in the order of the call */
    int64_t *part_leaves;  /* part i is leaves [part_leaves[i], part_leaves[i + 1]) */
    int64_t num_rounds;    /* of multiply-adds, in a part */
    cli_prefetch prefetch; /* how the gather read prefetches */
    int64_t prefetch_bytes[CLI_MAX_PREFETCH_TIMES]; /* how far ahead; 0: not at all */
} cli_limits;

/* False, with a sentence, if there is no memory. */
bool cli_limits_create(const cli_data *data, pageattn_context *context, cli_limits *limits);
void cli_limits_destroy(cli_limits *limits);

/* One pass over the data each; false if threads could not be started. *digest is the exclusive or
 * of all 8-byte words that were read. */
bool cli_limits_read_sequential(const cli_limits *limits, uint64_t *digest);
bool cli_limits_read_gather(const cli_limits *limits, uint64_t *digest);

/* Runs num_parts * num_rounds rounds. */
bool cli_limits_multiply_add(const cli_limits *limits);

/* A sixteenth of the multiply-adds that the call can't do without. */
int64_t cli_limits_call_multiply_adds(const cli_data *data);

#endif
