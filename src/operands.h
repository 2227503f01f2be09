/* SPDX-License-Identifier: Apache-2.0 */
/* What each tensor of a call must look like: one table, which every check goes by. */
#ifndef PAGEATTN_OPERANDS_H
#define PAGEATTN_OPERANDS_H

#include <pageattn/pageattn.h>

typedef enum pageattn_axis {
    PAGEATTN_AXIS_SEQS,
    PAGEATTN_AXIS_HEADS,
    PAGEATTN_AXIS_KV_HEADS,
    PAGEATTN_AXIS_PAGES,
    PAGEATTN_AXIS_PAGE_SIZE,
    PAGEATTN_AXIS_BLOCKS,
    PAGEATTN_AXIS_HEAD_DIM,
    PAGEATTN_AXIS_VALUE_HEAD_DIM,
    PAGEATTN_NUM_AXES,
} pageattn_axis;

/* The name by which messages call an axis, and the least size it may have. */
typedef struct pageattn_axis_rule {
    const char *name;
    int64_t smallest;
} pageattn_axis_rule;

extern const pageattn_axis_rule pageattn_axis_rules[PAGEATTN_NUM_AXES];

typedef enum pageattn_operand_types {
    PAGEATTN_TAKES_FLOATS,
    PAGEATTN_TAKES_KEY_TYPE, /* that of key_cache */
    PAGEATTN_TAKES_I32,
    PAGEATTN_TAKES_F32_OR_NONE, /* the tensor may be left out */
} pageattn_operand_types;

typedef struct pageattn_operand {
    const char *name;
    size_t offset; /* of the tensor in pageattn_args */
    pageattn_operand_types types;
    int32_t rank;
    pageattn_axis axes[PAGEATTN_MAX_RANK];
    int contiguous_rows; /* the last axis must have stride 1 */
    int is_output;
} pageattn_operand;

#define PAGEATTN_NUM_OPERANDS 7

/* In the order of pageattn_args. */
extern const pageattn_operand pageattn_operands[PAGEATTN_NUM_OPERANDS];

/* NULL for a tensor that the caller left out. */
const pageattn_tensor *pageattn_operand_of(const pageattn_args *args, int operand);

/* Bytes of an element; 0 for a value that is no type. */
int64_t pageattn_type_bytes(pageattn_type type);

int pageattn_tensor_is_empty(const pageattn_tensor *tensor);

/* The bytes that the tensor spans, [*low, *high), counted from its data; returns 0 if they do not
 * fit a ptrdiff_t. No size is negative. A size of 0 counts as 1. */
int pageattn_tensor_span(const pageattn_tensor *tensor, int64_t *low, int64_t *high);

#define PAGEATTN_LIST_BYTES 96

/* Writes "[2, 4, 8]" into `text`, of PAGEATTN_LIST_BYTES, and returns it: for messages. */
const char *pageattn_list(char *text, const int64_t *values, int32_t count);

#endif
