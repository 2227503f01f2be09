/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensors of one benchmark case, filled with random values: cache, block table, query, output.
 *
 * All large memory is mapped on its own and asks for huge pages, so the limits, which read the same
 * memory, have them too.
 */
#ifndef CLI_DATA_H
#define CLI_DATA_H

#include <pageattn/pageattn.h>

#include "workload.h"

/* Of values, page order and query alike. */
#define CLI_SEED 1

typedef struct cli_case {
    cli_workload workload;
    cli_lengths lengths;
    int64_t num_seqs;
    pageattn_type kv_type; /* of query and output too */
    pageattn_kv_layout layout;
    bool shuffled; /* where the physical pages of a sequence lie: anywhere, or side by side */
} cli_case;

#define CLI_NUM_REGIONS 6

typedef struct cli_data {
    pageattn_args args; /* of the call */
    int64_t num_tokens; /* attended to, over all sequences */
    int64_t kv_bytes;   /* of keys and values attended to, over all KV heads */
    struct {
        void *memory;
        size_t bytes;
    } region[CLI_NUM_REGIONS];
} cli_data;

/* False, with a sentence on standard error and nothing held, if there is not enough memory. */
bool cli_data_create(const cli_case *wanted, pageattn_context *context, cli_data *data);
void cli_data_destroy(cli_data *data);

int64_t cli_type_bytes(pageattn_type type);
const char *cli_type_name(pageattn_type type); /* f32, bf16, f16 */

static inline const int32_t *cli_data_lens(const cli_data *data)
{
    return data->args.context_lens.data;
}

/* The first position of a sequence that is attended to. */
static inline int64_t cli_data_first(const cli_data *data, int64_t seq)
{
    const int64_t len = cli_data_lens(data)[seq];
    const int64_t window = data->args.sliding_window;
    return window == 0 || window >= len ? 0 : len - window;
}

#endif
