/* SPDX-License-Identifier: Apache-2.0 */
/* The options of a call, each against its range. */
#include "check_parts.h"

#include <inttypes.h>
#include <math.h>

#include "error.h"

static pageattn_status check_floats(const pageattn_args *args, pageattn_error *error)
{
    if (!isfinite(args->attn_scale))
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT, "attn_scale = %g; it must be finite",
                             (double)args->attn_scale);
    if (!isfinite(args->attn_logits_soft_cap) || args->attn_logits_soft_cap < 0)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "attn_logits_soft_cap = %g; it must be finite and > 0, or 0 for none",
                             (double)args->attn_logits_soft_cap);
    if (isnan(args->mask_value) || args->mask_value > 0)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "mask_value = %g; it must be <= 0, and may be -inf",
                             (double)args->mask_value);
    return PAGEATTN_OK;
}

static pageattn_status check_counts(const pageattn_args *args, pageattn_error *error)
{
    const struct {
        const char *name;
        int32_t value;
        const char *zero;
    } counts[] = {
        {"sliding_window", args->sliding_window, "no window"},
        {"num_splits", args->num_splits, "the library's choice"},
        {"pages_per_compute_block", args->pages_per_compute_block, "the library's choice"},
    };
    for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        if (counts[i].value < 0)
            return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                                 "%s = %" PRId32 "; it must be at least 1, or 0 for %s",
                                 counts[i].name, counts[i].value, counts[i].zero);
    }
    if (args->max_context_len < -1)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "max_context_len = %" PRId64
                             "; it must be at least 0, or -1 for max_blocks * page_size",
                             args->max_context_len);
    if (args->inline_seq_dim != 0 && args->inline_seq_dim != 1)
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "inline_seq_dim = %" PRId32 "; it must be 0 or 1",
                             args->inline_seq_dim);
    return PAGEATTN_OK;
}

static pageattn_status check_megacore_mode(const pageattn_args *args, const int64_t *sizes,
                                           pageattn_error *error)
{
    switch (args->megacore_mode) {
    case PAGEATTN_MEGACORE_NONE:
        return PAGEATTN_OK;
    case PAGEATTN_MEGACORE_KV_HEAD:
        if (sizes[PAGEATTN_AXIS_KV_HEADS] % 2 == 0)
            return PAGEATTN_OK;
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "megacore_mode = kv_head needs an even num_kv_heads, not %" PRId64
                             " (key_cache's axis 0)",
                             sizes[PAGEATTN_AXIS_KV_HEADS]);
    case PAGEATTN_MEGACORE_BATCH:
        if (sizes[PAGEATTN_AXIS_SEQS] % 2 == 0)
            return PAGEATTN_OK;
        return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                             "megacore_mode = batch needs an even num_seqs, not %" PRId64
                             " (query's axis 0)",
                             sizes[PAGEATTN_AXIS_SEQS]);
    }
    return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                         "megacore_mode = %d is not a value of pageattn_megacore_mode",
                         (int)args->megacore_mode);
}

static pageattn_status check_numerics(const pageattn_args *args, pageattn_error *error)
{
    switch (args->numerics) {
    case PAGEATTN_NUMERICS_EXACT:
    case PAGEATTN_NUMERICS_FAST:
        return PAGEATTN_OK;
    }
    return pageattn_fail(error, PAGEATTN_ERROR_ARGUMENT,
                         "numerics = %d is not a value of pageattn_numerics; it must be 0 (exact) "
                         "or 1 (fast)",
                         (int)args->numerics);
}

pageattn_status pageattn_check_options(const pageattn_args *args, const int64_t *sizes,
                                       pageattn_error *error)
{
    pageattn_status status = check_floats(args, error);
    if (status == PAGEATTN_OK)
        status = check_counts(args, error);
    if (status == PAGEATTN_OK)
        status = check_numerics(args, error);
    if (status == PAGEATTN_OK)
        status = check_megacore_mode(args, sizes, error);
    return status;
}
