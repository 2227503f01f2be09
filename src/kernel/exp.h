/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp, for the logits of a softmax less their maximum. Include a lanes_*.h first.
 */
#ifndef PAGEATTN_KERNEL_EXP_H
#define PAGEATTN_KERNEL_EXP_H

#include <stddef.h>

#include "compiler.h"

/*
 * Replaces the x of each of `count` lane groups, at most LANES_SOFTMAX_HEADS, by e^x: for x in
 * [-inf, 0], and NaN of NaN. Exactly 1 at 0, exactly +0 below -87, where e^x nears the smallest
 * normal float: no result is subnormal.
 *
 * x = n ln 2 + r with an integer n and |r| < 0.3467, so e^x = 2^n e^r. ln 2 is the sum of two
 * floats; the high one has 15 bits, so that n times it is exact, and so is its difference from x.
 *
 * The polynomial is Sollya 8.0's
 *     fpminimax(exp(x), [|2,3,4,5,6|], [|SG...|], [-0.3467; 0.3467], relative, 1 + x)
 * with a relative error below 2^-28. With the rounding of every step the error stays below
 * 0.9 ulp, found by trying all floats.
 *
 * A lane group is one chain of operations that wait for one another, so several go step by step: a
 * CPU does not look far enough ahead to find as many that are ready.
 */
KERNEL_INLINE void lanes_exp_each(int count, lanes x[])
{
    static const float coefficient[] = {0x1.694c86p-10f,
                                        0x1.12397cp-7f,
                                        0x1.555a26p-5f,
                                        0x1.555492p-3f,
                                        0x1.fffffap-2f,
                                        1.0f,
                                        1.0f};
    lanes n[LANES_SOFTMAX_HEADS], r[LANES_SOFTMAX_HEADS], p[LANES_SOFTMAX_HEADS];
    KERNEL_UNROLL
    for (int i = 0; i < count; i++)
        n[i] = lanes_rint(lanes_mul(x[i], lanes_all(0x1.715476p+0f)));
    KERNEL_UNROLL
    for (int i = 0; i < count; i++)
        r[i] = lanes_fma(n[i], lanes_all(-0x1.62e4p-1f), x[i]);
    KERNEL_UNROLL
    for (int i = 0; i < count; i++) {
        r[i] = lanes_fma(n[i], lanes_all(-0x1.7f7d1cp-20f), r[i]);
        p[i] = lanes_all(coefficient[0]);
    }
    KERNEL_UNROLL
    for (size_t c = 1; c < sizeof(coefficient) / sizeof(*coefficient); c++) {
        KERNEL_UNROLL
        for (int i = 0; i < count; i++)
            p[i] = lanes_fma(p[i], r[i], lanes_all(coefficient[c]));
    }
    KERNEL_UNROLL
    for (int i = 0; i < count; i++)
        x[i] = lanes_zero_or_scale(x[i], lanes_all(-87.0f), p[i], n[i]);
}

KERNEL_INLINE lanes lanes_exp(lanes x)
{
    lanes_exp_each(1, &x);
    return x;
}

#endif
