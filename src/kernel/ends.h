/* SPDX-License-Identifier: Apache-2.0 */
/* The two ends of a row's way: the query comes in scaled, the result goes out divided. */
#ifndef PAGEATTN_KERNEL_ENDS_H
#define PAGEATTN_KERNEL_ENDS_H

#include "elements.h"
#include "log.h"
#include "query_tiles.h"

/* Elements [d, d + n) of a row; whole lane groups are the caller's constants. */
KERNEL_INLINE void scale_group(pageattn_type type, const void *row, int64_t d, int64_t n,
                               lanes scale, float *scaled)
{
    const char *elements = (const char *)row + d * element_bytes(type);
    const lanes x =
        n == PAGEATTN_LANES ? load_group(type, elements) : load_first(type, elements, n);
    /* -0 past head_dim under a negative scale is as good as +0: it meets zeros only. */
    lanes_store_f32(scaled, lanes_mul(x, scale));
}

KERNEL_INLINE void scale_query(pageattn_type type, const void *row, int64_t head_dim, float scale,
                               int64_t head, int64_t num_heads, float *query)
{
    const lanes scale_lanes = lanes_all(scale);
    const int64_t tile_heads = query_tile_heads(num_heads, head);
    float *scaled = query + query_tile_offset(head, pageattn_padded(head_dim), PAGEATTN_LANES);
    int64_t d = 0;
    for (; d + PAGEATTN_LANES <= head_dim; d += PAGEATTN_LANES)
        scale_group(type, row, d, PAGEATTN_LANES, scale_lanes, scaled + d * tile_heads);
    if (d < head_dim)
        scale_group(type, row, d, head_dim - d, scale_lanes, scaled + d * tile_heads);
}

KERNEL_INLINE void finish_group(pageattn_type type, const float *o, lanes sum, int64_t d, int64_t n,
                                void *row)
{
    const lanes x = lanes_div(lanes_load_f32(o + d), sum);
    store_first(type, (char *)row + d * element_bytes(type), lanes_canonical_nan(x), n);
}

KERNEL_INLINE void finish_row(pageattn_type type, const float *o, float max, float sum,
                              int64_t value_head_dim, void *row, float *lse)
{
    const lanes sum_lanes = lanes_all(sum);
    int64_t d = 0;
    for (; d + PAGEATTN_LANES <= value_head_dim; d += PAGEATTN_LANES)
        finish_group(type, o, sum_lanes, d, PAGEATTN_LANES, row);
    if (d < value_head_dim)
        finish_group(type, o, sum_lanes, d, value_head_dim - d, row);
    if (lse)
        lanes_store_first_f32(
            lse, lanes_canonical_nan(lanes_add(lanes_all(max), lanes_log(sum_lanes))), 1);
}

#endif
