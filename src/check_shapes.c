/* SPDX-License-Identifier: Apache-2.0 */
/* Types, ranks and sizes of the tensors, each against the table and against one another. */
#include "check_parts.h"

#include <inttypes.h>
#include <stdio.h>

#include "error.h"

static const char *type_name(pageattn_type type)
{
    switch (type) {
    case PAGEATTN_NO_TYPE:
        return "none";
    case PAGEATTN_F32:
        return "f32";
    case PAGEATTN_BF16:
        return "bf16";
    case PAGEATTN_F16:
        return "f16";
    case PAGEATTN_I32:
        return "i32";
    }
    return NULL;
}

/* NULL if the type is right, else what it must be. */
static const char *type_wanted(const pageattn_args *args, const pageattn_operand *rule,
                               pageattn_type type)
{
    const int is_float = type == PAGEATTN_F32 || type == PAGEATTN_BF16 || type == PAGEATTN_F16;
    switch (rule->types) {
    case PAGEATTN_TAKES_FLOATS:
        return is_float ? NULL : "f32, bf16 or f16";
    case PAGEATTN_TAKES_KEY_TYPE:
        return type == args->key_cache.type ? NULL : type_name(args->key_cache.type);
    case PAGEATTN_TAKES_I32:
        return type == PAGEATTN_I32 ? NULL : "i32";
    case PAGEATTN_TAKES_F32_OR_NONE:
        break;
    }
    return type == PAGEATTN_F32 ? NULL : "f32, or none if it is not wanted";
}

pageattn_status pageattn_check_types(const pageattn_args *args, pageattn_error *error)
{
    for (int i = 0; i < PAGEATTN_NUM_OPERANDS; i++) {
        const pageattn_operand *rule = &pageattn_operands[i];
        const pageattn_tensor *tensor = pageattn_operand_of(args, i);
        if (tensor == NULL)
            continue;
        const char *wanted = type_wanted(args, rule, tensor->type);
        const char *name = type_name(tensor->type);
        if (wanted == NULL)
            continue;
        const char *of_key = rule->types == PAGEATTN_TAKES_KEY_TYPE ? ", as key_cache" : "";
        if (name == NULL)
            return pageattn_fail(error, PAGEATTN_ERROR_TYPE,
                                 "%s has type %d, which is no pageattn_type; it must be %s%s",
                                 rule->name, (int)tensor->type, wanted, of_key);
        return pageattn_fail(error, PAGEATTN_ERROR_TYPE, "%s has type %s; it must be %s%s",
                             rule->name, name, wanted, of_key);
    }
    return PAGEATTN_OK;
}

static pageattn_status wrong_rank(const pageattn_operand *rule, int32_t rank, pageattn_error *error)
{
    char axes[PAGEATTN_LIST_BYTES];
    size_t used = 0;
    for (int32_t axis = 0; axis < rule->rank && used < sizeof(axes); axis++)
        used += (size_t)snprintf(axes + used, sizeof(axes) - used, "%s%s", axis == 0 ? "" : ", ",
                                 pageattn_axis_rules[rule->axes[axis]].name);
    return pageattn_fail(error, PAGEATTN_ERROR_SHAPE,
                         "%s has rank %" PRId32 "; it must have rank %" PRId32 ": [%s]", rule->name,
                         rank, rule->rank, axes);
}

/* Where the size of an axis was first seen: every later tensor must have the same. */
typedef struct first_seen {
    const char *tensor; /* NULL: not yet */
    int32_t axis;
} first_seen;

static pageattn_status check_size(const pageattn_operand *rule, const pageattn_tensor *tensor,
                                  int32_t axis, first_seen *seen, int64_t *sizes,
                                  pageattn_error *error)
{
    const pageattn_axis which = rule->axes[axis];
    const char *name = pageattn_axis_rules[which].name;
    const int64_t size = tensor->shape[axis], smallest = pageattn_axis_rules[which].smallest;
    if (size < smallest)
        return pageattn_fail(error, PAGEATTN_ERROR_SHAPE,
                             "%s's axis %" PRId32 " (%s) is %" PRId64
                             "; it must be at least %" PRId64,
                             rule->name, axis, name, size, smallest);
    if (seen[which].tensor == NULL) {
        seen[which] = (first_seen){rule->name, axis};
        sizes[which] = size;
        return PAGEATTN_OK;
    }
    if (size != sizes[which])
        return pageattn_fail(error, PAGEATTN_ERROR_SHAPE,
                             "%s's axis %" PRId32 " (%s) is %" PRId64 "; it must be %" PRId64
                             ", as %s's axis %" PRId32,
                             rule->name, axis, name, size, sizes[which], seen[which].tensor,
                             seen[which].axis);
    return PAGEATTN_OK;
}

static pageattn_status check_group(const int64_t *sizes, pageattn_error *error)
{
    const int64_t num_heads = sizes[PAGEATTN_AXIS_HEADS];
    const int64_t num_kv_heads = sizes[PAGEATTN_AXIS_KV_HEADS];
    if (num_heads % num_kv_heads == 0)
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_SHAPE,
                         "num_heads = %" PRId64 " (query's axis 1) is not a multiple of "
                         "num_kv_heads = %" PRId64 " (key_cache's axis 0)",
                         num_heads, num_kv_heads);
}

pageattn_status pageattn_check_shapes(const pageattn_args *args, int64_t *sizes,
                                      pageattn_error *error)
{
    first_seen seen[PAGEATTN_NUM_AXES] = {{0}};
    for (int i = 0; i < PAGEATTN_NUM_OPERANDS; i++) {
        const pageattn_operand *rule = &pageattn_operands[i];
        const pageattn_tensor *tensor = pageattn_operand_of(args, i);
        if (tensor == NULL)
            continue;
        if (tensor->rank != rule->rank)
            return wrong_rank(rule, tensor->rank, error);
        for (int32_t axis = 0; axis < rule->rank; axis++) {
            pageattn_status status = check_size(rule, tensor, axis, seen, sizes, error);
            if (status != PAGEATTN_OK)
                return status;
        }
    }
    return check_group(sizes, error);
}
