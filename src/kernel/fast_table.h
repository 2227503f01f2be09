/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stamps one set of fast kernels into its table. The file that includes this has included the
 * pairs_<name>.h before, and has defined FAST_KERNELS to the table's name.
 */
#include "fast_bf16.h"

#define KV_TYPE(name, NAME, bytes)                                                                 \
    static void round_query_##name(const void *row, int64_t head_dim, int64_t head,                \
                                   int64_t num_heads, uint16_t *query)                             \
    {                                                                                              \
        round_query(PAGEATTN_##NAME, row, head_dim, head, num_heads, query);                       \
    }
#include "kv_types.def"
#undef KV_TYPE

extern const pageattn_fast_kernels FAST_KERNELS;
const pageattn_fast_kernels FAST_KERNELS = {
#define KV_TYPE(name, NAME, bytes) .round_query[PAGEATTN_##NAME] = round_query_##name,
#include "kv_types.def"
#undef KV_TYPE
    .attend_leaf[PAGEATTN_BF16] = attend_leaf_fast_bf16,
};
