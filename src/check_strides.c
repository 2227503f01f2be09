/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Products and offsets: that nothing computed from sizes and strides overflows, that rows lie where
 * the kernels can load them whole, and that no two elements of an output are the same memory.
 */
#include "check_parts.h"

#include <inttypes.h>

#include "error.h"

/* The number of elements times their size; sizes of 0 count as 1. Zero strides give huge tensors
 * that span little memory, and scratch is sized by the product. */
static int product_fits(const pageattn_tensor *tensor)
{
    int64_t bytes = pageattn_type_bytes(tensor->type);
    for (int32_t axis = 0; axis < tensor->rank; axis++) {
        const int64_t size = tensor->shape[axis];
        if (size > 1 && (__builtin_mul_overflow(bytes, size, &bytes) || bytes > PTRDIFF_MAX))
            return 0;
    }
    return 1;
}

static pageattn_status check_overflow(const char *name, const pageattn_tensor *tensor,
                                      pageattn_error *error)
{
    char shape[PAGEATTN_LIST_BYTES], strides[PAGEATTN_LIST_BYTES];
    int64_t low, high;
    if (product_fits(tensor) && pageattn_tensor_span(tensor, &low, &high))
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_OVERFLOW,
                         "%s does not fit the address space: shape %s, strides %s, elements of "
                         "%" PRId64 " bytes",
                         name, pageattn_list(shape, tensor->shape, tensor->rank),
                         pageattn_list(strides, tensor->stride, tensor->rank),
                         pageattn_type_bytes(tensor->type));
}

static pageattn_status check_rows(const pageattn_operand *rule, const pageattn_tensor *tensor,
                                  pageattn_error *error)
{
    const int32_t last = rule->rank - 1;
    if (!rule->contiguous_rows || pageattn_tensor_is_empty(tensor) || tensor->shape[last] == 1 ||
        tensor->stride[last] == 1)
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_STRIDE,
                         "%s's axis %" PRId32 " (%s) has stride %" PRId64 "; it must be 1",
                         rule->name, last, pageattn_axis_rules[rule->axes[last]].name,
                         tensor->stride[last]);
}

static int64_t magnitude(int64_t stride)
{
    return stride < 0 ? -stride : stride;
}

/* The axes that are walked, those of the smallest stride first. Returns their number. */
static int sort_axes(const pageattn_tensor *tensor, int32_t *axes)
{
    int count = 0;
    for (int32_t axis = 0; axis < tensor->rank; axis++) {
        if (tensor->shape[axis] <= 1)
            continue;
        int place = count++;
        for (; place > 0 &&
               magnitude(tensor->stride[axes[place - 1]]) > magnitude(tensor->stride[axis]);
             place--)
            axes[place] = axes[place - 1];
        axes[place] = axis;
    }
    return count;
}

/* Each step must pass over everything that the faster axes span. The few overlap-free layouts that
 * break this rule interleave their axes, which no caller has been seen to do. */
static pageattn_status check_self_overlap(const pageattn_operand *rule,
                                          const pageattn_tensor *tensor, pageattn_error *error)
{
    int32_t axes[PAGEATTN_MAX_RANK];
    int64_t span = 1;
    if (!rule->is_output || pageattn_tensor_is_empty(tensor))
        return PAGEATTN_OK;
    const int count = sort_axes(tensor, axes);
    for (int i = 0; i < count; i++) {
        const int32_t axis = axes[i];
        const int64_t stride = tensor->stride[axis];
        if (magnitude(stride) < span)
            return pageattn_fail(error, PAGEATTN_ERROR_STRIDE,
                                 "%s overlaps itself: axis %" PRId32 " (%s) has stride %" PRId64
                                 ", less than the %" PRId64 " elements that a step must pass over",
                                 rule->name, axis, pageattn_axis_rules[rule->axes[axis]].name,
                                 stride, span);
        span += (tensor->shape[axis] - 1) * magnitude(stride);
    }
    return PAGEATTN_OK;
}

static pageattn_status check_room(const int64_t *sizes, pageattn_error *error)
{
    int64_t room;
    if (!__builtin_mul_overflow(sizes[PAGEATTN_AXIS_BLOCKS], sizes[PAGEATTN_AXIS_PAGE_SIZE], &room))
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_OVERFLOW,
                         "max_blocks * page_size = %" PRId64 " * %" PRId64
                         " tokens do not fit 64 bits",
                         sizes[PAGEATTN_AXIS_BLOCKS], sizes[PAGEATTN_AXIS_PAGE_SIZE]);
}

pageattn_status pageattn_check_strides(const pageattn_args *args, const int64_t *sizes,
                                       pageattn_error *error)
{
    for (int i = 0; i < PAGEATTN_NUM_OPERANDS; i++) {
        const pageattn_operand *rule = &pageattn_operands[i];
        const pageattn_tensor *tensor = pageattn_operand_of(args, i);
        if (tensor == NULL)
            continue;
        pageattn_status status = check_overflow(rule->name, tensor, error);
        if (status == PAGEATTN_OK)
            status = check_rows(rule, tensor, error);
        if (status == PAGEATTN_OK)
            status = check_self_overlap(rule, tensor, error);
        if (status != PAGEATTN_OK)
            return status;
    }
    return check_room(sizes, error);
}
