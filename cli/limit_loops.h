/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loops whose speed is a limit of the machine, one const table for each instruction set: memory
 * can't be read faster than by a loop that only reads, nor multiply-adds done faster than by one
 * that only does them.
 */
#ifndef CLI_LIMIT_LOOPS_H
#define CLI_LIMIT_LOOPS_H

#include <pageattn/pageattn.h>

/* Bytes that lie side by side: a multiple of CLI_READ_BYTES at a multiple of it. */
typedef struct cli_chunk {
    const char *data;
    int64_t bytes;
} cli_chunk;

#define CLI_READ_BYTES 16

/* So many chunks later in a stream of them, and so many bytes: less than a chunk has. */
typedef struct cli_distance {
    int64_t chunks;
    int64_t bytes;
} cli_distance;

/* Multiply-adds without any other work. */
typedef struct cli_multiply_adds {
    float (*run)(int64_t num_rounds); /* returns a result, lest a compiler leave it all out */
    int64_t per_round;                /* times 16: what one round does */
} cli_multiply_adds;

/* What is prefetched, line by line, while a chunk is read. Half of one is its first half, half as
 * often, for the hardware's prefetcher to read on. Twice and more: the same line again when it is
 * nearer. */
typedef enum cli_prefetch {
    CLI_PREFETCH_L2,
    CLI_PREFETCH_L2_HALF,
    CLI_PREFETCH_L1,
    CLI_PREFETCH_L1_HALF,
    CLI_PREFETCH_L2_THEN_L1, /* as kernels do */
    CLI_PREFETCH_L2_THEN_L1_THRICE,
    CLI_PREFETCH_L1_THRICE, /* from here on as AVX-512 kernels that prefetch into L1 */
    CLI_PREFETCH_L1_FOUR_TIMES,
    CLI_PREFETCH_L1_FIVE_TIMES,
    CLI_PREFETCH_L1_SIX_TIMES,
    CLI_PREFETCH_L1_SEVEN_TIMES,
    CLI_NUM_PREFETCHES
} cli_prefetch;

#define CLI_MAX_PREFETCH_TIMES 7

const char *cli_prefetch_name(cli_prefetch prefetch);

typedef struct cli_limit_loops {
    /* Both return the exclusive or of the 8-byte words read, so that no compiler leaves the reading
     * out, and a test can tell what was read. */
    uint64_t (*read_run)(cli_chunk run);
    /* While a chunk is read, what is ahead[0] later is prefetched and, where lines are asked for
     * more than once, what is ahead[1] and so on, none of them farther than the first:
     * chunks[num_chunks + ahead[0].chunks] must exist. */
    uint64_t (*read_chunks[CLI_NUM_PREFETCHES])(const cli_chunk *chunks, int64_t num_chunks,
                                                const cli_distance ahead[CLI_MAX_PREFETCH_TIMES]);
    cli_multiply_adds multiply_adds;
} cli_limit_loops;

/* NULL if this build lacks the instruction set. */
const cli_limit_loops *cli_limit_loops_built(pageattn_isa isa);

#endif
