/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The natural logarithm, for the log-sum-exp. Include a lanes_*.h first.
 */
#ifndef PAGEATTN_KERNEL_LOG_H
#define PAGEATTN_KERNEL_LOG_H

#include <float.h>
#include <math.h>

/*
 * log x of positive normal floats, +inf and NaN; whatever is below them counts as 0 and gives -inf.
 *
 * x = 2^e (1 + f) with sqrt(1/2) < 1 + f <= sqrt(2), so log x = e ln 2 + log(1 + f); f is exact.
 * ln 2 is the sum of two floats; the high one has 15 bits, so that e times it is exact.
 *
 * The polynomial is Sollya 8.0's
 *     fpminimax(log(1 + x), [|2,...,10|], [|SG...|], [sqrt(1/2) - 1; sqrt(2) - 1], relative, x)
 * (the interval 2^-20 wider at both ends) with a relative error below 2^-27. With the rounding of
 * every step the error stays below 0.9 ulp, found by trying all floats.
 */
static inline lanes lanes_log(lanes x)
{
    const lanes sqrt2 = lanes_all(0x1.6a09e6p+0f);
    const lanes mantissa = lanes_mantissa(x);
    const lanes exponent = lanes_exponent(x);
    const lanes half = lanes_mul(mantissa, lanes_all(0.5f));
    const lanes next = lanes_add(exponent, lanes_all(1.0f));
    const lanes e = lanes_where_less(sqrt2, mantissa, next, exponent);
    const lanes f = lanes_sub(lanes_where_less(sqrt2, mantissa, half, mantissa), lanes_all(1.0f));

    lanes p = lanes_all(-0x1.384734p-4f);
    p = lanes_fma(p, f, lanes_all(0x1.0860dp-3f));
    p = lanes_fma(p, f, lanes_all(-0x1.0f3fa6p-3f));
    p = lanes_fma(p, f, lanes_all(0x1.226dfcp-3f));
    p = lanes_fma(p, f, lanes_all(-0x1.5425c4p-3f));
    p = lanes_fma(p, f, lanes_all(0x1.99a41ap-3f));
    p = lanes_fma(p, f, lanes_all(-0x1.000432p-2f));
    p = lanes_fma(p, f, lanes_all(0x1.55555p-2f));
    p = lanes_fma(p, f, lanes_all(-0x1.fffff8p-2f));

    /* |product| >= |f| or product is 0, so `lost` is exactly what rounding took from `high`. */
    const lanes product = lanes_mul(e, lanes_all(0x1.62e4p-1f));
    const lanes high = lanes_add(product, f);
    const lanes lost = lanes_sub(f, lanes_sub(high, product));
    lanes low = lanes_fma(e, lanes_all(0x1.7f7d1cp-20f), lost);
    low = lanes_fma(lanes_mul(f, f), p, low);
    const lanes finite = lanes_add(high, low);

    const lanes infinity = lanes_all(INFINITY);
    const lanes positive = lanes_where_less(x, infinity, finite, x);
    return lanes_where_less(x, lanes_all(FLT_MIN), lanes_all(-INFINITY), positive);
}

#endif
