/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The read limits of `pageattn bench` read what they say: the gather read every row that the call
 * attends to, once, and nothing else; the sequential read as many bytes, from the start of both
 * sides. The exclusive or of all words read, by loops of each instruction set, must be that of a
 * plain loop.
 */
#include "check.h"
#include "limits.h"

static uint64_t xor_words(const char *data, int64_t bytes)
{
    uint64_t sum = 0, word;
    for (int64_t i = 0; i < bytes; i += 8) {
        memcpy(&word, data + i, 8);
        sum ^= word;
    }
    return sum;
}

static uint64_t xor_row(const pageattn_tensor *side, int64_t kv_head, int64_t page, int64_t slot)
{
    const int64_t offset =
        kv_head * side->stride[0] + page * side->stride[1] + slot * side->stride[2];
    const int64_t bytes = cli_type_bytes(side->type);
    return xor_words((const char *)side->data + offset * bytes, side->shape[3] * bytes);
}

static uint64_t xor_attended(const cli_data *data)
{
    const pageattn_args *args = &data->args;
    const int64_t page_size = args->key_cache.shape[2];
    uint64_t sum = 0;
    for (int64_t seq = 0; seq < args->query.shape[0]; seq++) {
        const int32_t *table =
            (const int32_t *)args->block_tables.data + seq * args->block_tables.stride[0];
        for (int64_t t = cli_data_first(data, seq); t < cli_data_lens(data)[seq]; t++) {
            for (int64_t h = 0; h < args->key_cache.shape[0]; h++)
                sum ^= xor_row(&args->key_cache, h, table[t / page_size], t % page_size) ^
                       xor_row(&args->value_cache, h, table[t / page_size], t % page_size);
        }
    }
    return sum;
}

static void check_limits(const char *name, const cli_data *data, cli_limits *limits)
{
    static const int64_t distances[] = {0, 1000, 8192, 1 << 20};
    const uint64_t attended = xor_attended(data);
    const uint64_t first = xor_words(data->args.key_cache.data, data->kv_bytes / 2) ^
                           xor_words(data->args.value_cache.data, data->kv_bytes / 2);
    char title[240];
    uint64_t digest;
    snprintf(title, sizeof(title), "sequential read, %s", name);
    check_that(cli_limits_read_sequential(limits, &digest) && digest == first, title);
    for (size_t i = 0; i < CLI_NUM_PREFETCHES * sizeof(distances) / sizeof(*distances); i++) {
        for (int time = 0; time < CLI_MAX_PREFETCH_TIMES; time++)
            limits->prefetch_bytes[time] = distances[i / CLI_NUM_PREFETCHES] / (time + 1);
        limits->prefetch = (cli_prefetch)(i % CLI_NUM_PREFETCHES);
        snprintf(title, sizeof(title), "gather read, %s, prefetched into %s %lld bytes ahead", name,
                 cli_prefetch_name(limits->prefetch), (long long)limits->prefetch_bytes[0]);
        check_that(cli_limits_read_gather(limits, &digest) && digest == attended, title);
    }
}

static void check_case(const cli_case *wanted, pageattn_isa isa, int32_t num_threads)
{
    char name[CLI_NAME_BYTES], title[160];
    pageattn_context_options options;
    pageattn_context *context;
    cli_data data;
    cli_limits limits;
    snprintf(title, sizeof(title), "%s, %s, %s tokens, layout %d, %s, %d threads",
             cli_workload_name(&wanted->workload, name), cli_type_name(wanted->kv_type),
             wanted->lengths.name, (int)wanted->layout, pageattn_isa_name(isa), (int)num_threads);
    pageattn_context_options_init(&options);
    options.isa = isa;
    options.num_threads = num_threads;
    options.min_bytes_per_worker = 1;
    if (pageattn_context_create(&options, &context, NULL) != PAGEATTN_OK ||
        !cli_data_create(wanted, context, &data)) {
        check_failed(title, "not enough memory");
        return;
    }
    if (cli_limits_create(&data, context, &limits))
        check_limits(title, &data, &limits);
    else
        check_failed(title, "not enough memory");
    cli_limits_destroy(&limits);
    cli_data_destroy(&data);
    pageattn_context_destroy(context);
}

static void check_workload(const char *workload, const char *lengths, int64_t num_seqs)
{
    cli_case wanted = {.num_seqs = num_seqs, .shuffled = true};
    if (!cli_workload_parse(workload, &wanted.workload) ||
        !cli_lengths_parse(lengths, &wanted.lengths)) {
        check_failed(workload, "is not understood");
        return;
    }
    for (int layout = PAGEATTN_HND_PAGES; layout <= PAGEATTN_PAGES_NHD; layout++) {
        for (int isa = PAGEATTN_ISA_SCALAR; pageattn_isa_name((pageattn_isa)isa) != NULL; isa++) {
            wanted.layout = (pageattn_kv_layout)layout;
            wanted.kv_type = (isa + layout) % 2 ? PAGEATTN_F32 : PAGEATTN_BF16;
            if (!pageattn_isa_available((pageattn_isa)isa))
                continue;
            check_case(&wanted, (pageattn_isa)isa, 1);
            check_case(&wanted, (pageattn_isa)isa, 3);
        }
    }
}

int main(int argc, char **argv)
{
    check_start(argc, argv);
    check_workload("gqa_paged_decode_h4_kv2_d128_ps16", "600", 3);
    check_workload("gqa_paged_decode_h4_kv2_d128_ps1", "300", 2);
    check_workload("gqa_paged_decode_h4_kv2_d72_ps5", "chat", 3);
    check_workload("mqa_paged_decode_h4_kv1_d64_ps512", "1000", 2);
    check_workload("mha_paged_decode_h2_kv2_d64_ps16_w333", "900", 2);
    check_workload("mha_paged_decode_h1_kv1_d8_ps16", "1", 1);
    check_workload("mqa_paged_decode_h2_kv1_d1024_ps3", "270", 1);
    return check_finish();
}
