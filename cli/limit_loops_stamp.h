/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stamps the limit loops of one instruction set into its table. The file that includes this has
 * included the lanes_<isa>.h before, and has defined
 *   LIMIT_LOOPS       the table's name
 *   VECTOR_BYTES      a register's size: a wider type would live in memory
 *   NUM_ACCUMULATORS  the lane groups that fit the registers beside two operands: enough of them
 * hide the latency of a multiply-add
 */
#include "limit_loops.h"

#define LINE_BYTES 64
#define BLOCK_LINES 4
#define BLOCK_BYTES (BLOCK_LINES * LINE_BYTES)
#define NUM_SUMS 8

/* Integers, because a cache's elements read as others may be NaN or subnormal, and those may cost
 * extra. */
typedef uint64_t vector
    __attribute__((vector_size(VECTOR_BYTES), aligned(CLI_READ_BYTES), may_alias));
typedef uint64_t part
    __attribute__((vector_size(CLI_READ_BYTES), aligned(CLI_READ_BYTES), may_alias));

static uint64_t digest(const vector *sum)
{
    uint64_t folded = 0;
    for (int i = 0; i < NUM_SUMS; i++) {
        for (int word = 0; word < VECTOR_BYTES / 8; word++)
            folded ^= sum[i][word];
    }
    return folded;
}

__attribute__((always_inline)) static inline void read_line(const char *data, vector *sum)
{
#pragma GCC unroll 4
    for (int i = 0; i < LINE_BYTES / VECTOR_BYTES; i++)
        sum[i] ^= *(const vector *)(data + i * VECTOR_BYTES);
}

/* Line i of a block, which *line points to and passes. The sums are dealt to the lines so that none
 * waits for another. gcc would deal the loads of a block anew if it knew where the next line is,
 * but the hardware's prefetcher helps most where lines are asked for in the order of their
 * addresses. */
__attribute__((always_inline)) static inline void read_line_of_block(const char **line, int i,
                                                                     vector *sum)
{
    read_line(*line, sum + i * (LINE_BYTES / VECTOR_BYTES) % NUM_SUMS);
    *line += LINE_BYTES;
    __asm__ volatile("" : "+r"(*line));
}

/* What is left after the last whole line. */
static uint64_t read_tail(const char *data, int64_t bytes)
{
    part sum = {0};
    for (int64_t i = 0; i < bytes; i += CLI_READ_BYTES)
        sum ^= *(const part *)(data + i);
    return sum[0] ^ sum[1];
}

static uint64_t read_run(cli_chunk run)
{
    vector sum[NUM_SUMS] = {{0}};
    int64_t at = 0;
    for (; at + BLOCK_BYTES <= run.bytes; at += BLOCK_BYTES) {
        const char *line = run.data + at;
#pragma GCC unroll 4
        for (int i = 0; i < BLOCK_LINES; i++)
            read_line_of_block(&line, i, sum);
    }
    return digest(sum) ^ read_tail(run.data + at, run.bytes - at);
}

/* What comes some distance after a chunk: the line at `at` of it is answered by that at `at` of
 * `data`, but from last_at on by that of the chunk which follows. */
typedef struct to_come {
    const char *data;
    const char *following;
    int64_t last_at;
} to_come;

static to_come look_ahead(const cli_chunk *chunk, cli_distance ahead)
{
    const cli_chunk *far = chunk + ahead.chunks;
    const int64_t last_at = chunk->bytes - ahead.bytes;
    return (to_come){
        .data = far[0].data + ahead.bytes, .following = far[1].data - last_at, .last_at = last_at};
}

__attribute__((always_inline)) static inline const char *line_to_come(const to_come *ahead,
                                                                      int64_t at)
{
    return (at < ahead->last_at ? ahead->data : ahead->following) + at;
}

/* How often a line is asked for. */
__attribute__((always_inline)) static inline int prefetch_times(cli_prefetch how)
{
    switch (how) {
    case CLI_PREFETCH_L2_THEN_L1:
        return 2;
    case CLI_PREFETCH_L1_THRICE:
        return 3;
    case CLI_PREFETCH_L2_THEN_L1_THRICE:
    case CLI_PREFETCH_L1_FOUR_TIMES:
        return 4;
    case CLI_PREFETCH_L1_FIVE_TIMES:
        return 5;
    case CLI_PREFETCH_L1_SIX_TIMES:
        return 6;
    case CLI_PREFETCH_L1_SEVEN_TIMES:
        return 7;
    default:
        return 1;
    }
}

__attribute__((always_inline)) static inline int is_half(cli_prefetch how)
{
    return how == CLI_PREFETCH_L2_HALF || how == CLI_PREFETCH_L1_HALF;
}

__attribute__((always_inline)) static inline int first_into_l2(cli_prefetch how)
{
    return how == CLI_PREFETCH_L2 || how == CLI_PREFETCH_L2_HALF ||
           how == CLI_PREFETCH_L2_THEN_L1 || how == CLI_PREFETCH_L2_THEN_L1_THRICE;
}

__attribute__((always_inline)) static inline void ask_for(const char *line, int into_l2)
{
    if (into_l2)
        __builtin_prefetch(line, 0, 2);
    else
        __builtin_prefetch(line, 0, 3);
}

/* While the line at `at` is read; `how` is a constant. */
__attribute__((always_inline)) static inline void prefetch(cli_prefetch how, const to_come *ahead,
                                                           int64_t at)
{
    if (is_half(how)) {
        if (at / LINE_BYTES % 2 == 0)
            ask_for(ahead[0].data + at / 2, first_into_l2(how));
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < prefetch_times(how); i++)
        ask_for(line_to_come(&ahead[i], at), i == 0 && first_into_l2(how));
}

