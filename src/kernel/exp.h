/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exp, for the logits of a softmax less their maximum. Include a lanes_*.h first.
 */
#ifndef PAGEATTN_KERNEL_EXP_H
#define PAGEATTN_KERNEL_EXP_H

/*
 * e^x for x in [-inf, 0], and NaN of NaN. Exactly 1 at 0, exactly +0 below -87, where e^x nears the
 * smallest normal float: no result is subnormal.
 *
 * x = n ln 2 + r with an integer n and |r| < 0.3467, so e^x = 2^n e^r. ln 2 is the sum of two
 * floats; the high one has 15 bits, so that n times it is exact, and so is its difference from x.
 *
 * The polynomial is Sollya 8.0's
 *     fpminimax(exp(x), [|2,3,4,5,6|], [|SG...|], [-0.3467; 0.3467], relative, 1 + x)
 * with a relative error below 2^-28. With the rounding of every step the error stays below
 * 0.9 ulp, found by trying all floats.
 */
static inline lanes lanes_exp(lanes x)
{
    const lanes n = lanes_rint(lanes_mul(x, lanes_all(0x1.715476p+0f)));
    lanes r = lanes_fma(n, lanes_all(-0x1.62e4p-1f), x);
    r = lanes_fma(n, lanes_all(-0x1.7f7d1cp-20f), r);

    lanes p = lanes_all(0x1.694c86p-10f);
    p = lanes_fma(p, r, lanes_all(0x1.12397cp-7f));
    p = lanes_fma(p, r, lanes_all(0x1.555a26p-5f));
    p = lanes_fma(p, r, lanes_all(0x1.555492p-3f));
    p = lanes_fma(p, r, lanes_all(0x1.fffffap-2f));
    p = lanes_fma(p, r, lanes_all(1.0f));
    p = lanes_fma(p, r, lanes_all(1.0f));

    return lanes_zero_or_scale(x, lanes_all(-87.0f), p, n);
}

#endif
