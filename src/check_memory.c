/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the tensors and a lent scratch lie. An input may share memory with another input; what is
 * written shares memory with nothing. Addresses are compared as numbers: the tensors belong to
 * different objects, of which C defines no order.
 */
#include "check_parts.h"

#include <inttypes.h>

#include "error.h"

/* [begin, end) of something; both 0 if it is empty. */
typedef struct range {
    const char *name;
    uintptr_t begin;
    uintptr_t end;
    int is_written;
} range;

#define MAX_RANGES (PAGEATTN_NUM_OPERANDS + 1)

static pageattn_status check_pointer(const char *name, const pageattn_tensor *tensor,
                                     pageattn_error *error)
{
    const int64_t element_bytes = pageattn_type_bytes(tensor->type);
    char shape[PAGEATTN_LIST_BYTES];
    if (tensor->data == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "%s.data is NULL, but its shape %s is not empty", name,
                             pageattn_list(shape, tensor->shape, tensor->rank));
    if ((uintptr_t)tensor->data % (uintptr_t)element_bytes != 0)
        return pageattn_fail(error, PAGEATTN_ERROR_ALIGNMENT,
                             "%s.data = %p is not a multiple of %" PRId64
                             ", the size of its elements in bytes",
                             name, tensor->data, element_bytes);
    return PAGEATTN_OK;
}

/* [base + low, base + high), or 0 if that leaves the address space. low <= 0 <= high. */
static int place(uintptr_t base, int64_t low, int64_t high, range *where)
{
    const uintptr_t below = 0 - (uintptr_t)low;
    if (below > base || __builtin_add_overflow(base, (uintptr_t)high, &where->end))
        return 0;
    where->begin = base - below;
    return 1;
}

static pageattn_status locate_tensor(const pageattn_operand *rule, const pageattn_tensor *tensor,
                                     range *where, pageattn_error *error)
{
    int64_t low = 0, high = 0;
    *where = (range){.name = rule->name, .is_written = rule->is_output};
    if (pageattn_tensor_is_empty(tensor))
        return PAGEATTN_OK;
    pageattn_status status = check_pointer(rule->name, tensor, error);
    if (status != PAGEATTN_OK)
        return status;
    if (pageattn_tensor_span(tensor, &low, &high) &&
        place((uintptr_t)tensor->data, low, high, where))
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_OVERFLOW,
                         "%s.data = %p leaves no room: its elements lie from byte %" PRId64
                         " to byte %" PRId64 " of it, beyond the address space",
                         rule->name, tensor->data, low, high);
}

static pageattn_status locate_scratch(const pageattn_args *args, range *where,
                                      pageattn_error *error)
{
    *where = (range){.name = "scratch", .is_written = 1};
    if (args->scratch_bytes == 0)
        return PAGEATTN_OK;
    if ((uint64_t)args->scratch_bytes <= PTRDIFF_MAX &&
        place((uintptr_t)args->scratch, 0, (int64_t)args->scratch_bytes, where))
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_OVERFLOW,
                         "scratch = %p has no room for scratch_bytes = %zu before the end of the "
                         "address space",
                         args->scratch, args->scratch_bytes);
}

static pageattn_status check_overlap(const range *ranges, int count, pageattn_error *error)
{
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < count; j++) {
            const range *a = &ranges[i], *b = &ranges[j];
            if (i == j || !a->is_written || a->begin >= b->end || b->begin >= a->end)
                continue;
            return pageattn_fail(error, PAGEATTN_ERROR_OVERLAP,
                                 "%s [0x%" PRIxPTR ", 0x%" PRIxPTR ") shares memory with %s "
                                 "[0x%" PRIxPTR ", 0x%" PRIxPTR ")",
                                 a->name, a->begin, a->end, b->name, b->begin, b->end);
        }
    }
    return PAGEATTN_OK;
}

pageattn_status pageattn_check_memory(const pageattn_args *args, pageattn_error *error)
{
    range ranges[MAX_RANGES];
    int count = 0;
    for (int i = 0; i < PAGEATTN_NUM_OPERANDS; i++) {
        const pageattn_tensor *tensor = pageattn_operand_of(args, i);
        if (tensor == NULL)
            continue;
        pageattn_status status =
            locate_tensor(&pageattn_operands[i], tensor, &ranges[count++], error);
        if (status != PAGEATTN_OK)
            return status;
    }
    if (args->scratch != NULL) {
        pageattn_status status = locate_scratch(args, &ranges[count++], error);
        if (status != PAGEATTN_OK)
            return status;
    }
    return check_overlap(ranges, count, error);
}
