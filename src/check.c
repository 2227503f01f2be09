/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checks a call and describes it as a problem. A wrong call is refused here or nowhere: behind it,
 * everything trusts the problem.
 */
#include "check_parts.h"

#include <math.h>

#include "error.h"
#include "float_environment.h"

static pageattn_status check_struct(const pageattn_args *args, pageattn_error *error)
{
    if (args == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT, "args is NULL");
    if (args->struct_size != sizeof(*args))
        return pageattn_fail(error, PAGEATTN_ERROR_STRUCT_SIZE,
                             "args->struct_size = %zu; this library (version %s) knows %zu: "
                             "call pageattn_args_init first",
                             args->struct_size, pageattn_version(), sizeof(*args));
    return PAGEATTN_OK;
}

/* The distance between neighbours, which nobody walks along an axis of size 0 or 1: such a stride
 * may be anything, and was not checked. */
static int64_t step_bytes(const pageattn_tensor *tensor, int axis)
{
    if (tensor->shape[axis] <= 1)
        return 0;
    return tensor->stride[axis] * pageattn_type_bytes(tensor->type);
}

static pageattn_side side_of(const pageattn_tensor *cache)
{
    return (pageattn_side){
        .data = cache->data,
        .head_bytes = step_bytes(cache, 0),
        .page_bytes = step_bytes(cache, 1),
        .slot_bytes = step_bytes(cache, 2),
        .row_bytes = cache->shape[3] * pageattn_type_bytes(cache->type),
    };
}

static pageattn_rows rows_of(const pageattn_tensor *tensor)
{
    return (pageattn_rows){
        .data = tensor->data,
        .seq_bytes = step_bytes(tensor, 0),
        .head_bytes = step_bytes(tensor, 1),
        .type = tensor->type,
    };
}

static void describe_sizes(const int64_t *sizes, pageattn_problem *problem)
{
    problem->num_seqs = sizes[PAGEATTN_AXIS_SEQS];
    problem->num_heads = sizes[PAGEATTN_AXIS_HEADS];
    problem->num_kv_heads = sizes[PAGEATTN_AXIS_KV_HEADS];
    problem->group_size = problem->num_heads / problem->num_kv_heads;
    problem->head_dim = sizes[PAGEATTN_AXIS_HEAD_DIM];
    problem->value_head_dim = sizes[PAGEATTN_AXIS_VALUE_HEAD_DIM];
    problem->page_size = sizes[PAGEATTN_AXIS_PAGE_SIZE];
    problem->num_pages = sizes[PAGEATTN_AXIS_PAGES];
    problem->max_blocks = sizes[PAGEATTN_AXIS_BLOCKS];
}

static void describe_tensors(const pageattn_args *args, pageattn_problem *problem)
{
    problem->kv_type = args->key_cache.type;
    problem->keys = side_of(&args->key_cache);
    problem->values = side_of(&args->value_cache);
    problem->context_lens = (pageattn_index){.data = args->context_lens.data,
                                             .row_bytes = step_bytes(&args->context_lens, 0)};
    problem->block_tables = (pageattn_index){.data = args->block_tables.data,
                                             .row_bytes = step_bytes(&args->block_tables, 0),
                                             .entry_bytes = step_bytes(&args->block_tables, 1)};
    problem->query = rows_of(&args->query);
    problem->out = rows_of(&args->out);
    if (args->lse.type != PAGEATTN_NO_TYPE)
        problem->lse = rows_of(&args->lse);
}

/* The caller's rounding must not show in it. Volatile, because compilers take arithmetic to be free
 * to leave the environment that it was written in. */
static float default_attn_scale(int64_t head_dim)
{
    const pageattn_float_environment before = pageattn_float_environment_enter();
    volatile double dim = (double)head_dim;
    volatile float scale = (float)(1.0 / sqrt(dim));
    pageattn_float_environment_leave(before);
    return scale;
}

static void describe_options(const pageattn_args *args, pageattn_problem *problem)
{
    const int64_t room = problem->max_blocks * problem->page_size;
    problem->max_context_len =
        args->max_context_len < 0 || args->max_context_len > room ? room : args->max_context_len;
    problem->attn_scale = args->attn_scale == PAGEATTN_DEFAULT_ATTN_SCALE
                              ? default_attn_scale(problem->head_dim)
                              : args->attn_scale;
    problem->soft_cap = args->attn_logits_soft_cap;
    problem->hard_mask = args->mask_value <= PAGEATTN_HARD_MASK_VALUE;
    problem->soft_mask = problem->hard_mask ? 0 : args->mask_value;
    problem->window = args->sliding_window;
    problem->numerics = args->numerics;
    problem->num_splits = args->num_splits;
    problem->pages_per_compute_block = args->pages_per_compute_block;
    problem->megacore_mode = args->megacore_mode;
    problem->inline_seq_dim = args->inline_seq_dim;
}

pageattn_status pageattn_check_args(const pageattn_args *args, pageattn_check check,
                                    pageattn_problem *problem, pageattn_error *error)
{
    int64_t sizes[PAGEATTN_NUM_AXES];
    pageattn_status status = check_struct(args, error);
    if (status == PAGEATTN_OK)
        status = pageattn_check_types(args, error);
    if (status == PAGEATTN_OK)
        status = pageattn_check_shapes(args, sizes, error);
    if (status == PAGEATTN_OK)
        status = pageattn_check_options(args, sizes, error);
    if (status == PAGEATTN_OK)
        status = pageattn_check_strides(args, sizes, error);
    if (status != PAGEATTN_OK)
        return status;

    *problem = (pageattn_problem){0};
    describe_sizes(sizes, problem);
    describe_tensors(args, problem);
    describe_options(args, problem);
    if (check == PAGEATTN_CHECK_SHAPES)
        return PAGEATTN_OK;

    status = pageattn_check_memory(args, error);
    if (status == PAGEATTN_OK)
        status = pageattn_check_tables(args, problem, error);
    return status;
}
