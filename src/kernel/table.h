/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stamps the kernels of one instruction set into its table. The file that includes this has
 * included the lanes_<isa>.h before, and has defined KERNELS to the table's name.
 */
#include "attend_leaf.h"
#include "ends.h"
#include "list_rows.h"
#include "merge.h"

#define KV_TYPE(name, NAME, bytes)                                                                 \
    static void attend_leaf_##name(const pageattn_leaf *leaf, float *state)                        \
    {                                                                                              \
        attend_leaf(PAGEATTN_##NAME, leaf_stages_##name, leaf, state);                             \
    }                                                                                              \
    static void scale_query_##name(const void *row, int64_t head_dim, float scale, int64_t head,   \
                                   int64_t num_heads, float *query)                                \
    {                                                                                              \
        scale_query(PAGEATTN_##NAME, row, head_dim, scale, head, num_heads, query);                \
    }                                                                                              \
    static void finish_row_##name(const float *o, float max, float sum, int64_t value_head_dim,    \
                                  void *row, float *lse)                                           \
    {                                                                                              \
        finish_row(PAGEATTN_##NAME, o, max, sum, value_head_dim, row, lse);                        \
    }
#include "kv_types.def"
#undef KV_TYPE

extern const pageattn_kernels KERNELS;
const pageattn_kernels KERNELS = {
    .prefetch_bytes = PREFETCH_MOST_BYTES,
    .list_rows = list_rows,
#define KV_TYPE(name, NAME, bytes)                                                                 \
    .scale_query[PAGEATTN_##NAME] = scale_query_##name,                                            \
    .attend_leaf[PAGEATTN_##NAME] = attend_leaf_##name,                                            \
    .finish_row[PAGEATTN_##NAME] = finish_row_##name,
#include "kv_types.def"
#undef KV_TYPE
    .merge = merge_states,
};
