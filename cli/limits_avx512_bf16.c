/* SPDX-License-Identifier: Apache-2.0 */
/* The multiply-adds of the fast kernels over pairs_avx512_bf16.h: dot products of bf16 pairs. */
#include "isa/pairs_avx512_bf16.h"
#include "limit_loops.h"

#define NUM_ACCUMULATORS 12 /* as many as hide the latency, as in limit_loops_stamp.h */

static float multiply_add(int64_t num_rounds)
{
    /* Each step adds 1 and takes it away again, so nothing overflows or becomes subnormal. */
    static const uint16_t ones[2] = {0x3f80, 0x3f80}, signs[2] = {0x3f80, 0xbf80};
    const pairs factor = pairs_all(ones), term = pairs_all(signs);
    float start[16 + NUM_ACCUMULATORS]; /* all lanes different, so that none can be left out */
    for (int i = 0; i < 16 + NUM_ACCUMULATORS; i++)
        start[i] = (float)i;
    lanes sum[NUM_ACCUMULATORS];
#pragma GCC unroll 16
    for (int i = 0; i < NUM_ACCUMULATORS; i++)
        sum[i] = lanes_load_f32(start + i);
    for (int64_t round = 0; round < num_rounds; round++) {
#pragma GCC unroll 16
        for (int i = 0; i < NUM_ACCUMULATORS; i++)
            sum[i] = pairs_dot(sum[i], factor, term);
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

extern const cli_multiply_adds cli_fast_multiply_adds_avx512_bf16;
const cli_multiply_adds cli_fast_multiply_adds_avx512_bf16 = {
    .run = multiply_add, .per_round = 2 * NUM_ACCUMULATORS, /* 32 in each step */
};
