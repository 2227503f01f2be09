/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fixed binary tree over leaves on which states merge: leaves 2i and 2i+1 make node i of level
 * 1, and so on (docs/numerics.md). States are pushed in the order of their positions; the tree
 * keeps only those that still wait for their right neighbour, one a level at most.
 *
 * A part of the tree that holds nothing is neutral: its sibling takes the parent's place as it is.
 */
#ifndef PAGEATTN_TREE_H
#define PAGEATTN_TREE_H

#include "kernel/kernels.h"

/* Nodes of one level are numbered by int64_t, so there are fewer levels than this. */
#define PAGEATTN_MAX_LEVELS 64

typedef struct pageattn_tree {
    const pageattn_kernels *kernels;
    int64_t num_heads;
    int64_t value_head_dim;
    int depth;
    int level[PAGEATTN_MAX_LEVELS];
    float *state[PAGEATTN_MAX_LEVELS]; /* the caller's; merged in place */
} pageattn_tree;

/* How many states wait at most while `num_leaves` leaves are pushed, the newest included. */
static inline int64_t pageattn_tree_max_depth(int64_t num_leaves)
{
    int64_t depth = 2;
    while (num_leaves > 1) {
        num_leaves = (num_leaves + 1) / 2;
        depth++;
    }
    return depth;
}

static inline void pageattn_tree_merge_top(pageattn_tree *tree)
{
    const int top = --tree->depth;
    tree->kernels->merge(tree->state[top - 1], tree->state[top], tree->num_heads,
                         tree->value_head_dim);
}

/* `node` is the right neighbour of the last one pushed, or the first of all. */
static inline void pageattn_tree_push(pageattn_tree *tree, int64_t node, float *state)
{
    int level = 0;
    tree->state[tree->depth++] = state;
    for (; node & 1; node >>= 1, level++)
        if (tree->depth > 1 && tree->level[tree->depth - 2] == level)
            pageattn_tree_merge_top(tree);
    tree->level[tree->depth - 1] = level;
}

/* What all pushed states merge to; at least one was. It lies where the first state does. */
static inline float *pageattn_tree_root(pageattn_tree *tree)
{
    while (tree->depth > 1)
        pageattn_tree_merge_top(tree);
    return tree->state[0]; // NOLINT(clang-analyzer-core.uninitialized.UndefReturn): see above
}

#endif
