/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of a call as a table, and the few questions that every check asks of a tensor. */
#include "operands.h"

#include <inttypes.h>
#include <stdio.h>

const pageattn_axis_rule pageattn_axis_rules[PAGEATTN_NUM_AXES] = {
    [PAGEATTN_AXIS_SEQS] = {"num_seqs", 0},
    [PAGEATTN_AXIS_HEADS] = {"num_heads", 1},
    [PAGEATTN_AXIS_KV_HEADS] = {"num_kv_heads", 1},
    [PAGEATTN_AXIS_PAGES] = {"num_pages", 0},
    [PAGEATTN_AXIS_PAGE_SIZE] = {"page_size", 1},
    [PAGEATTN_AXIS_BLOCKS] = {"max_blocks", 0},
    [PAGEATTN_AXIS_HEAD_DIM] = {"head_dim", 1},
    [PAGEATTN_AXIS_VALUE_HEAD_DIM] = {"value_head_dim", 1},
};

#define OPERAND(member) .name = #member, .offset = offsetof(pageattn_args, member)

const pageattn_operand pageattn_operands[PAGEATTN_NUM_OPERANDS] = {
    {
        OPERAND(query),
        .types = PAGEATTN_TAKES_FLOATS,
        .rank = 3,
        .axes = {PAGEATTN_AXIS_SEQS, PAGEATTN_AXIS_HEADS, PAGEATTN_AXIS_HEAD_DIM},
        .contiguous_rows = 1,
    },
    {
        OPERAND(key_cache),
        .types = PAGEATTN_TAKES_FLOATS,
        .rank = 4,
        .axes = {PAGEATTN_AXIS_KV_HEADS, PAGEATTN_AXIS_PAGES, PAGEATTN_AXIS_PAGE_SIZE,
                 PAGEATTN_AXIS_HEAD_DIM},
        .contiguous_rows = 1,
    },
    {
        OPERAND(value_cache),
        .types = PAGEATTN_TAKES_KEY_TYPE,
        .rank = 4,
        .axes = {PAGEATTN_AXIS_KV_HEADS, PAGEATTN_AXIS_PAGES, PAGEATTN_AXIS_PAGE_SIZE,
                 PAGEATTN_AXIS_VALUE_HEAD_DIM},
        .contiguous_rows = 1,
    },
    {
        OPERAND(context_lens),
        .types = PAGEATTN_TAKES_I32,
        .rank = 1,
        .axes = {PAGEATTN_AXIS_SEQS},
    },
    {
        OPERAND(block_tables),
        .types = PAGEATTN_TAKES_I32,
        .rank = 2,
        .axes = {PAGEATTN_AXIS_SEQS, PAGEATTN_AXIS_BLOCKS},
    },
    {
        OPERAND(out),
        .types = PAGEATTN_TAKES_FLOATS,
        .rank = 3,
        .axes = {PAGEATTN_AXIS_SEQS, PAGEATTN_AXIS_HEADS, PAGEATTN_AXIS_VALUE_HEAD_DIM},
        .contiguous_rows = 1,
        .is_output = 1,
    },
    {
        OPERAND(lse),
        .types = PAGEATTN_TAKES_F32_OR_NONE,
        .rank = 2,
        .axes = {PAGEATTN_AXIS_SEQS, PAGEATTN_AXIS_HEADS},
        .is_output = 1,
    },
};

const pageattn_tensor *pageattn_operand_of(const pageattn_args *args, int operand)
{
    const pageattn_operand *rule = &pageattn_operands[operand];
    const char *tensor = (const char *)args + rule->offset;
    const pageattn_tensor *found = (const pageattn_tensor *)(const void *)tensor;
    if (rule->types == PAGEATTN_TAKES_F32_OR_NONE && found->type == PAGEATTN_NO_TYPE)
        return NULL;
    return found;
}

int64_t pageattn_type_bytes(pageattn_type type)
{
    switch (type) {
    case PAGEATTN_F32:
    case PAGEATTN_I32:
        return 4;
    case PAGEATTN_BF16:
    case PAGEATTN_F16:
        return 2;
    case PAGEATTN_NO_TYPE:
        break;
    }
    return 0;
}

int pageattn_tensor_is_empty(const pageattn_tensor *tensor)
{
    for (int32_t axis = 0; axis < tensor->rank; axis++) {
        if (tensor->shape[axis] == 0)
            return 1;
    }
    return 0;
}

int pageattn_tensor_span(const pageattn_tensor *tensor, int64_t *low, int64_t *high)
{
    const int64_t element_bytes = pageattn_type_bytes(tensor->type);
    *low = 0;
    *high = element_bytes;
    for (int32_t axis = 0; axis < tensor->rank; axis++) {
        int64_t reach;
        if (tensor->shape[axis] <= 1)
            continue;
        if (__builtin_mul_overflow(tensor->shape[axis] - 1, tensor->stride[axis], &reach) ||
            __builtin_mul_overflow(reach, element_bytes, &reach))
            return 0;
        int64_t *end = reach < 0 ? low : high;
        if (__builtin_add_overflow(*end, reach, end))
            return 0;
    }
    int64_t length;
    return !__builtin_sub_overflow(*high, *low, &length) && length <= PTRDIFF_MAX;
}

const char *pageattn_list(char *text, const int64_t *values, int32_t count)
{
    size_t used = (size_t)snprintf(text, PAGEATTN_LIST_BYTES, "[");
    for (int32_t i = 0; i < count && used < PAGEATTN_LIST_BYTES; i++)
        used += (size_t)snprintf(text + used, PAGEATTN_LIST_BYTES - used, "%s%" PRId64,
                                 i == 0 ? "" : ", ", values[i]);
    if (used < PAGEATTN_LIST_BYTES)
        snprintf(text + used, PAGEATTN_LIST_BYTES - used, "]");
    return text;
}
