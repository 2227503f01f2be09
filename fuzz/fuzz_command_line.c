/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `pageattn bench` with any arguments, a line of the input each: they are understood or refused
 * with a sentence, and what is understood is in its range. A workload's name is the name of what it
 * was understood as.
 */
#include <string.h>

#include "bench_options.h"
#include "input.h"
#include "said.h"

#define MAX_ARGUMENTS 100

int32_t __wrap_pageattn_usable_threads(void);

/* Asking the system takes longer than all the rest. */
int32_t __wrap_pageattn_usable_threads(void)
{
    return 2;
}

static void require_in(const char *what, int64_t value, int64_t low, int64_t high)
{
    FUZZ_REQUIRE(value >= low && value <= high, "%s is %lld", what, (long long)value);
}

static void require_workload(const cli_workload *workload)
{
    char name[CLI_NAME_BYTES];
    cli_workload again;
    require_in("heads", workload->num_heads, 1, CLI_MAX_HEADS);
    require_in("KV heads", workload->num_kv_heads, 1, workload->num_heads);
    require_in("head_dim", workload->head_dim, 8, CLI_MAX_HEAD_DIM);
    require_in("page size", workload->page_size, 1, CLI_MAX_PAGE_SIZE);
    require_in("window", workload->window, 0, INT32_MAX);
    require_in("soft cap", workload->soft_cap, 0, 1000000);
    FUZZ_REQUIRE(strlen(cli_workload_name(workload, name)) < CLI_NAME_BYTES - 1, "%s", name);
    FUZZ_REQUIRE(cli_workload_parse(name, &again), "%s is not understood", name);
    FUZZ_REQUIRE(memcmp(workload, &again, sizeof(again)) == 0, "%s is another", name);
}

static void require_lengths(const cli_lengths *lengths)
{
    int32_t lens[4];
    FUZZ_REQUIRE(strlen(lengths->name) < sizeof(lengths->name), "not ended");
    require_in("default batch", lengths->default_batch, 1, CLI_MAX_BATCH);
    cli_lengths_make(lengths, 4, lens);
    for (int i = 0; i < 4; i++)
        require_in("length", lens[i], 1, CLI_MAX_CONTEXT);
}

static void require_list(const char *what, const int64_t *list, int count, int64_t low,
                         int64_t high)
{
    require_in(what, count, 1, CLI_MAX_LIST);
    for (int i = 0; i < count; i++)
        require_in(what, list[i], low, high);
}

static void require_options(const cli_bench_options *options)
{
    require_in("workloads", options->num_workloads, 1, CLI_MAX_LIST);
    for (int i = 0; i < options->num_workloads; i++)
        require_workload(&options->workloads[i]);
    require_in("lengths", options->num_lengths, 1, CLI_MAX_LIST);
    for (int i = 0; i < options->num_lengths; i++)
        require_lengths(&options->lengths[i]);
    require_list("batch", options->batches, options->num_batches, 0, CLI_MAX_BATCH);
    require_list("page size", options->page_sizes, options->num_page_sizes, 0, CLI_MAX_PAGE_SIZE);
    require_list("threads", options->threads, options->num_threads, 1, PAGEATTN_MAX_THREADS);
    require_in("types", options->num_kv_types, 1, CLI_MAX_LIST);
    for (int i = 0; i < options->num_kv_types; i++)
        require_in("type", (int64_t)options->kv_types[i], PAGEATTN_F32, PAGEATTN_F16);
    require_in("instruction sets", options->num_isas, 1, CLI_MAX_LIST);
    for (int i = 0; i < options->num_isas; i++)
        FUZZ_REQUIRE(pageattn_isa_name(options->isas[i]) != NULL, "no instruction set");
    require_in("numerics", options->num_numerics, 1, CLI_MAX_LIST);
    for (int i = 0; i < options->num_numerics; i++)
        require_in("numerics", (int64_t)options->numerics[i], PAGEATTN_NUMERICS_EXACT,
                   PAGEATTN_NUMERICS_FAST);
    require_in("layouts", options->num_layouts, 1, CLI_MAX_LIST);
    for (int i = 0; i < options->num_layouts; i++)
        FUZZ_REQUIRE(cli_layout_name(options->layouts[i]) != NULL, "no layout");
    require_in("orders", options->num_orders, 1, CLI_MAX_LIST);
    FUZZ_REQUIRE(options->effort.min_seconds >= 0 && options->effort.min_seconds <= 3600,
                 "%g seconds", options->effort.min_seconds);
    require_in("repetitions", options->effort.min_reps, 1, CLI_MAX_REPS);
    require_in("format", (int64_t)options->format, CLI_TABLE, CLI_JSON);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t num_bytes)
{
    static cli_bench_options options;
    char *arguments[MAX_ARGUMENTS];
    int count = 0;
    char *text = malloc(num_bytes + 1);
    FUZZ_REQUIRE(text != NULL, "out of memory");
    memcpy(text, bytes, num_bytes);
    text[num_bytes] = '\0';
    for (char *line = text; line != NULL && count < MAX_ARGUMENTS; count++) {
        char *end = strchr(line, '\n');
        arguments[count] = line;
        if (end != NULL)
            *end++ = '\0';
        line = end;
    }
    said_reset();
    const cli_asked asked = cli_bench_options_parse(count, arguments, &options);
    FUZZ_REQUIRE(said_count() == (asked == CLI_WRONG), "%d sentences", said_count());
    if (asked == CLI_RUN)
        require_options(&options);
    free(text);
    return 0;
}
