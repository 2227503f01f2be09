/* SPDX-License-Identifier: Apache-2.0 */
/* A call from outside to inside: checked, given its scratch, run. */
#include <inttypes.h>

#include "check.h"
#include "error.h"
#include "run.h"

static pageattn_status scratch_needed(const pageattn_context *context,
                                      const pageattn_problem *problem, size_t *bytes,
                                      pageattn_error *error)
{
    *bytes = 0;
    if (problem->num_seqs == 0)
        return PAGEATTN_OK;
    *bytes = pageattn_run_scratch_bytes(context, problem);
    if (*bytes != 0)
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_OVERFLOW,
                         "the scratch for num_seqs = %" PRId64 ", num_heads = %" PRId64
                         ", value_head_dim = %" PRId64 ", max_context_len = %" PRId64
                         " does not fit the address space; a smaller max_context_len needs less",
                         problem->num_seqs, problem->num_heads, problem->value_head_dim,
                         problem->max_context_len);
}

static pageattn_status check_lent(const pageattn_args *args, size_t needed, pageattn_error *error)
{
    if ((uintptr_t)args->scratch % PAGEATTN_SCRATCH_ALIGNMENT != 0)
        return pageattn_fail(error, PAGEATTN_ERROR_SCRATCH,
                             "scratch = %p is not a multiple of %d (PAGEATTN_SCRATCH_ALIGNMENT)",
                             args->scratch, PAGEATTN_SCRATCH_ALIGNMENT);
    if (args->scratch_bytes < needed)
        return pageattn_fail(error, PAGEATTN_ERROR_SCRATCH,
                             "scratch_bytes = %zu; this call needs at least %zu, as "
                             "pageattn_scratch_bytes says",
                             args->scratch_bytes, needed);
    return PAGEATTN_OK;
}

/* The new scratch comes before the old one goes: running out of memory changes nothing. */
static pageattn_status grow(pageattn_context *context, size_t needed, pageattn_error *error)
{
    const pageattn_allocator *allocator = &context->allocator;
    if (context->scratch_bytes >= needed)
        return PAGEATTN_OK;
    void *grown = allocator->allocate(allocator->context, needed, PAGEATTN_SCRATCH_ALIGNMENT);
    if (grown == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_MEMORY, "out of memory for %zu bytes of scratch",
                             needed);
    if (context->scratch != NULL)
        allocator->deallocate(allocator->context, context->scratch, context->scratch_bytes);
    context->scratch = grown;
    context->scratch_bytes = needed;
    return PAGEATTN_OK;
}

static pageattn_status attend(pageattn_context *context, const pageattn_args *args,
                              pageattn_error *error)
{
    pageattn_problem problem;
    size_t needed;
    pageattn_status status = pageattn_check_args(args, PAGEATTN_CHECK_ALL, &problem, error);
    if (status == PAGEATTN_OK)
        status = scratch_needed(context, &problem, &needed, error);
    if (status == PAGEATTN_OK)
        status =
            args->scratch != NULL ? check_lent(args, needed, error) : grow(context, needed, error);
    if (status == PAGEATTN_OK && problem.num_seqs > 0)
        status = pageattn_run(context, &problem,
                              args->scratch != NULL ? args->scratch : context->scratch, error);
    return status == PAGEATTN_OK ? pageattn_succeed(error) : status;
}

pageattn_status pageattn_attend(pageattn_context *context, const pageattn_args *args,
                                pageattn_error *error)
{
    if (context == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT, "context is NULL");
    if (atomic_flag_test_and_set_explicit(&context->busy, memory_order_acquire))
        return pageattn_fail(error, PAGEATTN_ERROR_BUSY,
                             "the context is in use by another call; give each thread its own");
    pageattn_status status = attend(context, args, error);
    atomic_flag_clear_explicit(&context->busy, memory_order_release);
    return status;
}

pageattn_status pageattn_scratch_bytes(const pageattn_context *context, const pageattn_args *args,
                                       size_t *bytes, pageattn_error *error)
{
    pageattn_problem problem;
    if (context == NULL || bytes == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT, "%s is NULL",
                             context == NULL ? "context" : "bytes");
    pageattn_status status = pageattn_check_args(args, PAGEATTN_CHECK_SHAPES, &problem, error);
    if (status == PAGEATTN_OK)
        status = scratch_needed(context, &problem, bytes, error);
    return status == PAGEATTN_OK ? pageattn_succeed(error) : status;
}
