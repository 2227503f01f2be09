/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the query rows of a KV head lie in scratch: tile by tile, LANES_KEY_HEADS heads each and in
 * the last what is left, as the register tiles of the keys take them. In a tile a part of each row,
 * then the next part of each: a tile reads it all from one pointer on, at constant distances.
 */
#ifndef PAGEATTN_KERNEL_QUERY_TILES_H
#define PAGEATTN_KERNEL_QUERY_TILES_H

#include "elements.h"

/* How many heads are in the tile that begins with, or has, `head`. */
KERNEL_INLINE int64_t query_tile_heads(int64_t num_heads, int64_t head)
{
    const int64_t left = num_heads - head / LANES_KEY_HEADS * LANES_KEY_HEADS;
    return left < LANES_KEY_HEADS ? left : LANES_KEY_HEADS;
}

/* The first part of a head's row, in elements; the next part is query_tile_heads parts later. */
KERNEL_INLINE int64_t query_tile_offset(int64_t head, int64_t row_elements, int64_t part_elements)
{
    const int64_t in_tile = head % LANES_KEY_HEADS;
    return (head - in_tile) * row_elements + in_tile * part_elements;
}

#endif
