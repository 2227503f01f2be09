/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The values of context_lens and of the block table entries that are needed. This runs over every
 * entry of every call, so it must cost next to nothing: a pass without branches says whether a row
 * is right, and only a wrong row is searched for the entry to blame.
 */
#include "check_parts.h"

#include <inttypes.h>

#include "error.h"

static pageattn_status wrong_len(const pageattn_args *args, const pageattn_problem *problem,
                                 int64_t seq, int64_t len, pageattn_error *error)
{
    if (problem->max_context_len == problem->max_blocks * problem->page_size)
        return pageattn_fail(
            error, PAGEATTN_ERROR_CONTEXT_LEN,
            "context_lens[%" PRId64 "] = %" PRId64 " is outside [0, %" PRId64 "], the %" PRId64
            " blocks of %" PRId64 " tokens that block_tables has room for",
            seq, len, problem->max_context_len, problem->max_blocks, problem->page_size);
    return pageattn_fail(error, PAGEATTN_ERROR_CONTEXT_LEN,
                         "context_lens[%" PRId64 "] = %" PRId64 " is outside [0, %" PRId64
                         "], as max_context_len = %" PRId64 " demands",
                         seq, len, problem->max_context_len, args->max_context_len);
}

/* One past the largest entry that may stand in the table, as an entry is compared: a negative
 * entry is a huge unsigned one. */
static uint32_t entry_limit(int64_t num_pages)
{
    return num_pages > INT32_MAX ? (uint32_t)INT32_MAX + 1 : (uint32_t)num_pages;
}

static int row_is_right(const char *entries, int64_t entry_bytes, int64_t count, uint32_t limit)
{
    uint32_t wrong = 0;
    if (entry_bytes == sizeof(int32_t)) { /* a constant step, so that the loop vectorises */
        const int32_t *entry = (const int32_t *)(const void *)entries;
        for (int64_t i = 0; i < count; i++)
            wrong |= (uint32_t)entry[i] >= limit;
    } else {
        for (int64_t i = 0; i < count; i++)
            wrong |= *(const uint32_t *)(const void *)(entries + i * entry_bytes) >= limit;
    }
    return wrong == 0;
}

static pageattn_status blame_entry(const pageattn_problem *problem, int64_t seq, int64_t begin,
                                   int64_t end, pageattn_error *error)
{
    for (int64_t block = begin; block < end; block++) {
        const int64_t page = pageattn_problem_stated_page(problem, seq, block);
        if (page < 0 || page >= problem->num_pages)
            return pageattn_fail(error, PAGEATTN_ERROR_BLOCK_TABLE,
                                 "block_tables[%" PRId64 "][%" PRId64 "] = %" PRId64
                                 " is outside [0, %" PRId64 ")",
                                 seq, block, page, problem->num_pages);
    }
    return pageattn_fail(error, PAGEATTN_ERROR_BLOCK_TABLE,
                         "block_tables[%" PRId64 "] was changed during the call", seq);
}

static pageattn_status check_row(const pageattn_problem *problem, int64_t seq, int64_t len,
                                 pageattn_error *error)
{
    if (len == 0)
        return PAGEATTN_OK;
    const int64_t begin = pageattn_problem_first_position(problem, len) / problem->page_size;
    const int64_t end = (len - 1) / problem->page_size + 1;
    const pageattn_index *tables = &problem->block_tables;
    const char *entries = tables->data + seq * tables->row_bytes + begin * tables->entry_bytes;
    if (row_is_right(entries, tables->entry_bytes, end - begin, entry_limit(problem->num_pages)))
        return PAGEATTN_OK;
    return blame_entry(problem, seq, begin, end, error);
}

pageattn_status pageattn_check_tables(const pageattn_args *args, const pageattn_problem *problem,
                                      pageattn_error *error)
{
    for (int64_t seq = 0; seq < problem->num_seqs; seq++) {
        const int64_t len = pageattn_problem_stated_len(problem, seq);
        if (len < 0 || len > problem->max_context_len)
            return wrong_len(args, problem, seq, len, error);
        pageattn_status status = check_row(problem, seq, len, error);
        if (status != PAGEATTN_OK)
            return status;
    }
    return PAGEATTN_OK;
}
