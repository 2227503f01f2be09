/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tanh, for the soft cap of the logits. Include a lanes_*.h and exp.h first.
 */
#ifndef PAGEATTN_KERNEL_TANH_H
#define PAGEATTN_KERNEL_TANH_H

/*
 * tanh x of every float: odd, 1 at infinity, NaN of NaN, a zero of the same sign at zero. Both ways
 * of computing it run on every lane, and each lane keeps the one that is accurate there.
 *
 * The polynomial is Sollya 8.0's
 *     fpminimax(tanh(x), [|3,5,7,9,11|], [|SG...|], [2^-12; 0.625], relative, x)
 * with a relative error below 2^-27. With the rounding of every step the error stays below
 * 1.45 ulp, found by trying all floats.
 */
static inline lanes lanes_tanh(lanes x)
{
    const lanes one = lanes_all(1.0f);
    const lanes a = lanes_abs(x);

    const lanes a2 = lanes_mul(a, a);
    lanes p = lanes_all(-0x1.758facp-8f);
    p = lanes_fma(p, a2, lanes_all(0x1.5211c4p-6f));
    p = lanes_fma(p, a2, lanes_all(-0x1.b838ap-5f));
    p = lanes_fma(p, a2, lanes_all(0x1.110704p-3f));
    p = lanes_fma(p, a2, lanes_all(-0x1.555532p-2f));
    const lanes small = lanes_fma(lanes_mul(a, a2), p, a);

    /* (1 - t) / (1 + t), written so that the rounding of the quotient counts for less. */
    const lanes t = lanes_exp(lanes_mul(a, lanes_all(-2.0f)));
    const lanes large = lanes_sub(one, lanes_div(lanes_add(t, t), lanes_add(one, t)));

    return lanes_copysign(lanes_where_less(a, lanes_all(0.625f), small, large), x);
}

#endif
