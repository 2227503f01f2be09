/* SPDX-License-Identifier: Apache-2.0 */
/* One leaf: its logits, their softmax, the weighted values. Writes a whole state. */
#ifndef PAGEATTN_KERNEL_ATTEND_LEAF_H
#define PAGEATTN_KERNEL_ATTEND_LEAF_H

#include "logits.h"
#include "softmax.h"
#include "values.h"

/* The stages stand in functions of their own: in a larger one gcc keeps less in registers. Those at
 * a pace that the type never has are empty. */
typedef struct leaf_stages {
    void (*logits)(const pageattn_leaf *leaf);
    void (*values)(const pageattn_leaf *leaf, float *o);
} leaf_stages;

#define LEAF_STAGES(name, NAME, pace)                                                              \
    static KERNEL_NO_INLINE void leaf_logits_##name##_##pace(const pageattn_leaf *leaf)            \
    {                                                                                              \
        if (type_has_pace(PAGEATTN_##NAME, pace))                                                  \
            leaf_logits(PAGEATTN_##NAME, pace, leaf);                                              \
    }                                                                                              \
    static KERNEL_NO_INLINE void leaf_values_##name##_##pace(const pageattn_leaf *leaf, float *o)  \
    {                                                                                              \
        if (type_has_pace(PAGEATTN_##NAME, pace))                                                  \
            leaf_values(PAGEATTN_##NAME, pace, leaf, o);                                           \
    }
#define LEAF_STAGES_ENTRY(name, NAME, pace)                                                        \
    [pace] = {leaf_logits_##name##_##pace, leaf_values_##name##_##pace},
#define KV_TYPE(name, NAME, bytes)                                                                 \
    AT_EACH_PACE(LEAF_STAGES, name, NAME)                                                          \
    static const leaf_stages leaf_stages_##name[NUM_PACES] = {                                     \
        AT_EACH_PACE(LEAF_STAGES_ENTRY, name, NAME)};
#include "kv_types.def"
#undef KV_TYPE

KERNEL_INLINE void attend_leaf(pageattn_type type, const leaf_stages stages[],
                               const pageattn_leaf *leaf, float *state)
{
    float *max = pageattn_state_max(state, leaf->num_heads, leaf->value_head_dim);
    float *sum = pageattn_state_sum(state, leaf->num_heads, leaf->value_head_dim);

    stages[pace_of_keys(type, leaf)].logits(leaf);
    mask_heads(leaf, max);
    FOR_HEADS_SIDE_BY_SIDE(leaf->num_heads, weights_of_heads, leaf, max, sum);
    stages[pace_of_values(type, leaf)].values(leaf, state);
}

#endif