__attribute__((always_inline)) static inline uint64_t
read_and_prefetch(cli_prefetch how, const cli_chunk *chunks, int64_t num_chunks,
                  const cli_distance ahead[CLI_MAX_PREFETCH_TIMES])
{
    vector sum[NUM_SUMS] = {{0}};
    uint64_t tails = 0;
    for (int64_t c = 0; c < num_chunks; c++) {
        const char *data = chunks[c].data;
        to_come later[CLI_MAX_PREFETCH_TIMES];
#pragma GCC unroll 16
        for (int i = 0; i < prefetch_times(how); i++)
            later[i] = look_ahead(&chunks[c], ahead[i]);
        const int64_t bytes = chunks[c].bytes;
        int64_t at = 0;
        for (; at + BLOCK_BYTES <= bytes; at += BLOCK_BYTES) {
            const char *line = data + at;
#pragma GCC unroll 4
            for (int i = 0; i < BLOCK_LINES; i++) {
                read_line_of_block(&line, i, sum);
                prefetch(how, later, at + i * LINE_BYTES);
            }
        }
        for (; at + LINE_BYTES <= bytes; at += LINE_BYTES) {
            read_line(data + at, sum);
            prefetch(how, later, at);
        }
        if (at < bytes) {
            tails ^= read_tail(data + at, bytes - at);
            prefetch(how, later, at);
        }
    }
    return digest(sum) ^ tails;
}

#define READ_CHUNKS(name, how)                                                                     \
    static uint64_t name(const cli_chunk *chunks, int64_t num_chunks, const cli_distance ahead[])  \
    {                                                                                              \
        return read_and_prefetch(how, chunks, num_chunks, ahead);                                  \
    }
READ_CHUNKS(read_chunks_l2, CLI_PREFETCH_L2)
READ_CHUNKS(read_chunks_l2_half, CLI_PREFETCH_L2_HALF)
READ_CHUNKS(read_chunks_l1, CLI_PREFETCH_L1)
READ_CHUNKS(read_chunks_l1_half, CLI_PREFETCH_L1_HALF)
READ_CHUNKS(read_chunks_l2_then_l1, CLI_PREFETCH_L2_THEN_L1)
READ_CHUNKS(read_chunks_l1_thrice, CLI_PREFETCH_L1_THRICE)
READ_CHUNKS(read_chunks_l2_then_l1_thrice, CLI_PREFETCH_L2_THEN_L1_THRICE)
READ_CHUNKS(read_chunks_l1_four_times, CLI_PREFETCH_L1_FOUR_TIMES)
READ_CHUNKS(read_chunks_l1_five_times, CLI_PREFETCH_L1_FIVE_TIMES)
READ_CHUNKS(read_chunks_l1_six_times, CLI_PREFETCH_L1_SIX_TIMES)
READ_CHUNKS(read_chunks_l1_seven_times, CLI_PREFETCH_L1_SEVEN_TIMES)
#undef READ_CHUNKS

/* With enough accumulators none waits for its own last sum. */
static float multiply_add(int64_t num_rounds)
{
    /* Each lane goes towards 1, so nothing overflows or becomes subnormal. */
    const lanes factor = lanes_all(0.999f), term = lanes_all(0.001f);
    /* All lanes different, lest a compiler see that half of the work gives what the other half
     * does. */
    float start[16 + NUM_ACCUMULATORS];
    for (int i = 0; i < 16 + NUM_ACCUMULATORS; i++)
        start[i] = (float)i;
    lanes sum[NUM_ACCUMULATORS];
#pragma GCC unroll 16
    for (int i = 0; i < NUM_ACCUMULATORS; i++)
        sum[i] = lanes_load_f32(start + i);
    for (int64_t round = 0; round < num_rounds; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < NUM_ACCUMULATORS; i++)
            sum[i] = lanes_fma(sum[i], factor, term);
    }
    lanes total = lanes_zero();
#pragma GCC unroll 16
    for (int i = 0; i < NUM_ACCUMULATORS; i++)
        total = lanes_add(total, sum[i]);
    float lane[16], result = 0;
    lanes_store_f32(lane, total);
    for (int i = 0; i < 16; i++)
        result += lane[i];
    return result;
}

extern const cli_limit_loops LIMIT_LOOPS;
const cli_limit_loops LIMIT_LOOPS = {
    .read_run = read_run,
    .read_chunks = {[CLI_PREFETCH_L2] = read_chunks_l2,
                    [CLI_PREFETCH_L2_HALF] = read_chunks_l2_half,
                    [CLI_PREFETCH_L1] = read_chunks_l1,
                    [CLI_PREFETCH_L1_HALF] = read_chunks_l1_half,
                    [CLI_PREFETCH_L2_THEN_L1] = read_chunks_l2_then_l1,
                    [CLI_PREFETCH_L1_THRICE] = read_chunks_l1_thrice,
                    [CLI_PREFETCH_L2_THEN_L1_THRICE] = read_chunks_l2_then_l1_thrice,
                    [CLI_PREFETCH_L1_FOUR_TIMES] = read_chunks_l1_four_times,
                    [CLI_PREFETCH_L1_FIVE_TIMES] = read_chunks_l1_five_times,
                    [CLI_PREFETCH_L1_SIX_TIMES] = read_chunks_l1_six_times,
                    [CLI_PREFETCH_L1_SEVEN_TIMES] = read_chunks_l1_seven_times},
    .multiply_adds = {.run = multiply_add, .per_round = NUM_ACCUMULATORS},
};
