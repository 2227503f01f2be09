/* SPDX-License-Identifier: Apache-2.0 */
/* Makes and unmakes a context: which kernels, whose threads, whose memory. */
#include "context.h"

#include <inttypes.h>
#include <stdlib.h>

#include "error.h"
#include "isa/choose.h"

#define DEFAULT_MIN_BYTES_PER_WORKER (256 * 1024)

/* aligned_alloc wants whole multiples of the alignment. The sum cannot overflow: what is asked for
 * is a struct, the pool, or scratch, which is such a multiple already. */
static void *allocate_aligned(void *context, size_t bytes, size_t alignment)
{
    (void)context;
    return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}

static void deallocate_aligned(void *context, void *pointer, size_t bytes)
{
    (void)context;
    (void)bytes;
    free(pointer);
}

static const pageattn_allocator default_allocator = {
    .struct_size = sizeof(pageattn_allocator),
    .allocate = allocate_aligned,
    .deallocate = deallocate_aligned,
};

static pageattn_status check_struct_size(const char *name, size_t got, size_t expected,
                                         pageattn_error *error)
{
    if (got == expected)
        return PAGEATTN_OK;
    return pageattn_fail(error, PAGEATTN_ERROR_STRUCT_SIZE,
                         "%s->struct_size = %zu; this library (version %s) knows %zu", name, got,
                         pageattn_version(), expected);
}

static pageattn_status check_executor(const pageattn_executor *executor, pageattn_error *error)
{
    pageattn_status status =
        check_struct_size("options->executor", executor->struct_size, sizeof(*executor), error);
    if (status != PAGEATTN_OK)
        return status;
    if (executor->parallel_for == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "options->executor->parallel_for is NULL");
    if (executor->num_workers < 1 || executor->num_workers > PAGEATTN_MAX_THREADS)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "options->executor->num_workers = %" PRId32 " is outside [1, %d]",
                             executor->num_workers, PAGEATTN_MAX_THREADS);
    return PAGEATTN_OK;
}

static pageattn_status check_allocator(const pageattn_allocator *allocator, pageattn_error *error)
{
    pageattn_status status =
        check_struct_size("options->allocator", allocator->struct_size, sizeof(*allocator), error);
    if (status != PAGEATTN_OK)
        return status;
    if (allocator->allocate == NULL || allocator->deallocate == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT, "options->allocator->%s is NULL",
                             allocator->allocate == NULL ? "allocate" : "deallocate");
    return PAGEATTN_OK;
}

static pageattn_status check_numbers(const pageattn_context_options *options, pageattn_error *error)
{
    if (options->num_threads < 0 || options->num_threads > PAGEATTN_MAX_THREADS)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "options->num_threads = %" PRId32
                             " is outside [1, %d], or 0 for as many as this process may use",
                             options->num_threads, PAGEATTN_MAX_THREADS);
    if (options->executor != NULL && options->num_threads != 0)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "options->num_threads = %" PRId32
                             "; it must be 0 beside an executor, which says num_workers itself",
                             options->num_threads);
    if (options->min_bytes_per_worker < 0)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "options->min_bytes_per_worker = %" PRId64
                             "; it must be > 0, or 0 for the default of %d",
                             options->min_bytes_per_worker, DEFAULT_MIN_BYTES_PER_WORKER);
    if (options->spin_ns < 0)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "options->spin_ns = %" PRId64 "; it must be >= 0", options->spin_ns);
    return PAGEATTN_OK;
}

static pageattn_status check_options(const pageattn_context_options *options, pageattn_error *error)
{
    pageattn_status status =
        check_struct_size("options", options->struct_size, sizeof(*options), error);
    if (status == PAGEATTN_OK)
        status = check_numbers(options, error);
    if (status == PAGEATTN_OK && options->executor != NULL)
        status = check_executor(options->executor, error);
    if (status == PAGEATTN_OK && options->allocator != NULL)
        status = check_allocator(options->allocator, error);
    return status;
}

static pageattn_context *allocate_context(const pageattn_allocator *allocator)
{
    return allocator->allocate(allocator->context, sizeof(pageattn_context),
                               PAGEATTN_SCRATCH_ALIGNMENT);
}

/* Gives the context its workers: the caller's, or a pool. Returns 0 when out of memory. */
static int employ(pageattn_context *context, const pageattn_context_options *options)
{
    if (options->executor != NULL) {
        context->executor = *options->executor;
        context->num_workers = options->executor->num_workers;
        return 1;
    }
    context->num_workers =
        options->num_threads != 0 ? options->num_threads : pageattn_usable_threads();
    context->pool =
        pageattn_pool_create(&context->allocator, context->num_workers, options->spin_ns);
    return context->pool != NULL;
}

pageattn_status pageattn_context_create(const pageattn_context_options *options,
                                        pageattn_context **context, pageattn_error *error)
{
    pageattn_context_options defaults;
    pageattn_isa isa = PAGEATTN_ISA_AUTO;
    if (context == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT, "context is NULL");
    *context = NULL;
    pageattn_context_options_init(&defaults);
    options = options != NULL ? options : &defaults;

    pageattn_status status = check_options(options, error);
    if (status == PAGEATTN_OK)
        status = pageattn_choose_isa(options->isa, &isa, error);
    if (status != PAGEATTN_OK)
        return status;

    const pageattn_allocator *allocator =
        options->allocator != NULL ? options->allocator : &default_allocator;
    pageattn_context *created = allocate_context(allocator);
    if (created == NULL)
        return pageattn_fail(error, PAGEATTN_ERROR_MEMORY, "out of memory for the context");
    const pageattn_prefetch prefetch = pageattn_best_prefetch(isa);
    *created = (pageattn_context){
        .kernels = pageattn_kernels_of(isa, prefetch),
        .fast_kernels = pageattn_fast_kernels_of(isa, prefetch),
        .isa = isa,
        .allocator = *allocator,
        .min_bytes_per_worker = options->min_bytes_per_worker != 0 ? options->min_bytes_per_worker
                                                                   : DEFAULT_MIN_BYTES_PER_WORKER,
    };
    atomic_flag_clear(&created->busy);
    if (!employ(created, options)) {
        pageattn_context_destroy(created);
        return pageattn_fail(error, PAGEATTN_ERROR_MEMORY, "out of memory for the thread pool");
    }
    *context = created;
    return pageattn_succeed(error);
}

void pageattn_context_destroy(pageattn_context *context)
{
    if (context == NULL)
        return;
    const pageattn_allocator allocator = context->allocator;
    if (context->pool != NULL)
        pageattn_pool_destroy(context->pool);
    if (context->scratch != NULL)
        allocator.deallocate(allocator.context, context->scratch, context->scratch_bytes);
    allocator.deallocate(allocator.context, context, sizeof(*context));
}

pageattn_isa pageattn_context_isa(const pageattn_context *context)
{
    return context != NULL ? context->isa : PAGEATTN_ISA_AUTO;
}

int pageattn_context_has_fast(const pageattn_context *context, pageattn_type kv_type)
{
    return context != NULL && context->fast_kernels != NULL && kv_type > PAGEATTN_NO_TYPE &&
           kv_type < PAGEATTN_NUM_FLOAT_TYPES &&
           context->fast_kernels->attend_leaf[kv_type] != NULL;
}

int32_t pageattn_context_num_threads(const pageattn_context *context)
{
    return context != NULL ? context->num_workers : 0;
}
