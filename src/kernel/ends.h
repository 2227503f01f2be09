/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of a row's way: the query comes in scaled, the result goes out divided. */
#ifndef PAGEATTN_KERNEL_ENDS_H
#define PAGEATTN_KERNEL_ENDS_H

#include "elements.h"
#include "log.h"

KERNEL_INLINE void scale_query(pageattn_type type, const void *row, int64_t head_dim, float scale,
                               float *scaled)
{
    const lanes scale_lanes = lanes_all(scale);
    for (int64_t d = 0; d < head_dim; d += PAGEATTN_LANES) {
        const int64_t left = head_dim - d;
        const lanes x = load_first(type, (const char *)row + d * element_bytes(type),
                                   left < PAGEATTN_LANES ? left : PAGEATTN_LANES);
        /* -0 past head_dim under a negative scale is as good as +0: it meets zeros only. */
        lanes_store_f32(scaled + d, lanes_mul(x, scale_lanes));
    }
}

KERNEL_INLINE void finish_row(pageattn_type type, const float *o, float max, float sum,
                              int64_t value_head_dim, void *row, float *lse)
{
    const lanes sum_lanes = lanes_all(sum);
    for (int64_t d = 0; d < value_head_dim; d += PAGEATTN_LANES) {
        const int64_t left = value_head_dim - d;
        const lanes x = lanes_div(lanes_load_f32(o + d), sum_lanes);
        store_first(type, (char *)row + d * element_bytes(type), lanes_canonical_nan(x),
                    left < PAGEATTN_LANES ? left : PAGEATTN_LANES);
    }
    if (lse)
        lanes_store_first_f32(
            lse, lanes_canonical_nan(lanes_add(lanes_all(max), lanes_log(sum_lanes))), 1);
}

#endif
